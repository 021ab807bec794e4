"""`farebox check` and `farebox backup`: a config proved before it is used, a copy taken while it is written."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.proxy.chats import DONE, answer, body_of, finish, usage_chunk, words
from tests.proxy.priced import priced
from tests.proxy.running import Caller, Server, farebox
from tests.proxy.upstream import Gate, Upstream, streamed

_Factory = Callable[..., Server]
_TEXT = priced("http://127.0.0.1:1/v1")


def test_check_prints_the_prices_as_written(tmp_path: Path) -> None:
    """Models, surcharges and operations, each price with its meter; warnings go to stderr."""
    (tmp_path / "shop.yaml").write_text(_TEXT)
    ran = farebox(tmp_path, "check", "shop.yaml")
    assert ran.returncode == 0
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert ["words", "(words)"] in lines and ["Chat", "(words_chat)"] in lines
    for expected in (
        ["input_tokens", "1", "/", "1k"],
        ["output_tokens", "3", "/", "1k"],
        ["min", "0.05"],
        ["max", "0.06"],
        ["web_search", "15"],
        ["multiply", "0.6"],
        ["output_tokens", "10", "/", "1k"],
    ):
        assert expected in lines, expected
    assert "unreached" in ran.stderr and "standard_ai" in ran.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "shop.yaml"]


def test_check_answers_json(tmp_path: Path) -> None:
    """The table that a server shows its operator."""
    (tmp_path / "config.yaml").write_text(_TEXT)
    ran = farebox(tmp_path, "check", "--json")
    document = json.loads(ran.stdout)
    assert (ran.returncode, document["object"]) == (0, "prices")
    assert document["version"].startswith("prices_")
    assert document["models"]["least"] == {
        "input_tokens": "1 / 1k", "output_tokens": "3 / 1k", "min": "0.05", "max": "0.06",
    }  # fmt: skip
    assert document["surcharges"] == {"web_search": "15"}
    assert list(document["operations"])[:2] == ["words_chat", "standard_ai"]


def test_check_finds_its_config_as_serve_does(tmp_path: Path) -> None:
    """The argument, else FAREBOX_CONFIG, else config.yaml."""
    (tmp_path / "config.yaml").write_text("models: {}\n")
    (tmp_path / "good.yaml").write_text(_TEXT)
    assert farebox(tmp_path, "check").returncode == 1
    assert farebox(tmp_path, "check", FAREBOX_CONFIG="good.yaml").returncode == 0
    assert farebox(tmp_path, "check", "config.yaml", FAREBOX_CONFIG="good.yaml").returncode == 1
    assert farebox(tmp_path, "check", "good.yaml", "more").returncode == 2


def test_check_says_what_is_off(tmp_path: Path, config_text: str) -> None:
    """A model on an upstream without a key is priced, and marked."""
    (tmp_path / "config.yaml").write_text(config_text)
    ran = farebox(tmp_path, "check")
    assert ran.returncode == 0
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("off (off)")]
    assert "off: upstream off" in line
    assert "upstream off is off" in ran.stderr


_HEAD = "upstreams: {demo: {kind: demo}}\nmodels:\n"
_MODEL = _HEAD + "  a: {class: s, upstream: demo/demo, price: {request: 1}}\n"
_BAD: dict[str, tuple[str, int, str]] = {
    "no YAML": ("upstreams: [\n", 2, ""),
    "no price": (_HEAD + "  a: {upstream: demo/demo}\n", 3, "price"),
    "no output price": (_HEAD + "  a: {upstream: demo/demo, price: {input_tokens: 1 / 1k}}\n", 3, "output_tokens"),
    "no unit": (
        _HEAD + "  a:\n    upstream: demo/demo\n    price:\n      input_tokens: 40\n      output_tokens: 1 / 1k\n",
        6,
        "1M",
    ),
    "min above max": (_HEAD + "  a: {upstream: demo/demo, price: {request: 1, min: 3, max: 2}}\n", 3, "min"),
    "no last rule": (
        _HEAD + "  a: {upstream: demo/demo, price: {image: [{when: {quality: high}, price: 1}]}}\n", 3, "when",
    ),
    "unknown class": (_MODEL + "operations:\n  x: {class: t}\n", 5, "class"),
    "unknown endpoint": (_MODEL + "operations:\n  x: {endpoint: /v1/chat}\n", 5, "endpoint"),
    "per run": (_MODEL + "operations:\n  x: {multiply: 2, per: run}\n", 5, "per"),
    "a bound of two": (_MODEL + "operations:\n  x:\n    min: 5\n    max: 4\n", 6, "min"),
    "surcharge on tokens": (_MODEL + "surcharges: {input_tokens: 1 / 1k}\n", 4, "input_tokens"),
    "unknown meter": (_MODEL + "surcharges: {smiles: 1}\n", 4, "smiles"),
    "negative surcharge": (_MODEL + "surcharges: {web_search: -1}\n", 4, "-1"),
    "no limit": (_MODEL + "limits:\n  per_key: {requests_per_minute: 0}\n", 5, "0"),
    "unknown limit": (_MODEL + "limits: {per_day: {credits: 1}}\n", 4, "per_day"),
    "cost plus": (_HEAD + "  a: {upstream: demo/demo, price: {cost_plus: 25%}}\n", 3, "cost_plus"),
    "a pack without a price": (_MODEL + "packs: {small: {}}\n", 4, "price"),
    "creators": (_MODEL + "creators: {premium: 10%}\n", 4, "creators"),
    "twice": (_MODEL + "  a: {upstream: demo/demo, price: {request: 1}}\n", 4, "a"),
}  # fmt: skip


@pytest.mark.parametrize("case", _BAD)
def test_check_names_file_line_and_fix(tmp_path: Path, case: str) -> None:
    """Exit 1, `FILE:LINE: what is wrong` on stderr, nothing on stdout."""
    text, line, said = _BAD[case]
    (tmp_path / "shop.yaml").write_text(text)
    ran = farebox(tmp_path, "check", "shop.yaml")
    assert (ran.returncode, ran.stdout) == (1, "")
    last = ran.stderr.splitlines()[-1]
    assert last.startswith(f"shop.yaml:{line}: ") and said in last
    assert "Traceback" not in ran.stderr


def test_a_backup_is_taken_beside_a_running_server(server: _Factory, tmp_path: Path, upstream: Upstream) -> None:
    """While a call holds credits; the copy is whole, passes the audit, and is a ledger to serve from."""
    running = server().start()
    caller = running.caller("10")
    upstream.says(answer())
    assert caller.chat().status_code == 200
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    copy = tmp_path / "copies" / "farebox.db"
    copy.parent.mkdir()
    with running.http.stream("POST", caller.url, content=body_of(stream=True), headers=caller.headers) as stream:
        gate.reached()
        held = stream.headers["x-credits-held"]
        ran = farebox(tmp_path, "backup", str(copy))
        assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
        gate.open()
        stream.read()
    assert [path.name for path in copy.parent.iterdir()] == ["farebox.db"]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    audited = farebox(copy.parent, "audit", "--json")
    found = json.loads(audited.stdout)
    assert (audited.returncode, found["clean"]) == (0, True)
    assert (found["totals"]["held"], found["totals"]["issued"]) == (held, "10")
    assert running.audit()["totals"]["held"] == "0"
    assert running.stop() == 0

    shutil.copy(tmp_path / "config.yaml", copy.parent)
    again = Server(copy.parent).start()
    try:
        kept = Caller(again, caller.account, caller.key)
        # The call that ran when the copy was made is an orphan in it: released in full.
        assert (kept.available, kept.balance()["held"]) == ("9.959", "0")
        assert len(again.done("GET", "/orphans")["data"]) == 1
        again.audit()
    finally:
        again.close()


def test_a_backup_overwrites_nothing(server: _Factory, tmp_path: Path) -> None:
    """Exit 1 where the file is there already, where its folder is not, and where there is no ledger."""
    ran = farebox(tmp_path, "backup", "copy.db")
    assert ran.returncode == 1 and "farebox.db" in ran.stderr
    server().start()
    (tmp_path / "copy.db").write_text("precious")
    for target in ("copy.db", "no/such/folder/copy.db", "farebox.db"):
        ran = farebox(tmp_path, "backup", target)
        assert (ran.returncode, ran.stdout) == (1, "") and target in ran.stderr
        assert "Traceback" not in ran.stderr
    assert (tmp_path / "copy.db").read_text() == "precious"
    assert farebox(tmp_path, "backup").returncode == 2
