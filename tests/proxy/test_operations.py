"""What a call is: operations by match, by header and by key, and what they do to its price."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.proxy.chats import BODY, DONE, MESSAGES, answer, body_of, finish, usage_chunk, words
from tests.proxy.leavers import Leaver
from tests.proxy.priced import priced
from tests.proxy.running import Caller, Server, until
from tests.proxy.upstream import Gate, Upstream, response, streamed

_INPUT = {"meter": "input_tokens", "quantity": "20", "price": "1 / 1k", "amount": "0.02"}
_OUTPUT = {"meter": "output_tokens", "quantity": "7", "price": "3 / 1k", "amount": "0.021"}
_SEARCH = {"meter": "web_search", "quantity": "1", "price": "15", "amount": "15"}


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return priced(running_upstream.url)


def _limited(caller: Caller, **fields: Any) -> Caller:
    """A further key of the same account."""
    key = caller.server.done("POST", f"/accounts/{caller.account}/keys", fields)
    return Caller(caller.server, caller.account, key["key"])


def _refused(answered: httpx.Response) -> tuple[int, str]:
    return answered.status_code, answered.json()["error"]["code"]


_MATCHED: dict[str, tuple[str, str | None, list[dict[str, str]], str]] = {
    # 0.041 raised to 0.05
    "the first that fits": (
        "words",
        "words_chat",
        [_INPUT, _OUTPUT, {"meter": "min", "quantity": "1", "price": "0.05", "amount": "0.009"}],
        "0.05",
    ),
    # 0.041 lowered to 0.03; a later operation that fits too is not asked.
    "by class": (
        "other",
        "standard_ai",
        [_INPUT, _OUTPUT, {"meter": "max", "quantity": "1", "price": "0.03", "amount": "-0.011"}],
        "0.03",
    ),
    "within its bounds": ("deep", "advanced_ai", [_INPUT, _OUTPUT], "0.041"),
    "none": ("plain", None, [_INPUT, _OUTPUT], "0.041"),
    "the model's own bounds": (
        "least",
        None,
        [_INPUT, _OUTPUT, {"meter": "min", "quantity": "1", "price": "0.05", "amount": "0.009"}],
        "0.05",
    ),
}


@pytest.mark.parametrize("case", _MATCHED)
def test_a_call_is_the_first_operation_that_matches(upstream: Upstream, caller: Caller, case: str) -> None:
    """Its bounds make lines of their own, and all lines add up to the total."""
    model, operation, lines, total = _MATCHED[case]
    upstream.says(answer())
    answered = caller.chat(model)
    receipt = caller.receipt(answered)
    assert (receipt["operation"], receipt["lines"], receipt["total"]) == (operation, lines, total)
    assert answered.headers["x-credits-charged"] == total
    assert sum(Decimal(paid["amount"]) for paid in receipt["paid_from"]) == Decimal(total)


_NAMED: dict[str, tuple[str, str, list[tuple[str, str]], str]] = {
    # 20 x 0.0006 + 7 x 0.0018
    "prototype": ("words", "prototype", [("1 / 1k × 0.6", "0.012"), ("3 / 1k × 0.6", "0.0126")], "0.0246"),
    # 20 x 0.001 + 7 x 0.01
    "dear_output": ("words", "dear_output", [("1 / 1k", "0.02"), ("10 / 1k", "0.07")], "0.09"),
    # The operation's `max` replaces the model's, its `min` stays.
    "wide": ("least", "wide", [("1 / 1k", "0.02"), ("3 / 1k", "0.021"), ("0.05", "0.009")], "0.05"),
    "a later one": ("other", "unreached", [("1 / 1k", "0.02"), ("3 / 1k", "0.021"), ("9", "8.959")], "9"),
}


@pytest.mark.parametrize("case", _NAMED)
def test_the_header_names_the_operation(upstream: Upstream, caller: Caller, case: str) -> None:
    """It is chosen though an earlier one matches, and multiplies or replaces the model's prices."""
    model, operation, lines, total = _NAMED[case]
    upstream.says(answer())
    receipt = caller.receipt(caller.post(body_of(model=model), X_Farebox_Operation=operation))
    assert receipt["operation"] == operation
    assert [(line["price"], line["amount"]) for line in receipt["lines"]] == lines
    assert receipt["total"] == total
    assert "x-farebox-operation" not in upstream.last.headers


