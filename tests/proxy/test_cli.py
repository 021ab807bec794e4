"""The command line: what it prints, how it exits, and that it never fights a running server."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.proxy.chats import DONE, MESSAGES, answer, body_of, finish, usage_chunk, words
from tests.proxy.running import ADMIN_KEY, Caller, Server, clean_environment, farebox
from tests.proxy.upstream import Gate, Upstream, streamed

_Factory = Callable[..., Server]


def _json(folder: Path, *arguments: str, **variables: str) -> Any:
    ran = farebox(folder, *arguments, "--json", **variables)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_the_demo_shows_a_curl_that_works(server: _Factory, tmp_path: Path) -> None:
    """What the demo prints can be pasted: an answer, its charge in the headers, and what is left."""
    (tmp_path / "config.yaml").unlink()
    demo = server("demo").start()
    key = re.search(r"fbx_[A-Za-z0-9]{32,}", demo.output)
    assert key is not None
    lines = [line.strip() for line in demo.output.splitlines() if line.strip().startswith("curl ")]
    command = shlex.split(lines[0])
    assert command[:2] == ["curl", "-i"]
    assert demo.base + "/v1/chat/completions" in command
    if shutil.which("curl"):
        ran = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        assert ran.stdout.startswith("HTTP/1.1 200")
        headers, _, body = ran.stdout.partition("\n\n")
        assert re.search(r"x-credits-charged: \d", headers)
        assert json.loads(body)["choices"][0]["message"]["content"]
    assert f'base_url="{demo.base}/v1"' in demo.output
    caller = Caller(demo, "", key[0])
    assert caller.balance()["available"] not in ("0", "1000") or not shutil.which("curl")
    stream = caller.openai.chat.completions.create(model="demo", messages=MESSAGES, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in stream if part.choices)


def test_a_second_demo_is_the_first(server: _Factory, tmp_path: Path) -> None:
    """Key and credits are found again; the key's file is readable by its owner only."""
    demo = server("demo").start()
    first = demo.output
    caller = Caller(demo, "", re.findall(r"fbx_[A-Za-z0-9]+", first)[0])
    caller.chat("demo")
    left = caller.available
    file = tmp_path / ".farebox" / "demo.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert caller.key in file.read_text()
    assert demo.stop() == 0
    demo.start()
    assert caller.key in demo.output
    assert caller.available == left
    assert f"has {left} credits" in demo.output
    accounts = demo.done("GET", "/accounts")["data"]
    assert len(accounts) == 1


def test_the_admin_key_is_shown_once(server: _Factory, tmp_path: Path) -> None:
    """Without a configured admin key the first start makes one; it works after a restart and is not shown again."""
    running = server("serve", FAREBOX_ADMIN_KEY="").start()
    (key,) = re.findall(r"Admin key, shown this once: (\S+)", "".join(running.lines))
    assert len(key) >= 32
    for _ in range(2):
        headers = {"authorization": f"Bearer {key}"}
        assert running.http.get(running.base + "/admin/v1/accounts", headers=headers).status_code == 200
        running.stop()
        running.lines.clear()
        running.start()
        assert "Admin key" not in "".join(running.lines)
    for path in tmp_path.iterdir():
        if path.is_file():
            assert key.encode() not in path.read_bytes()


def test_keys_are_kept_only_as_digests(server: _Factory, tmp_path: Path, upstream: Upstream) -> None:
    """Neither a caller's key nor a prompt nor an answer is in any file, nor in the log."""
    running = server().start()
    caller = running.caller()
    upstream.says(answer("a most secret answer"))
    asked = [{"role": "user", "content": "a most secret question"}]
    assert caller.chat(messages=asked).status_code == 200
    upstream.says(streamed(words("a most secret answer"), finish(), usage_chunk(), DONE))
    assert caller.chat(messages=asked, stream=True).status_code == 200
    assert running.stop() == 0
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name != "config.yaml":
            content = path.read_bytes()
            for secret in (caller.key, "most secret", ADMIN_KEY, "operators-secret"):
                assert secret.encode() not in content, path
    log = "".join(running.lines)
    for secret in (caller.key, "most secret", ADMIN_KEY, "operators-secret"):
        assert secret not in log


