"""Who changed prices, when, and what that changed; on every server of a database alike."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.postgres import own_database, postgres_server
from tests.proxy.chats import answer
from tests.proxy.priced import edited, in_force, priced, put
from tests.proxy.running import Caller, Server, until
from tests.proxy.upstream import Upstream

_DEARER = "{input_tokens: 2 / 1k, output_tokens: 3 / 1k}"
_DEAREST = "{input_tokens: 9 / 1k, output_tokens: 3 / 1k}"


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return priced(running_upstream.url)


def _words(server: Server) -> list[list[str]]:
    """What the newest changes changed at once, newest first."""
    return [change["steps"][0]["changes"] for change in server.done("GET", "/prices/changes")["data"]]


def test_a_change_is_kept_with_who_and_when_and_in_words(shared: Server, upstream: Upstream) -> None:
    """The file that was edited, the time, and each figure that is another; every table can be shown again."""
    first = edited(shared, priced(upstream.url))
    put(shared, priced(upstream.url, _DEARER))
    assert until(lambda: in_force(shared)["version"] != first, 2.0)
    second = in_force(shared)["version"]
    newest = shared.done("GET", "/prices/changes?limit=1")["data"][0]
    assert newest["actor"].startswith("config.yaml of ")
    assert newest["at"] >= in_force(shared)["effective_at"]
    assert [(step["effective_from"], step["version"]) for step in newest["steps"]] == [(None, second)]
    assert newest["steps"][0]["changes"] == [
        f"{model}: input_tokens 1000 → 2000 credits / 1M, +100 %" for model in ("words", "other", "deep", "plain")
    ]
    assert edited(shared, priced(upstream.url)) == first
    assert _words(shared)[0][0] == "words: input_tokens 2000 → 1000 credits / 1M, −50 %"
    kept = shared.done("GET", f"/prices/versions/{second}")
    assert kept["models"]["plain"]["input_tokens"] == "2 / 1k"
    assert shared.admin("GET", "/prices/versions/prices_0123456789abcdef").status_code == 404


def test_what_changes_no_price_is_no_change(shared: Server, upstream: Upstream) -> None:
    """Nor is a file that is read again."""
    edited(shared, priced(upstream.url))
    before = shared.done("GET", "/prices/changes")["data"]
    put(shared, priced(upstream.url, more="limits: {per_key: {concurrent: 50}}\n"))
    shared.done("POST", "/prices/reload")
    shared.done("POST", "/prices/reload")
    assert shared.done("GET", "/prices/changes")["data"] == before


def test_changes_are_listed_by_pages(shared: Server, upstream: Upstream) -> None:
    """Newest first, after the last one seen; an id that is none is refused."""
    for prices in (_DEARER, _DEAREST):
        edited(shared, priced(upstream.url, prices))
    everything = shared.done("GET", "/prices/changes?limit=1000")["data"]
    page = shared.done("GET", "/prices/changes?limit=1")
    assert page["data"] == everything[:1] and page["has_more"]
    assert shared.done("GET", f"/prices/changes?limit=1&after={page['next']}")["data"] == everything[1:2]
    assert shared.admin("GET", "/prices/changes?after=acct_1").status_code == 422


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


_Pair = tuple[Server, Server]


@pytest.fixture
def pair(server: Callable[..., Server], postgres: str, upstream: Upstream, tmp_path: Path) -> _Pair:
    """Two servers on one database, each with a config of its own, as on two hosts."""
    url = own_database(postgres, str(tmp_path))
    one = server("serve", FAREBOX_DATABASE_URL=url).start()
    folder = tmp_path / "other"
    folder.mkdir()
    shutil.copy(one.folder / "config.yaml", folder)
    other = server("serve", folder=folder, FAREBOX_DATABASE_URL=url).start()
    upstream.says(answer())
    return one, other


def _total(server: Server, account: Caller) -> str:
    """What a call costs there."""
    caller = Caller(server, account.account, account.key)
    return str(caller.receipt(caller.chat("plain"))["total"])


def test_an_edit_on_one_host_is_in_force_on_the_other(pair: _Pair, upstream: Upstream) -> None:
    """Within two seconds, though the other's file is as it was; whoever edits last decides."""
    one, other = pair
    caller = one.caller("100")
    assert _total(other, caller) == "0.041"
    first = in_force(one)["version"]
    put(one, priced(upstream.url, _DEARER))
    assert until(lambda: in_force(other)["version"] != first, 2.0)
    assert in_force(other)["version"] == in_force(one)["version"]
    assert in_force(other)["effective_at"] == in_force(one)["effective_at"]
    assert _total(other, caller) == "0.061" == _total(one, caller)
    put(other, priced(upstream.url, _DEAREST))
    assert until(lambda: in_force(one)["models"]["plain"]["input_tokens"] == "9 / 1k", 2.0)
    assert _total(one, caller) == "0.201"
    assert len(_words(one)) == 3


