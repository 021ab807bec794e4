"""A server on what an older release has left."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.proxy.running import Server, farebox

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("release", sorted((ROOT / "tests" / "releases").glob("*.sql")), ids=lambda file: file.stem)
def test_a_server_goes_on_with_an_older_releases_file(release: Path, tmp_path: Path) -> None:
    """Its keys work, its credits, calls and statement are as they were, and it can be called and audited."""
    left = release.read_text(encoding="utf-8")
    key = left.splitlines()[0].removeprefix("-- key: ")
    with closing(sqlite3.connect(tmp_path / "farebox.db")) as file:
        file.executescript(left)
    shutil.copy(ROOT / "config.yaml", tmp_path)
    url = f"sqlite:///{tmp_path / 'farebox.db'}"
    server = Server(tmp_path, FAREBOX_DATABASE_URL=url)
    try:
        server.start()
        with httpx.Client(base_url=server.base, headers={"Authorization": f"Bearer {key}"}) as caller:
            credits = caller.get("/v1/credits").json()
            assert (credits["available"], credits["debt"], credits["overdraft_limit"]) == ("202", "0", "1")
            calls = caller.get("/v1/credits/usage").json()["data"]
            assert len(calls) == 7 and {call["status"] for call in calls} == {"settled"}
            statement = caller.get("/v1/credits/statement").json()["data"]
            assert statement[0]["balance"] == "202"
            asked = {"model": "demo", "messages": [{"role": "user", "content": "And now?"}]}
            assert caller.post("/v1/chat/completions", json=asked).status_code == 200
        assert server.stop() == 0
    finally:
        server.close()
    audited = farebox(tmp_path, "audit", FAREBOX_DATABASE_URL=url)
    assert audited.returncode == 0, audited.stdout + audited.stderr