def test_a_second_server_on_one_database_is_refused(server: _Factory, tmp_path: Path) -> None:
    """It says who has the database and exits 1; the first goes on."""
    running = server().start()
    ran = farebox(tmp_path, "serve", "--port", "0")
    assert ran.returncode == 1
    assert "farebox.db" in ran.stderr and running.base in ran.stderr and str(running.pid) in ran.stderr
    assert "Traceback" not in ran.stderr
    assert running.http.get(running.base + "/healthz").status_code == 200


def test_a_taken_port_is_refused(tmp_path: Path, config_text: str) -> None:
    """It names the address and exits 1."""
    (tmp_path / "config.yaml").write_text(config_text)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = farebox(tmp_path, "serve", "--port", str(port))
    assert ran.returncode == 1
    assert f"127.0.0.1:{port}" in ran.stderr and "Traceback" not in ran.stderr


def test_more_workers_need_postgresql(tmp_path: Path, config_text: str) -> None:
    """It says so and exits 1 rather than running one."""
    (tmp_path / "config.yaml").write_text(config_text)
    ran = farebox(tmp_path, "serve", "--port", "0", "--workers", "2")
    assert (ran.returncode, "PostgreSQL" in ran.stderr) == (1, True)


_BAD_CONFIGS: dict[str, tuple[str, int]] = {
    "unknown key": ("upstreams:\n  demo: {kind: demo}\nmodls: {}\n", 3),
    "duplicate key": ("upstreams:\n  demo: {kind: demo}\n  demo: {kind: demo}\nmodels: {}\n", 3),
    "later key": ("upstreams:\n  demo: {kind: demo}\ncreators: {premium: 10%}\n", 3),
    "no price": ("upstreams:\n  demo: {kind: demo}\nmodels:\n  a: {upstream: demo/demo}\n", 4),
    "no unit": (
        "upstreams:\n  demo: {kind: demo}\nmodels:\n  a:\n    upstream: demo/demo\n    price:\n"
        "      input_tokens: 40\n      output_tokens: 1 / 1k\n",
        7,
    ),
    "negative price": (
        "upstreams: {demo: {kind: demo}}\nmodels:\n  a: {upstream: demo/demo, price: {request: -1}}\n",
        3,
    ),
    "unknown meter": ("upstreams: {demo: {kind: demo}}\nmodels:\n  a: {upstream: demo/demo, price: {tokens: 1}}\n", 3),
    "unset variable": ('upstreams:\n  a: {kind: openai, base_url: "${NO_SUCH_NAME}"}\nmodels: {}\n', 2),
    "no YAML": ("upstreams: [\n", 2),
}


@pytest.mark.parametrize("case", _BAD_CONFIGS)
def test_a_bad_config_is_refused_with_its_line(tmp_path: Path, case: str) -> None:
    """`FILE:LINE: what is wrong`, exit 1, no traceback, and no database was made."""
    text, line = _BAD_CONFIGS[case]
    (tmp_path / "config.yaml").write_text(text)
    ran = farebox(tmp_path, "serve", "--port", "0")
    assert ran.returncode == 1
    assert re.match(rf"config\.yaml:{line}: \S", ran.stderr), ran.stderr
    assert "Traceback" not in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_missing_config_is_refused(tmp_path: Path) -> None:
    """It names the file that it looked for."""
    for arguments, name in (((), "config.yaml"), (("--config", "other.yaml"), "other.yaml")):
        ran = farebox(tmp_path, "serve", *arguments)
        assert (ran.returncode, name in ran.stderr) == (1, True)


