"""Edits of the config under a running server: in force soon, whole or not at all, never under a running call."""

from __future__ import annotations

import asyncio
import time
from signal import SIGHUP

import httpx
import pytest

from tests.proxy.chats import DONE, answer, body_of, documents, finish, usage_chunk, words
from tests.proxy.priced import edited, in_force, priced, put
from tests.proxy.running import Caller, Server, farebox, until
from tests.proxy.upstream import Gate, Upstream, streamed

_DEARER = "{input_tokens: 2 / 1k, output_tokens: 5 / 1k}"
_OF = {"3 / 1k": ("1 / 1k", "0.041"), "5 / 1k": ("2 / 1k", "0.075")}
"""By the price of output: that of input, and 20 and 7 tokens in all."""


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return priced(running_upstream.url)


@pytest.fixture
def first(shared: Server, upstream: Upstream) -> str:
    """The version in force when a test begins, always the same."""
    upstream.says(answer())
    return edited(shared, priced(upstream.url))


def _complaints(server: Server) -> int:
    return sum("config.yaml:" in line and "not in force" in line for line in server.lines)


def test_an_edit_is_in_force_within_two_seconds(shared: Server, upstream: Upstream, caller: Caller, first: str) -> None:
    """Without any command; calls, lists of models and the admin's table agree."""
    assert caller.receipt(caller.chat("plain"))["price_version"] == first
    began = time.monotonic()
    (shared.folder / "config.yaml").write_text(priced(upstream.url, _DEARER))
    assert until(lambda: in_force(shared)["version"] != first, 5)
    assert time.monotonic() - began < 2
    shown = in_force(shared)
    receipt = caller.receipt(caller.chat("plain"))
    assert (receipt["price_version"], receipt["total"]) == (shown["version"], "0.075")
    assert shown["models"]["plain"] == {"input_tokens": "2 / 1k", "output_tokens": "5 / 1k"}
    assert shown["last_error"] is None and shown["effective_at"].endswith("Z")
    listed = {model["id"]: model for model in caller.get("/v1/models").json()["data"]}
    assert listed["plain"]["price"] == shown["models"]["plain"]


def test_a_signal_reloads(shared: Server, upstream: Upstream, first: str) -> None:
    """SIGHUP puts an edit in force, and ends nothing."""
    put(shared, priced(upstream.url, _DEARER))
    shared.signal(SIGHUP)
    assert until(lambda: in_force(shared)["version"] != first, 2)
    assert shared.http.get(shared.base + "/readyz").status_code == 200


def test_a_version_is_that_of_its_content(shared: Server, upstream: Upstream, first: str) -> None:
    """Back to the old prices is back to the old version; what changes no charge changes no version."""
    assert edited(shared, priced(upstream.url, _DEARER)) != first
    assert edited(shared, priced(upstream.url)) == first
    assert edited(shared, "# a comment\n" + priced(upstream.url)) == first
    assert edited(shared, priced(upstream.url, more="limits: {per_key: {concurrent: 50}}\n")) == first


_BAD: dict[str, tuple[str, str]] = {
    "no YAML": ("upstreams: [\n", "config.yaml:"),
    "empty": ("", "config.yaml:1: "),
    "unknown key": (priced("http://127.0.0.1:1/v1", more="modls: {}\n"), "modls"),
    "negative price": (priced("http://127.0.0.1:1/v1", "{request: -1}"), "config.yaml:6: "),
    "no unit": (priced("http://127.0.0.1:1/v1", "{input_tokens: 40, output_tokens: 1 / 1k}"), "config.yaml:6: "),
    "no price": (priced("http://127.0.0.1:1/v1", "{}"), "config.yaml:6: "),
    "another database": (priced("http://127.0.0.1:1/v1", more='database: "sqlite:///other.db"\n'), "database"),
}


@pytest.mark.parametrize("case", _BAD)
def test_a_bad_edit_changes_nothing_and_says_so(
    shared: Server, upstream: Upstream, caller: Caller, first: str, case: str
) -> None:
    """Calls go on under the table before it; the admin's table and the log say what is wrong, until it is mended."""
    text, said = _BAD[case]
    complaints = _complaints(shared)
    shown = in_force(shared)
    put(shared, text)
    assert until(lambda: in_force(shared)["last_error"] is not None, 5)
    assert said in in_force(shared)["last_error"]
    assert in_force(shared) == {**shown, "last_error": in_force(shared)["last_error"]}
    receipt = caller.receipt(caller.chat("plain"))
    assert (receipt["price_version"], receipt["total"]) == (first, "0.041")
    assert until(lambda: _complaints(shared) > complaints)
    put(shared, priced(upstream.url))
    assert until(lambda: in_force(shared)["last_error"] is None, 5)
    assert in_force(shared)["version"] == first