@pytest.mark.parametrize("name", ["nothing", "", "words_chat ,wide", "Wide", "\xe9", "x" * 300])
def test_an_unknown_operation_is_refused_with_the_known(upstream: Upstream, caller: Caller, name: str) -> None:
    """400 with the header as `param` and every operation in the message, before anything is held."""
    headers = [(b"authorization", f"Bearer {caller.key}".encode()), (b"x-farebox-operation", name.encode("latin-1"))]
    refused = caller.server.http.post(caller.url, content=BODY, headers=headers)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "unknown_operation")
    assert error["param"] == "X-Farebox-Operation"
    for known in ("words_chat", "standard_ai", "unreached", "advanced_ai", "prototype", "dear_output", "wide"):
        assert known in error["message"]
    assert not upstream.received and caller.available == "1000"


def test_an_operation_is_not_for_calls_that_it_does_not_describe(upstream: Upstream, caller: Caller) -> None:
    """403, so that nobody chooses another call's price by a header."""
    refused = caller.post(body_of(model="deep"), X_Farebox_Operation="words_chat")
    assert _refused(refused) == (403, "operation_not_allowed")
    assert "words_chat" in refused.json()["error"]["message"]
    assert not upstream.received and caller.balance()["held"] == "0"


def test_a_key_may_be_limited_to_operations(upstream: Upstream, caller: Caller) -> None:
    """Another operation in the header is 403; without a header the key's first one counts."""
    key = _limited(caller, operations=["prototype", "wide"])
    upstream.says(answer())
    assert caller.receipt(key.chat("plain"))["operation"] == "prototype"
    assert caller.receipt(key.post(body_of(model="plain"), X_Farebox_Operation="wide"))["operation"] == "wide"
    refused = key.post(body_of(model="plain"), X_Farebox_Operation="dear_output")
    assert _refused(refused) == (403, "operation_not_allowed")
    assert _refused(key.post(BODY, X_Farebox_Operation="no_such")) == (400, "unknown_operation")
    assert len(upstream.received) == 2


def test_a_limited_key_gets_the_first_of_its_operations_that_fits(upstream: Upstream, caller: Caller) -> None:
    """In the key's order, not the file's; a call that none of them is for is 403."""
    key = _limited(caller, operations=["words_chat", "wide"])
    upstream.says(answer())
    assert caller.receipt(key.chat("words"))["operation"] == "words_chat"
    assert caller.receipt(key.chat("plain"))["operation"] == "wide"
    only = _limited(caller, operations=["words_chat"])
    assert _refused(only.chat("plain")) == (403, "operation_not_allowed")
    assert len(upstream.received) == 2


def test_a_key_may_have_a_default_operation(upstream: Upstream, caller: Caller) -> None:
    """It counts before what matches, and after the header."""
    key = _limited(caller, operation="prototype")
    upstream.says(answer())
    assert caller.receipt(key.chat("words"))["operation"] == "prototype"
    assert caller.receipt(key.post(BODY, X_Farebox_Operation="wide"))["operation"] == "wide"
    assert caller.receipt(caller.chat("words"))["operation"] == "words_chat"


_BAD_KEYS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown operations": ({"operations": ["wide", "no_such"]}, "operations"),
    "unknown default": ({"operation": "no_such"}, "operation"),
    "default outside": ({"operations": ["wide"], "operation": "prototype"}, "operation"),
    "none allowed": ({"operations": []}, "operations"),
    "no list": ({"operations": "wide"}, "operations"),
    "no texts": ({"operations": [1]}, "operations"),
}


@pytest.mark.parametrize("case", _BAD_KEYS)
def test_a_key_for_no_such_operation_is_not_made(caller: Caller, case: str) -> None:
    """422 naming the field."""
    fields, param = _BAD_KEYS[case]
    refused = caller.server.admin("POST", f"/accounts/{caller.account}/keys", fields)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, param)


