"""The operator's limits as callers meet them, and the metrics that count them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.proxy.chats import DONE, answer, body_of, finish, usage_chunk, words
from tests.proxy.priced import edited, priced
from tests.proxy.running import Caller, Server, until
from tests.proxy.upstream import Gate, Upstream, response, streamed


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return priced(running_upstream.url)


@pytest.fixture
def limits(shared: Server, upstream: Upstream) -> Iterator[Any]:
    """Puts limits in force, for one test."""
    upstream.says(answer())

    def put(text: str) -> None:
        edited(shared, priced(upstream.url, more=f"limits: {text}\n"))

    yield put
    edited(shared, priced(upstream.url))


def _another_key(caller: Caller) -> Caller:
    key = caller.server.done("POST", f"/accounts/{caller.account}/keys", {})
    return Caller(caller.server, caller.account, key["key"])


def _limited(refused: httpx.Response) -> bool:
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["type"]) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert refused.headers["retry-after"].isdigit() and int(refused.headers["retry-after"]) >= 1
    return True


def test_a_key_has_a_rate(caller: Caller, upstream: Upstream, limits: Any) -> None:
    """Three calls a minute are three at once, then 429 with when the next may come; nothing is held or charged."""
    limits("{per_key: {requests_per_minute: 3}}")
    for _ in range(3):
        assert caller.chat("plain").status_code == 200
    refused = caller.chat("plain")
    assert _limited(refused)
    assert 15 <= int(refused.headers["retry-after"]) <= 20
    assert len(upstream.received) == 3
    assert caller.available == "999.877"
    assert len(caller.get("/v1/credits/usage").json()["data"]) == 3
    assert caller.server.http.get(
        f"{caller.server.base}/v1/credits/receipts/{refused.headers['x-request-id']}", headers=caller.headers
    ).status_code == 404  # fmt: skip


def test_a_rate_is_each_keys_own(caller: Caller, limits: Any) -> None:
    """Another key of the account, and everything that is no call, goes on."""
    limits("{per_key: {requests_per_minute: 1}}")
    other = _another_key(caller)
    assert caller.chat("plain").status_code == 200
    assert _limited(caller.chat("plain"))
    assert other.chat("plain").status_code == 200
    for path in ("/v1/models", "/v1/credits", "/v1/credits/usage", "/v1/credits/statement"):
        assert [caller.get(path).status_code for _ in range(5)] == [200] * 5


@pytest.mark.parametrize("text", ["{per_key: {requests_per_minute: 6000}}", "{per_key: {concurrent: 9}}"])
def test_a_lifted_limit_is_lifted_at_once(caller: Caller, limits: Any, text: str) -> None:
    """By an edit of the config: whom the old limit refused the new one does not make wait."""
    limits("{per_key: {requests_per_minute: 1}}")
    assert caller.chat("plain").status_code == 200
    assert _limited(caller.chat("plain"))
    limits(text)
    assert caller.chat("plain").status_code == 200


@pytest.mark.parametrize(("text", "most"), [("{per_key: {concurrent: 2}}", 2), ("{per_account: {concurrent: 3}}", 3)])
def test_calls_at_once_are_limited(caller: Caller, upstream: Upstream, limits: Any, text: str, most: int) -> None:
    """One more than the limit is 429 while they run, and served when they have ended; so for all keys of an account."""
    limits(text)
    keys = [caller, caller if "per_key" in text else _another_key(caller)]
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    http = caller.server.http
    with ExitStack() as running:
        streams = [
            running.enter_context(
                http.stream(
                    "POST",
                    caller.url,
                    content=body_of(model="plain", stream=True, max_tokens=9),
                    headers=keys[number % 2].headers,
                )
            )
            for number in range(most)
        ]
        gate.reached(most)
        assert _limited(keys[0].chat("plain")) and _limited(keys[1].chat("plain"))
        if "per_key" in text:
            upstream.says(answer())
            assert _another_key(caller).chat("plain").status_code == 200
        gate.open()
        for stream in streams:
            assert stream.read().endswith(DONE)
    upstream.says(answer())
    assert until(lambda: keys[0].chat("plain").status_code == 200)
    assert caller.nothing_held()


def test_refused_calls_take_no_place(caller: Caller, upstream: Upstream, limits: Any) -> None:
    """Whatever becomes of a call, its place is free afterwards."""
    limits("{per_key: {concurrent: 1}, per_account: {concurrent: 1}}")
    poor = caller.server.caller(None)
    for _ in range(3):
        assert caller.post(b"{").status_code == 400
        assert caller.chat("no_such").status_code == 404
        assert poor.chat("plain").status_code == 402
    upstream.says(response(b"{}", 500))
    assert [caller.chat("plain").status_code for _ in range(3)] == [502] * 3
    upstream.says(answer())
    assert [caller.chat("plain").status_code for _ in range(3)] == [200] * 3


_SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (\S+)')
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\\n]|\\[\\"n])*)"')

_Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def _scrape(server: Server) -> tuple[_Samples, dict[str, str]]:
    """Read the metrics as a scraper does; returns samples by name and labels, and the kind of each metric."""
    answered = server.http.get(server.base + "/metrics")
    assert answered.status_code == 200
    assert answered.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert answered.text.endswith("\n")
    samples: _Samples = {}
    kinds: dict[str, str] = {}
    helped: set[str] = set()
    for line in answered.text.splitlines():
        if line.startswith("# HELP "):
            helped.add(line.split()[2])
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in kinds and name in helped
            kinds[name] = kind
        else:
            found = _SAMPLE.fullmatch(line)
            assert found is not None, line
            name = found[1]
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            assert kinds.get(name) in ("counter", "gauge") or kinds.get(base) == "histogram", line
            key = (name, frozenset(_LABEL.findall(found[3] or "")))
            assert key not in samples, line
            samples[key] = float(found[4])
    return samples, kinds


def _value(samples: _Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


def test_metrics_are_prometheus_text(caller: Caller, upstream: Upstream) -> None:
    """Each sample has a help and a type; buckets are cumulative and the last of them is the count."""
    upstream.says(answer())
    assert caller.chat("plain").status_code == 200
    samples, kinds = _scrape(caller.server)
    histograms = [name for name, kind in kinds.items() if kind == "histogram"]
    assert histograms
    for name in histograms:
        series: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
        for (sample, labels), value in samples.items():
            if sample == f"{name}_bucket":
                bound = dict(labels)["le"]
                rest = frozenset(label for label in labels if label[0] != "le")
                series.setdefault(rest, []).append((float(bound.replace("+Inf", "inf")), value))
        assert series
        for rest, buckets in series.items():
            buckets.sort()
            assert buckets[-1][0] == float("inf")
            assert [count for _, count in buckets] == sorted(count for _, count in buckets)
            assert samples[(f"{name}_count", rest)] == buckets[-1][1]
    assert _value(samples, "farebox_ledger_batch_size_count") > 0


def test_metrics_count_calls_and_refusals(caller: Caller, upstream: Upstream, limits: Any) -> None:
    """By model and end, by code; what was charged in nanocredits; and what is held now."""
    before, _ = _scrape(caller.server)
    upstream.says(answer())
    for _ in range(2):
        assert caller.chat("plain").status_code == 200
    upstream.says(answer(usage=...))
    assert caller.chat("plain").status_code == 200
    upstream.says(response(b"{}", 500))
    assert caller.chat("plain").status_code == 502
    assert caller.post(b"{").status_code == 400
    assert caller.chat("no_such").status_code == 404
    assert caller.server.caller(None).chat("plain").status_code == 402
    assert Caller(caller.server, "", "fbx_unknown").chat("plain").status_code == 401
    limits("{per_key: {requests_per_minute: 1}}")
    upstream.says(answer())
    assert _limited([caller.chat("plain") for _ in range(2)][1])

    def counted() -> bool:
        after, _ = _scrape(caller.server)

        def more(name: str, **labels: str) -> float:
            return _value(after, name, **labels) - _value(before, name, **labels)

        answered = {"model": "plain", "upstream": "main", "ended": "answered"}
        return (
            more("farebox_calls_total", **answered) == 4
            and more("farebox_calls_total", **{**answered, "ended": "upstream_error"}) == 1
            # Three times 0.041, and 0.018 by Farebox's own count.
            and more("farebox_charged_nanocredits_total", model="plain") == 141_000_000
            and more("farebox_estimated_calls_total", model="plain") == 1
            and more("farebox_call_seconds_count", phase="total") == 5
            and _value(after, "farebox_holds_open") == 0
            and all(
                more("farebox_refusals_total", code=code) == 1
                for code in (
                    "bad_request",
                    "model_not_found",
                    "insufficient_credits",
                    "invalid_api_key",
                    "rate_limit_exceeded",
                    "upstream_error",
                )
            )
        )

    assert until(counted), _scrape(caller.server)


def test_metrics_show_open_holds(caller: Caller, upstream: Upstream) -> None:
    """While a call runs, and not after it."""
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    with caller.server.http.stream(
        "POST", caller.url, content=body_of(model="plain", stream=True), headers=caller.headers
    ) as stream:
        gate.reached()
        assert _value(_scrape(caller.server)[0], "farebox_holds_open") == 1
        gate.open()
        stream.read()
    assert until(lambda: _value(_scrape(caller.server)[0], "farebox_holds_open") == 0)


def test_metrics_name_no_caller(caller: Caller, upstream: Upstream) -> None:
    """Neither keys nor accounts, nor a model's name that a caller made up."""
    upstream.says(answer())
    caller.chat("plain")
    caller.chat('made"up\n')
    text = caller.server.http.get(caller.server.base + "/metrics").text
    for secret in (caller.key, caller.account, "made"):
        assert secret not in text