def test_a_server_that_comes_later_takes_the_others_prices(pair: _Pair, upstream: Upstream) -> None:
    """Its file is of before, which it says; what has never been in force is an edit, and counts for all."""
    one, other = pair
    put(one, priced(upstream.url, _DEARER))
    assert until(lambda: in_force(other)["models"]["plain"]["input_tokens"] == "2 / 1k", 2.0)
    assert other.stop() == 0
    other.start()
    assert in_force(other)["version"] == in_force(one)["version"]
    assert any("puts this file's in force everywhere" in line for line in other.lines)
    other.stop()
    put(other, priced(upstream.url, _DEAREST))
    other.start()
    assert until(lambda: in_force(one)["models"]["plain"]["input_tokens"] == "9 / 1k", 2.0)
    put(one, priced(upstream.url))
    assert until(lambda: in_force(other)["models"]["plain"]["input_tokens"] == "1 / 1k", 2.0)
    other.done("POST", "/prices/reload")
    assert until(lambda: in_force(one)["models"]["plain"]["input_tokens"] == "9 / 1k", 2.0)
    assert one.done("GET", "/prices/changes")["data"][0]["actor"] == "admin, by POST /admin/v1/prices/reload"


def test_a_server_that_starts_alone_uses_its_own_file(pair: _Pair, upstream: Upstream) -> None:
    """Also where that is back to what was in force before."""
    one, other = pair
    put(one, priced(upstream.url, _DEARER))
    assert until(lambda: in_force(other)["models"]["plain"]["input_tokens"] == "2 / 1k", 2.0)
    assert (one.stop(), other.stop()) == (0, 0)
    other.start()
    assert in_force(other)["models"]["plain"]["input_tokens"] == "1 / 1k"


def test_what_another_host_does_not_price_is_not_offered_there(pair: _Pair, upstream: Upstream) -> None:
    """A model that the prices in force have none for is 503 and in no list, and said in the log."""
    one, other = pair
    text = priced(upstream.url).replace("  plain:", "  plane:")
    put(one, text)
    assert until(lambda: "plane" in in_force(other)["models"], 2.0)
    caller = Caller(other, *(lambda made: (made.account, made.key))(one.caller("100")))
    listed = {model["id"] for model in caller.get("/v1/models").json()["data"]}
    assert "plain" not in listed and "words" in listed
    assert caller.chat("plain").status_code == 503
    assert caller.get("/v1/models/plain").status_code == 404
    assert any("not offered here" in line and "plain" in line for line in other.lines)


def _soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_prices_come_into_force_at_their_time(shared: Server, upstream: Upstream, caller: Caller) -> None:
    """On the second, without any edit; until then they are announced, with what they will change."""
    upstream.says(answer())
    begins = _soon(3)
    later = f"price_changes: [{{effective_from: '{begins}', models: {{plain: {{request: 5}}}}}}]\n"
    first = edited(shared, priced(upstream.url, more=later))
    shown = in_force(shared)
    (coming,) = shown["upcoming"]
    assert datetime.fromisoformat(coming["effective_from"]) == datetime.fromisoformat(begins)
    steps = shared.done("GET", "/prices/changes?limit=1")["data"][0]["steps"]
    assert steps[1]["changes"] == ["plain: request is now 5 credits"]
    assert shared.done("GET", f"/prices/versions/{coming['version']}")["models"]["plain"]["request"] == "5"
    assert caller.receipt(caller.chat("plain"))["total"] == "0.041"
    assert until(lambda: in_force(shared)["version"] == coming["version"], 6.0)
    assert datetime.now(UTC) >= datetime.fromisoformat(begins)
    assert in_force(shared)["upcoming"] == []
    assert in_force(shared)["effective_at"] == coming["effective_from"]
    assert caller.receipt(caller.chat("plain"))["total"] == "5.041"
    assert edited(shared, priced(upstream.url)) == first


