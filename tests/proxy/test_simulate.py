"""`farebox simulate`: stored calls under another table, in all figures what a plain loop makes of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.proxy.chats import answer
from tests.proxy.priced import priced
from tests.proxy.running import Caller, Server, farebox
from tests.proxy.upstream import Gate, Upstream

_DEARER = "{input_tokens: 2 / 1k, output_tokens: 7 / 1k, cached_input_tokens: 1 / 1k}"
_USED = [(2000, 700, 0), (20, 7, 5), (1500, 1, 1500), (33, 999, 11)]


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return priced(running_upstream.url)


def _simulated(server: Server, text: str, *arguments: str) -> dict[str, Any]:
    """What the command says of a draft."""
    draft = server.folder / "new.yaml"
    draft.write_text(text)
    ran = farebox(server.folder, "simulate", "new.yaml", "--json", *arguments)
    assert ran.returncode == 0, ran.stderr
    document: dict[str, Any] = json.loads(ran.stdout)
    return document


@pytest.fixture
def callers(server: Callable[..., Server], upstream: Upstream) -> list[Caller]:
    """Three accounts that have called three models, one of them with bounds, in runs and apps too."""
    running = server().start()
    callers = [running.caller("100") for _ in range(3)]
    for number, caller in enumerate(callers):
        for used, out, cached in _USED[number:]:
            usage = {
                "prompt_tokens": used,
                "completion_tokens": out,
                "prompt_tokens_details": {"cached_tokens": cached},
            }
            upstream.says(answer(usage=usage))
            for model in ("plain", "least", "words"):
                assert caller.chat(model).status_code == 200
    return callers


def _sum(rows: list[dict[str, Any]], figure: str) -> Decimal:
    return sum((Decimal(row[figure]) for row in rows), Decimal(0))


def test_under_its_own_prices_every_call_costs_what_it_did(callers: list[Caller], upstream: Upstream) -> None:
    """Nano for nano, by model, operation, app and day alike; nobody runs dry, nobody is affected."""
    found = _simulated(callers[0].server, priced(upstream.url))
    assert found["total"]["calls"] == 27
    assert found["total"]["change"] == "0"
    assert Decimal(found["total"]["after"]) == 300 - sum(Decimal(caller.available) for caller in callers)
    for by in ("model", "app", "operation", "day"):
        rows = found[f"by_{by}"]
        assert [row["change"] for row in rows] == ["0"] * len(rows)
        assert _sum(rows, "before") == Decimal(found["total"]["before"])
    assert (found["dry"], found["most_affected"], found["left_out"]) == ({"accounts": 0, "data": []}, [], [])


def test_totals_are_those_of_a_plain_loop(callers: list[Caller], upstream: Upstream) -> None:
    """Of each receipt's usage and the draft's prices, worked out by hand here."""
    found = _simulated(callers[0].server, priced(upstream.url, _DEARER))
    expected: dict[str, Decimal] = {}
    for caller in callers:
        for row in caller.get("/v1/credits/usage?limit=1000").json()["data"]:
            used = {meter: Decimal(quantity) for meter, quantity in row["usage"].items()}
            cached = used.get("cached_input_tokens", Decimal(0))
            dearer = ((used["input_tokens"] - cached) * 2 + cached + used["output_tokens"] * 7) / 1000
            if row["model"] == "words":
                dearer = max(dearer, Decimal("0.05"))
            if row["model"] == "least":
                plain = (used["input_tokens"] + used["output_tokens"] * 3) / 1000
                dearer = min(max(plain, Decimal("0.05")), Decimal("0.06"))
            expected[row["model"]] = expected.get(row["model"], Decimal(0)) + dearer
    assert {row["model"]: Decimal(row["after"]) for row in found["by_model"]} == expected
    assert Decimal(found["total"]["after"]) == sum(expected.values())
    affected = {row["account"]: Decimal(row["change"]) for row in found["most_affected"]}
    assert set(affected) == {caller.account for caller in callers}
    assert sum(affected.values()) == Decimal(found["total"]["change"])
    assert list(affected.values()) == sorted(affected.values(), reverse=True)


def test_who_would_have_run_dry_is_named(server: Callable[..., Server], upstream: Upstream) -> None:
    """With when and by how much; who has enough, or had run dry anyway, is not."""
    running = server().start()
    upstream.says(answer(usage={"prompt_tokens": 1000, "completion_tokens": 0}))
    poor, rich = running.caller("2.5"), running.caller("1000")
    for caller in (poor, rich):
        for _ in range(2):
            assert caller.chat("plain", max_tokens=1).status_code == 200
    found = _simulated(running, priced(upstream.url, _DEARER))
    assert found["dry"]["accounts"] == 1
    (dry,) = found["dry"]["data"]
    assert (dry["account"], dry["short"]) == (poor.account, "1.5")
    second = poor.get("/v1/credits/usage").json()["data"][0]
    assert dry["at"] == second["created_at"]


def test_what_has_no_price_any_more_is_left_out_and_said(callers: list[Caller], upstream: Upstream) -> None:
    """A model that the draft does not sell: how many calls, what they cost; the others are as they are."""
    text = priced(upstream.url).replace("  plain:", "  plane:")
    found = _simulated(callers[0].server, text)
    (left,) = found["left_out"]
    assert (left["reason"], left["calls"]) == ("there is no model plain any more", 9)
    assert found["total"]["calls"] == 18 and found["total"]["change"] == "0"


def test_an_operation_that_the_draft_matches_otherwise_prices_its_calls(
    callers: list[Caller], upstream: Upstream
) -> None:
    """Calls that no header named an operation for are matched anew, as they would be."""
    text = priced(upstream.url).replace("operations:\n", "operations:\n  flat: {model: plain, min: 3}\n")
    found = _simulated(callers[0].server, text)
    flat = next(row for row in found["by_operation"] if row["operation"] == "flat")
    assert flat["calls"] == 9
    assert Decimal(flat["after"]) >= 27


def test_a_runs_bounds_are_those_of_the_draft(server: Callable[..., Server], upstream: Upstream) -> None:
    """Calls of one run are bounded together, oldest first; under the same bounds they cost what they did."""
    bounds = "operations:\n  run: {{model: plain, min: {least}, per: run}}\n"

    def text(least: str) -> str:
        return priced(upstream.url).replace("operations:\n", bounds.format(least=least))

    running = server().start()
    (running.folder / "config.yaml").write_text(text("2"))
    running.done("POST", "/prices/reload")
    upstream.says(answer(usage={"prompt_tokens": 1000, "completion_tokens": 0}))
    caller = running.caller("100")
    for run in ("one", "one", "one", "two"):
        body = json.dumps({"model": "plain", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1})
        assert caller.post(body.encode(), x_farebox_run=run).status_code == 200
    assert _simulated(running, text("2"))["total"]["after"] == "5"
    assert _simulated(running, text("3.5"))["total"]["after"] == "7"
    assert _simulated(running, text("0.1"))["total"]["after"] == "4"


def test_the_route_says_what_the_command_does(callers: list[Caller], upstream: Upstream) -> None:
    """Of the same draft; a bad one is refused with its line, and reads no variable of the server's."""
    server, draft = callers[0].server, priced(upstream.url, _DEARER)
    told = server.done("POST", "/prices/simulate", {"config": draft, "since": "1d"})
    printed = _simulated(server, draft, "--since", "1d")
    for document in (told, printed):
        del document["since"], document["until"]
    assert told == printed
    bad = server.admin("POST", "/prices/simulate", {"config": priced(upstream.url, "{request: -1}")})
    assert bad.status_code == 422
    assert bad.json()["error"]["param"] == "config"
    assert "the draft:6: " in bad.json()["error"]["message"]
    leaky = server.admin("POST", "/prices/simulate", {"config": priced(upstream.url, "{request: '${PATH}'}")})
    assert leaky.status_code == 422 and "unset" in leaky.json()["error"]["message"]
    assert server.admin("POST", "/prices/simulate", {"config": draft, "since": "then"}).status_code == 422
    assert server.admin("POST", "/prices/simulate", {}).status_code == 422