@pytest.mark.parametrize(
    "command",
    [
        "nothing",
        "serve --port x",
        "serve --nothing",
        "account create",
        "key",
        "serve --workers 0",
        "grant create acct_1",
    ],
)
def test_a_wrong_command_line_exits_2(tmp_path: Path, command: str) -> None:
    """Usage errors go to stderr."""
    ran = farebox(tmp_path, *command.split())
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "Usage" in ran.stderr


def test_the_environment_and_flags_choose(server: _Factory, tmp_path: Path, config_text: str) -> None:
    """FAREBOX_CONFIG and FAREBOX_DATABASE_URL are read; a flag goes before the environment."""
    (tmp_path / "config.yaml").rename(tmp_path / "other.yaml")
    running = server("serve", FAREBOX_CONFIG="other.yaml", FAREBOX_DATABASE_URL="sqlite:///elsewhere.db").start()
    assert (tmp_path / "elsewhere.db").exists() and not (tmp_path / "farebox.db").exists()
    assert running.stop() == 0
    (tmp_path / "broken.yaml").write_text("x")
    running = server("serve", FAREBOX_CONFIG="broken.yaml").start("--config", "other.yaml")
    assert running.http.get(running.base + "/healthz").status_code == 200


def test_administration_works_on_the_file(server: _Factory, tmp_path: Path, upstream: Upstream) -> None:
    """Without a server, accounts, keys and grants are made in the file, and a server started later knows them."""
    account = _json(tmp_path, "account", "create", "Ada", "--timezone", "Europe/Rome", "--external-id", "u-1")
    assert (account["object"], account["name"], account["timezone"]) == ("account", "Ada", "Europe/Rome")
    key = _json(tmp_path, "key", "create", account["id"], "--name", "laptop")
    grant = _json(tmp_path, "grant", "create", account["id"], "paid", "12.5", "--note", "welcome")
    assert (grant["granted"], grant["note"]) == ("12.5", "welcome")
    assert _json(tmp_path, "account", "credits", account["id"])["available"] == "12.5"
    running = server().start()
    caller = Caller(running, account["id"], key["key"])
    upstream.says(answer())
    assert caller.chat().headers["x-credits-available"] == "12.459"


def test_administration_goes_through_a_running_server(server: _Factory, tmp_path: Path, upstream: Upstream) -> None:
    """With FAREBOX_URL the same commands work beside the server, and a revoked key is refused at once."""
    running = server().start()
    through = {"FAREBOX_URL": running.base, "FAREBOX_ADMIN_KEY": ADMIN_KEY}
    account = _json(tmp_path, "account", "create", "Ada", **through)["id"]
    key = _json(tmp_path, "key", "create", account, **through)
    grant = _json(tmp_path, "grant", "create", account, "paid", "1", **through)
    assert [entry["id"] for entry in _json(tmp_path, "account", "list", **through)["data"]] == [account]
    assert [entry["id"] for entry in _json(tmp_path, "key", "list", account, **through)["data"]] == [key["id"]]
    assert [entry["id"] for entry in _json(tmp_path, "grant", "list", account, **through)["data"]] == [grant["id"]]
    caller = Caller(running, account, key["key"])
    upstream.says(answer())
    assert caller.chat().status_code == 200
    assert _json(tmp_path, "key", "revoke", key["id"], **through)["status"] == "revoked"
    assert caller.chat().status_code == 401
    wrong = farebox(tmp_path, "account", "list", FAREBOX_URL=running.base, FAREBOX_ADMIN_KEY="wrong")
    assert (wrong.returncode, wrong.stdout) == (1, "")


def test_the_file_of_a_running_server_is_not_touched(server: _Factory, tmp_path: Path) -> None:
    """Without FAREBOX_URL the command says who has the file and how to go through that server."""
    running = server().start()
    ran = farebox(tmp_path, "account", "create", "Ada")
    assert ran.returncode == 1
    assert "FAREBOX_URL" in ran.stderr and running.base in ran.stderr
    assert running.done("GET", "/accounts")["data"] == []