def test_a_minimum_needs_an_answer(upstream: Upstream, caller: Caller) -> None:
    """A call that fails upstream, or is given up before any output, is not raised to `min`."""
    upstream.says(response(b'{"error": {"message": "no"}}', 500))
    assert caller.chat("words").status_code == 502
    assert caller.available == "1000"


async def test_who_leaves_before_any_output_pays_no_minimum(upstream: Upstream, caller: Caller) -> None:
    """The input only: 9 tokens by Farebox's own count."""
    gate = Gate()
    upstream.says(gate)
    async with Leaver(caller, BODY):
        await gate.reached_by(1)
    assert caller.nothing_held()
    assert caller.available == "999.991"


def test_a_maximum_bounds_the_hold(upstream: Upstream, caller: Caller) -> None:
    """A thousand tokens of output are held for at 0.03, because no more can be charged."""
    upstream.says(streamed(words("one"), finish(), usage_chunk({"prompt_tokens": 9, "completion_tokens": 900}), DONE))
    answered = caller.chat("other", stream=True)
    assert answered.headers["x-credits-held"] == "0.03"
    assert caller.receipt(answered)["total"] == "0.03"


@pytest.mark.parametrize("stream", [False, True])
def test_a_priced_web_search_is_allowed_and_charged_once(upstream: Upstream, caller: Caller, stream: bool) -> None:
    """The surcharge comes after the bounds, is part of the hold, and the request passes as it was written."""
    upstream.says(streamed(words("one"), finish(), usage_chunk(), DONE) if stream else [answer()])
    answered = caller.chat("words", web_search_options={}, stream=stream, max_tokens=7)
    assert answered.status_code == 200
    receipt = caller.receipt(answered)
    assert receipt["lines"][-2:] == [{"meter": "min", "quantity": "1", "price": "0.05", "amount": "0.009"}, _SEARCH]
    assert receipt["total"] == "15.05"
    assert upstream.last.document["web_search_options"] == {}
    if stream:
        # 15, and the bytes of the body at 0.001 and 7 tokens at 0.003 where they pass the minimum.
        assert Decimal(answered.headers["x-credits-held"]) >= Decimal("15.05")


def test_a_search_without_an_answer_is_not_charged(upstream: Upstream, caller: Caller) -> None:
    """A provider's error costs nothing, its surcharge neither."""
    upstream.says(response(b"{}", 500))
    assert caller.chat("plain", web_search_options={}).status_code == 502
    assert caller.available == "1000" and caller.balance()["held"] == "0"


def test_a_search_beyond_the_balance_is_refused_before_it_is_made(upstream: Upstream, shared: Server) -> None:
    """The surcharge is in `needed`, and no number of tokens makes it fit."""
    poor = shared.caller("15")
    refused = poor.chat("plain", web_search_options={}, max_tokens=1)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["max_tokens_affordable"]) == (402, "insufficient_credits", 0)
    # 9 tokens of input, one of output, a search.
    assert error["needed"] == "15.012"
    assert not upstream.received


def test_more_searches_than_were_held_for_are_charged_as_reported(upstream: Upstream, caller: Caller) -> None:
    """A provider that counts its searches is believed."""
    usage = {"prompt_tokens": 20, "completion_tokens": 7, "server_tool_use": {"web_search_requests": 2}}
    upstream.says(answer(usage=usage))
    receipt = caller.receipt(caller.chat("plain", web_search_options={}, messages=MESSAGES))
    assert receipt["lines"][-1] == {**_SEARCH, "quantity": "2", "amount": "30"}
    assert receipt["total"] == "30.041"


def test_a_search_without_a_price_is_refused(upstream: Upstream, shared: Server, caller: Caller) -> None:
    """400 not_supported naming the member, once the surcharge is gone from the file."""
    file = shared.folder / "config.yaml"
    text = file.read_text()
    file.write_text(text.replace("surcharges: {web_search: 15}\n", ""))
    try:
        assert until(lambda: shared.done("GET", "/prices")["surcharges"] == {}, 5)
        refused = caller.chat("plain", web_search_options={})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "web_search_options")
        assert not upstream.received
    finally:
        file.write_text(text)
        shared.done("POST", "/prices/reload")