def test_only_calls_since_a_time_are_looked_at(callers: list[Caller], upstream: Upstream) -> None:
    """Inclusive of that time; and people get a table of it."""
    server = callers[0].server
    calls = callers[2].get("/v1/credits/usage").json()["data"]
    found = _simulated(server, priced(upstream.url), "--since", calls[1]["created_at"])
    assert found["total"]["calls"] == 2
    ran = farebox(server.folder, "simulate", "new.yaml")
    assert ran.returncode == 0
    assert "model plain" in ran.stdout and "0 accounts would have run dry" in ran.stdout


def test_a_draft_that_is_broken_simulates_nothing(tmp_path: Path) -> None:
    """Its line and what is wrong are said; exit 1."""
    (tmp_path / "new.yaml").write_text("models: {}\n")
    ran = farebox(tmp_path, "simulate", "new.yaml")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "new.yaml:1" in ran.stderr
    assert farebox(tmp_path, "simulate", "none.yaml").returncode == 1


async def test_parallel_calls_of_a_run_are_taken_as_they_ended(
    server: Callable[..., Server], upstream: Upstream
) -> None:
    """Under the same bounds they cost what they did, although the one that began first ended last."""
    text = priced(upstream.url).replace("operations:\n", "operations:\n  run: {model: plain, min: 40, per: run}\n")
    running = server().start()
    (running.folder / "config.yaml").write_text(text)
    running.done("POST", "/prices/reload")
    gate = Gate()
    slow, quick = answer(usage={"prompt_tokens": 30000, "completion_tokens": 0}), answer()
    upstream.chooses(lambda received: [gate, slow] if b"slow" in received.body else [quick])
    caller = running.caller("1000")
    headers = {**caller.headers, "x-farebox-run": "one"}

    def body(text: str) -> bytes:
        asked = {"model": "plain", "messages": [{"role": "user", "content": text}], "max_tokens": 1}
        return json.dumps(asked).encode()

    async with httpx.AsyncClient(timeout=20) as client:
        first = asyncio.create_task(client.post(caller.url, content=body("slow"), headers=headers))
        await gate.reached_by(1)
        assert (await client.post(caller.url, content=body("quick"), headers=headers)).status_code == 200
        gate.open()
        assert (await first).status_code == 200
    found = _simulated(running, text)["total"]
    assert (found["before"], found["after"]) == ("40", "40")


def test_what_another_takes_is_not_known_by_what_the_one_took(
    server: Callable[..., Server], upstream: Upstream
) -> None:
    """Where the draft has somebody else answer, whose cost nobody knows, nor is the margin."""
    text = priced(upstream.url).replace("plain: {", "plain: {cost: {input_tokens: $1 / 1M, output_tokens: 0},")
    running = server().start()
    (running.folder / "config.yaml").write_text(text)
    running.done("POST", "/prices/reload")
    upstream.says(answer())
    assert running.caller().chat("plain").status_code == 200
    assert _simulated(running, text)["total"]["cost_usd"] == "0.00002"
    moved = _simulated(running, priced(upstream.url).replace("main/plain-1", "main/plain-2"))["total"]
    assert (moved["calls_without_cost"], moved["margin_after_usd"]) == (1, None)
    # What a credit sold for then is what it sold for.
    dear = _simulated(running, "credit: {usd: 1}\n" + text)["total"]
    assert dear["margin_before_usd"] == _simulated(running, text)["total"]["margin_before_usd"]