def test_a_refused_command_says_why(server: _Factory, tmp_path: Path) -> None:
    """Exit 1, the field named on stderr, nothing on stdout."""
    running = server().start()
    through = {"FAREBOX_URL": running.base, "FAREBOX_ADMIN_KEY": ADMIN_KEY}
    account = running.caller(None).account
    for credits in ("1.5.5", "0", "-1", "1e9"):
        ran = farebox(tmp_path, "grant", "create", "--", account, "paid", credits, **through)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert "credits" in ran.stderr and "Traceback" not in ran.stderr
    assert running.done("GET", f"/accounts/{account}/grants")["data"] == []


def test_an_audit_runs_beside_a_running_server(server: _Factory, tmp_path: Path, upstream: Upstream) -> None:
    """While a call holds credits the ledger is in order: exit 0, and what is held is said."""
    running = server().start()
    caller = running.caller("10")
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    with running.http.stream("POST", caller.url, content=body_of(stream=True), headers=caller.headers) as stream:
        gate.reached()
        held = caller.balance()["held"]
        ran = farebox(tmp_path, "audit", "--json")
        gate.open()
        stream.read()
    found = json.loads(ran.stdout)
    assert (ran.returncode, found["clean"], found["findings"]) == (0, True, [])
    assert (found["totals"]["held"], found["totals"]["issued"]) == (held, "10")
    assert found["orphans"] == []
    plain = farebox(tmp_path, "audit")
    assert plain.returncode == 0 and plain.stdout.strip().endswith("clean")


def test_an_audit_finds_what_was_tampered_with(server: _Factory, tmp_path: Path) -> None:
    """A balance changed behind the ledger's back is broken: exit 1, with the row."""
    import sqlite3

    running = server().start()
    running.caller("10")
    running.stop()
    connection = sqlite3.connect(tmp_path / "farebox.db")
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("UPDATE ledger_grant SET balance = balance + 1")
    connection.commit()
    connection.close()
    ran = farebox(tmp_path, "audit", "--json")
    found = json.loads(ran.stdout)
    assert (ran.returncode, found["clean"]) == (1, False)
    assert found["findings"][0]["rows"]


def test_an_audit_without_a_ledger_says_so(tmp_path: Path) -> None:
    """Exit 1, and no file is made by looking for one."""
    ran = farebox(tmp_path, "audit")
    assert ran.returncode == 1 and "farebox.db" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_and_version_work(tmp_path: Path) -> None:
    """Every command explains itself, and nothing is made by asking."""
    for command in ((), ("serve",), ("demo",), ("audit",), ("account",), ("key",), ("grant",), ("grant", "create")):
        ran = farebox(tmp_path, *command, "--help")
        assert ran.returncode == 0 and ran.stdout.startswith("Usage:")
    assert farebox(tmp_path, "--version").returncode == 0
    assert list(tmp_path.iterdir()) == []
    script = shutil.which("farebox", path=str(Path(sys.executable).parent))
    if script is not None:
        ran_script = subprocess.run([script, "--help"], env=clean_environment(), capture_output=True, check=True)
        assert ran_script.stdout.startswith(b"Usage: farebox")


def test_the_models_of_the_demo_are_priced(server: _Factory) -> None:
    """Without a provider's key only the model is offered that needs none."""
    demo = server("demo").start()
    caller = Caller(demo, "", re.findall(r"fbx_[A-Za-z0-9]+", demo.output)[0])
    assert [model.id for model in caller.openai.models.list()] == ["demo"]
    with pytest.raises(openai.APIStatusError) as raised:
        caller.openai.chat.completions.create(model="fast", messages=MESSAGES)
    assert raised.value.status_code == 503
    assert isinstance(raised.value.response, httpx.Response)