def test_a_lost_file_changes_nothing(shared: Server, caller: Caller, upstream: Upstream, first: str) -> None:
    """A deleted config is a bad edit."""
    (shared.folder / "config.yaml").unlink()
    assert until(lambda: in_force(shared)["last_error"] is not None, 5)
    assert caller.receipt(caller.chat("plain"))["price_version"] == first
    assert edited(shared, priced(upstream.url)) == first


def test_a_reload_of_a_bad_file_is_refused(shared: Server, upstream: Upstream, first: str) -> None:
    """422 with file, line and fix; no action is journaled; after mending it answers the table."""
    actions = shared.done("GET", "/actions?limit=1")["data"]
    put(shared, priced(upstream.url, "{request: -1}"))
    refused = shared.admin("POST", "/prices/reload")
    assert refused.status_code == 422
    assert "config.yaml:6: " in refused.json()["error"]["message"]
    assert in_force(shared)["version"] == first
    assert shared.done("GET", "/actions?limit=1")["data"] == actions
    put(shared, priced(upstream.url))
    assert shared.done("POST", "/prices/reload")["version"] == first
    assert shared.done("GET", "/actions?limit=1")["data"][0]["command"] == "prices.reload"


def test_models_come_and_go_with_the_file(shared: Server, upstream: Upstream, caller: Caller, first: str) -> None:
    """A removed model is 404 for new calls, and back when it is."""
    put(shared, priced(upstream.url).replace("  plain:", "  simple:"))
    shared.done("POST", "/prices/reload")
    assert caller.chat("plain").status_code == 404
    assert caller.chat("simple").headers["x-credits-charged"] == "0.041"
    assert edited(shared, priced(upstream.url)) == first
    assert caller.chat("plain").status_code == 200


@pytest.mark.parametrize("removed", [False, True])
def test_a_running_stream_keeps_its_price(
    shared: Server, upstream: Upstream, caller: Caller, first: str, removed: bool
) -> None:
    """Admitted before an edit it is charged by the table of its admission, even where its model or upstream is gone."""
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    body = body_of(model="plain", stream=True, stream_options={"include_usage": True})
    with shared.http.stream("POST", caller.url, content=body, headers=caller.headers) as running:
        gate.reached()
        text = priced(upstream.url, _DEARER)
        if removed:
            text = text.replace("  plain:", "  simple:").replace("main", "primary")
        second = edited(shared, text)
        if not removed:
            upstream.says(answer())
            assert caller.receipt(caller.chat("plain"))["total"] == "0.075"
        gate.open()
        said = documents(running.read())
    assert said[-2]["credits"]["charged"] == "0.041"
    receipt = caller.receipt(running.headers["x-request-id"])
    assert (receipt["price_version"], receipt["total"], receipt["status"]) == (first, "0.041", "settled")
    assert second != first


async def test_each_receipt_is_of_the_table_that_it_names(shared: Server, upstream: Upstream, first: str) -> None:
    """16 callers call while the table flips between two versions: no receipt mixes them, no call fails."""
    texts = [priced(upstream.url), priced(upstream.url, _DEARER)]
    versions = {first: "3 / 1k", edited(shared, texts[1]): "5 / 1k"}
    assert len(versions) == 2
    callers = [shared.caller("100") for _ in range(16)]
    upstream.chooses(
        lambda received: (
            streamed(words("one"), finish(), usage_chunk(), DONE) if received.document.get("stream") else [answer()]
        )
    )
    flips = 0
    calls: list[tuple[Caller, str]] = []

    async def flip(client: httpx.AsyncClient) -> None:
        nonlocal flips
        headers = {"authorization": "Bearer admin-key-of-the-tests"}
        while flips < 24:
            put(shared, texts[flips % 2])
            reloaded = await client.post(shared.base + "/admin/v1/prices/reload", headers=headers)
            assert reloaded.status_code == 200
            flips += 1

    async def call(client: httpx.AsyncClient, caller: Caller, number: int) -> None:
        made = 0
        while flips < 24 or made < 5:
            body = body_of(model="plain", stream=(number + made) % 2 == 0)
            answered = await client.post(caller.url, content=body, headers=caller.headers)
            assert answered.status_code == 200, answered.text
            calls.append((caller, answered.headers["x-request-id"]))
            made += 1

    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(timeout=20, limits=limits) as client:
        await asyncio.gather(flip(client), *(call(client, caller, n) for n, caller in enumerate(callers)))
        seen = set()
        for caller, request in calls:
            found = await client.get(f"{shared.base}/v1/credits/receipts/{request}", headers=caller.headers)
            receipt = found.json()
            output = versions[receipt["price_version"]]
            assert [line["price"] for line in receipt["lines"]] == [_OF[output][0], output]
            assert receipt["total"] == _OF[output][1]
            seen.add(receipt["price_version"])
    assert seen == set(versions)


def test_the_command_line_sees_the_version_in_force(shared: Server, first: str) -> None:
    """`farebox check` on the same file names the version that the server does."""
    ran = farebox(shared.folder, "check", "--json")
    assert ran.returncode == 0 and first in ran.stdout