def test_prices_to_come_come_on_every_host(pair: _Pair, upstream: Upstream) -> None:
    """Also where the file does not know of them, and after that host was started anew."""
    one, other = pair
    begins = _soon(6)
    put(
        one,
        priced(upstream.url, more=f"price_changes: [{{effective_from: '{begins}', surcharges: {{web_page: 1}}}}]\n"),
    )
    assert until(lambda: bool(in_force(other)["upcoming"]), 2.0)
    assert other.stop() == 0
    other.start()
    assert in_force(other)["upcoming"] == in_force(one)["upcoming"]
    coming = in_force(one)["upcoming"] or [{"version": in_force(one)["version"]}]
    assert until(lambda: in_force(one)["version"] == in_force(other)["version"] == coming[0]["version"], 8.0)


def test_a_doubtful_edit_is_not_in_force(shared: Server, upstream: Upstream) -> None:
    """What is sold below cost has to be meant; until then the table before it stays."""
    cost = "words: {class: standard, cost: {input_tokens: $1 / 1k, output_tokens: $1 / 1k},"
    first = edited(shared, priced(upstream.url))
    put(shared, priced(upstream.url).replace("words: {class: standard,", cost))
    assert until(lambda: in_force(shared)["last_error"] is not None, 5)
    assert "i_mean_it: [input_tokens]" in in_force(shared)["last_error"]
    assert in_force(shared)["version"] == first
    put(shared, priced(upstream.url))
    assert until(lambda: in_force(shared)["last_error"] is None, 5)


def test_an_edit_of_something_else_leaves_anothers_prices(pair: _Pair, upstream: Upstream) -> None:
    """So does a slip that is undone: only prices that are other than the file's own before are an edit of prices."""
    one, other = pair
    put(one, priced(upstream.url, _DEARER))
    assert until(lambda: in_force(other)["models"]["plain"]["input_tokens"] == "2 / 1k", 2.0)
    changes = one.done("GET", "/prices/changes")["data"]
    put(other, priced(upstream.url, more="limits: {per_key: {concurrent: 50}}\n"))
    assert until(lambda: any("config reloaded" in line for line in other.lines), 3.0)
    put(other, "models: {}\n")
    assert until(lambda: in_force(other)["last_error"] is not None, 3.0)
    put(other, priced(upstream.url, more="limits: {per_key: {concurrent: 50}}\n"))
    assert until(lambda: in_force(other)["last_error"] is None, 3.0)
    assert in_force(other)["version"] == in_force(one)["version"]
    assert one.done("GET", "/prices/changes")["data"] == changes


def test_a_restart_with_workers_goes_by_its_own_file(
    server: Callable[..., Server], postgres: str, upstream: Upstream, tmp_path: Path
) -> None:
    """Also back to prices of before: the workers that start together are no company to each other."""
    running = server("serve", "--workers", "3", FAREBOX_DATABASE_URL=own_database(postgres, str(tmp_path)))
    for prices, shown in ((_DEARER, "2 / 1k"), (_DEAREST, "9 / 1k"), (_DEARER, "2 / 1k"), (_DEAREST, "9 / 1k")):
        put(running, priced(upstream.url, prices))
        running.start()
        assert in_force(running)["models"]["plain"]["input_tokens"] == shown
        assert running.stop() == 0


def test_what_a_newer_release_announced_keeps_nobody_from_serving(pair: _Pair, upstream: Upstream) -> None:
    """It can't be read here: the prices before it stay, a start goes by its own file, and so does a reload."""
    one, other = pair
    first = in_force(one)["version"]
    content = '{"models": {}, "operations": [], "surcharges": {}, "more": 1}'
    version = f"prices_{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    with psycopg.connect(one._variables["FAREBOX_DATABASE_URL"]) as database:
        database.execute("INSERT INTO price_version VALUES (%s, %s, 1)", (version, content))
        changed = "INSERT INTO price_change SELECT MAX(change_id) + 1, 1, 'newer', %s, '[]' FROM price_change"
        database.execute(changed, (f'[[0, "{version}"]]',))
    assert until(lambda: any("can't be read" in line for line in one.lines), 3.0)
    assert in_force(one)["version"] == first
    assert other.stop() == 0
    other.start()
    assert in_force(other)["version"] == first
    put(one, priced(upstream.url, _DEARER))
    assert until(lambda: in_force(other)["models"]["plain"]["input_tokens"] == "2 / 1k", 3.0)
