"""Every error that a call can end with today, as OpenAI's own client, retrying as it likes, raises it."""

from __future__ import annotations

import inspect
import json
import re
import resource
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import openai._base_client as retrying
import pytest
from openai import APIError, APIStatusError, OpenAI
from openai import AuthenticationError as Unauthenticated
from openai import BadRequestError as BadRequest
from openai import InternalServerError as ServerError
from openai import NotFoundError as NotFound
from openai import PermissionDeniedError as Denied
from openai import RateLimitError as RateLimit
from openai import UnprocessableEntityError as Unprocessable

from ledger.ledger import Ledger
from proxy.errors_catalogue import ERRORS, sdk_retries
from tests.proxy.chats import DONE, MESSAGES, answer, body_of, finish, usage_chunk, words
from tests.proxy.priced import edited
from tests.proxy.running import Caller, Server, until
from tests.proxy.upstream import CUT, Gate, Received, Script, Step, Upstream, head, response, streamed

_CONFIG = """
top_up_url: https://example.com/credits
max_body: 1MB
upstreams:
  main:  {{kind: openai, base_url: "{url}", api_key: operators-secret}}
  hasty: {{kind: openai, base_url: "{url}", timeouts: {{first_byte: 50ms, between_bytes: 50ms}}}}
  gone:  {{kind: openai, base_url: "http://127.0.0.1:{closed}/v1"}}
  off:   {{kind: openai, base_url: "{url}", api_key: "${{UNSET:-}}"}}
models:
  words: {{upstream: main/words-1, max_output_tokens: 1000, price: {{input_tokens: 1 / 1k, output_tokens: 3 / 1k}}}}
  gift:  {{upstream: main/gift-1, max_output_tokens: 1000, price: {{input_tokens: 0 / 1k, output_tokens: 0 / 1k}}}}
  hasty: {{upstream: hasty/hasty-1, max_output_tokens: 1000, price: {{request: 1}}}}
  gone:  {{upstream: gone/gone-1, max_output_tokens: 1000, price: {{request: 1}}}}
  off:   {{upstream: off/off-1, max_output_tokens: 1000, price: {{request: 1}}}}
operations:
  chat:  {{model: words}}
  aside: {{model: gift}}
"""


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream, closed_port: int) -> str:
    return _CONFIG.format(url=running_upstream.url, closed=closed_port)


class _Scene(NamedTuple):
    """What rows are played on. caller: an account of 1000 credits on the shared server. make: further servers."""

    upstream: Upstream
    caller: Caller
    make: Callable[..., Server]
    config: str

    @property
    def server(self) -> Server:
        return self.caller.server


@pytest.fixture
def scene(upstream: Upstream, caller: Caller, server: Callable[..., Server], config_text: str) -> _Scene:
    return _Scene(upstream, caller, server, config_text)


class _Plan(NamedTuple):
    """Who asks for what; key: another than the caller's own."""

    caller: Caller
    ask: Callable[[OpenAI], object]
    key: str | None = None


_Provoke = Callable[[_Scene], AbstractContextManager[_Plan]]


@dataclass(frozen=True, slots=True)
class _Row:
    """One error.

    status: 200 where it ends a stream that had begun. fields: of the error object. requests: how often the client
    sends the call. provider: how many of these reach the provider. should_retry: the header. after: a pattern of the
    header Retry-After. charged: credits.
    """

    name: str
    provoke: _Provoke
    raises: type[APIError]
    status: int
    code: str | None
    fields: dict[str, Any]
    requests: int
    provider: int
    should_retry: str | None = None
    after: str | None = None
    charged: str = "0"


# -- how to provoke them


def _chat(model: str = "words", **members: Any) -> Callable[[OpenAI], object]:
    """Ask for a chat; a stream is read to its end."""

    def ask(client: OpenAI) -> object:
        answered = client.chat.completions.create(model=model, messages=MESSAGES, **members)
        return list(answered) if members.get("stream") else answered

    return ask


def _asks(model: str = "words", **members: Any) -> _Provoke:
    """Ask for a chat with these members; the provider would answer it."""
    return _says(answer(), model=model, **members)


def _says(*steps: Step, **members: Any) -> _Provoke:
    """Have the provider say this to a chat with these members."""

    @contextmanager
    def provoke(scene: _Scene) -> Iterator[_Plan]:
        scene.upstream.says(steps)
        yield _Plan(scene.caller, _chat(**members))

    return provoke


def _fails(
    status: int, message: str = "No", headers: dict[str, str] | None = None, stream: bool = False, **members: Any
) -> _Provoke:
    """Have the provider refuse a chat with an error object of these members."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None, **members}
    return _says(response(json.dumps({"error": error}).encode(), status, headers), stream=stream)


def _gets(path: str) -> _Provoke:
    """Get a path of Farebox's, `{receipt}` another account's."""

    @contextmanager
    def provoke(scene: _Scene) -> Iterator[_Plan]:
        scene.upstream.says(answer())
        receipt = ""
        if "{receipt}" in path:
            receipt = scene.server.caller().chat().headers["x-request-id"]
        url = scene.server.base + path.format(receipt=receipt)
        yield _Plan(scene.caller, lambda client: client.get(url, cast_to=object))

    return provoke


@contextmanager
def _moderates(scene: _Scene) -> Iterator[_Plan]:
    yield _Plan(scene.caller, lambda client: client.moderations.create(input="Hello world"))


def _with_key(**fields: Any) -> _Provoke:
    """Chat with a further key of these fields, naming the operation `aside`."""

    @contextmanager
    def provoke(scene: _Scene) -> Iterator[_Plan]:
        key = scene.server.done("POST", f"/accounts/{scene.caller.account}/keys", fields)["key"]
        yield _Plan(scene.caller, _chat("gift", extra_headers={"X-Farebox-Operation": "aside"}), key)

    return provoke


@contextmanager
def _unknown_key(scene: _Scene) -> Iterator[_Plan]:
    yield _Plan(scene.caller, _chat(), "fbx_unknown")


@contextmanager
def _revoked_key(scene: _Scene) -> Iterator[_Plan]:
    made = scene.server.done("POST", f"/accounts/{scene.caller.account}/keys", {})
    scene.upstream.says(answer())
    assert Caller(scene.server, scene.caller.account, made["key"]).chat("gift").status_code == 200
    scene.upstream.forget()
    scene.server.done("DELETE", f"/keys/{made['id']}")
    yield _Plan(scene.caller, _chat(), made["key"])


@contextmanager
def _poor(scene: _Scene) -> Iterator[_Plan]:
    yield _Plan(scene.server.caller("0.5"), _chat(max_tokens=1000))


@contextmanager
def _running(upstream: Upstream, caller: Caller, calls: int = 1) -> Iterator[None]:
    """Streams of the caller's that run meanwhile, and end whole afterwards."""
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    create = caller.openai.chat.completions.create
    streams = [create(model="words", messages=MESSAGES, stream=True, max_tokens=1000) for _ in range(calls)]
    try:
        gate.reached(calls)
        yield
    finally:
        gate.open()
    for stream in streams:
        assert "".join(part.choices[0].delta.content or "" for part in stream) == "one"


@contextmanager
def _held(scene: _Scene) -> Iterator[_Plan]:
    caller = scene.server.caller("4")
    with _running(scene.upstream, caller):
        yield _Plan(caller, _chat(max_tokens=1000))
    # 4 - 0.041
    assert caller.available == "3.959"


def _is(status: str) -> _Provoke:
    """Chat on an account that is not active."""

    @contextmanager
    def provoke(scene: _Scene) -> Iterator[_Plan]:
        scene.server.done("PATCH", f"/accounts/{scene.caller.account}", {"status": status})
        yield _Plan(scene.caller, _chat())

    return provoke


@contextmanager
def _limits(scene: _Scene, text: str) -> Iterator[None]:
    edited(scene.server, scene.config + f"limits: {{per_key: {text}}}\n")
    try:
        yield
    finally:
        edited(scene.server, scene.config)
    scene.upstream.says(answer())
    assert scene.caller.chat().status_code == 200


@contextmanager
def _too_often(scene: _Scene) -> Iterator[_Plan]:
    with _limits(scene, "{requests_per_minute: 1}"):
        scene.upstream.says(answer())
        assert scene.caller.chat().status_code == 200
        yield _Plan(scene.caller, _chat())


@contextmanager
def _too_many(scene: _Scene) -> Iterator[_Plan]:
    with _limits(scene, "{concurrent: 2}"), _running(scene.upstream, scene.caller, 2):
        yield _Plan(scene.caller, _chat())


@contextmanager
def _draining(scene: _Scene) -> Iterator[_Plan]:
    """A server that was told to stop waits for a running call, which ends whole."""
    server = scene.make().start()
    caller = server.caller()
    with _running(scene.upstream, caller):
        server.signal()
        assert until(lambda: server.http.get(server.base + "/readyz").status_code == 503)
        yield _Plan(caller, _chat())
    assert server.wait() == 0
    server.start()
    scene.upstream.says(answer())
    assert caller.chat().status_code == 200
    # 1000 - 2 x 0.041
    assert caller.available == "999.918"
    server.audit()


_MOST_WAITING = int(inspect.signature(Ledger.open).parameters["most_waiting"].default)
_AT_ONCE = 256


def _gauge(server: Server, name: str) -> int:
    found = re.search(rf"^{name} (\d+)", server.http.get(server.base + "/metrics").text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def _queues(server: Server, least: int) -> bool:
    return _gauge(server, "farebox_ledger_queue") >= least


@contextmanager
def _queue_full(scene: _Scene) -> Iterator[_Plan]:
    """Another program holds the database's write lock while callers come, wait for their holds, and leave."""
    server, caller = scene.server, scene.caller
    parts = urlsplit(server.base)
    body = body_of(model="gift")
    request = f"POST {parts.path}/v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {caller.key}\r\n"
    sent = f"{request}content-length: {len(body)}\r\n\r\n".encode() + body
    # Its key is looked up in the database only once.
    assert caller.available == "1000"
    with closing(sqlite3.connect(server.folder / "farebox.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        while (waiting := _gauge(server, "farebox_ledger_queue")) < _MOST_WAITING:
            callers = min(_AT_ONCE, _MOST_WAITING - waiting)
            # On a slow machine the first of all callers is refused meanwhile: after the 10 s that the ledger waits.
            queued = waiting + max(callers - 1, 1)
            with ExitStack() as leaving:
                for _ in range(callers):
                    connection = socket.create_connection((parts.hostname or "", parts.port or 0))
                    leaving.enter_context(connection).sendall(sent)
                assert until(partial(_queues, server, queued), 10)
        yield _Plan(caller, _chat())
        other.execute("ROLLBACK")
    assert until(lambda: _gauge(server, "farebox_ledger_queue") == 0 == _gauge(server, "farebox_holds_open"), 20)
    _serves_again(scene)


@contextmanager
def _no_room(server: Server) -> Iterator[None]:
    """Let no file of the server's grow, or be written at all, as when the disk is full."""
    before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)


def _serves_again(scene: _Scene) -> None:
    scene.upstream.says(answer())
    answered = scene.caller.chat()
    assert answered.headers["x-credits-charged"] == "0.041"
    assert scene.caller.receipt(answered)["status"] == "settled"
    scene.server.audit()


@contextmanager
def _full_disk(scene: _Scene) -> Iterator[_Plan]:
    scene.upstream.says(answer())
    with _no_room(scene.server):
        yield _Plan(scene.caller, _chat())
    _serves_again(scene)


def _full_meanwhile(script: Script, in_the_end: str, **members: Any) -> _Provoke:
    """The disk is full when the provider answers; in_the_end: available once there is room again."""

    @contextmanager
    def provoke(scene: _Scene) -> Iterator[_Plan]:
        with ExitStack() as full:

            def fill(_: Received) -> Script:
                full.enter_context(_no_room(scene.server))
                return script

            scene.upstream.chooses(fill)
            yield _Plan(scene.caller, _chat(**members))
        assert scene.caller.nothing_held(10)
        assert scene.caller.available == in_the_end
        _serves_again(scene)

    return provoke


# -- the table

_LIMIT = {"param": "limit"}
_MODEL = {"param": "model"}
_TIER = {"param": "service_tier"}
_USER = {"param": "X-Farebox-User"}
_OPERATION = {"param": "X-Farebox-Operation"}
_NO_RECEIPT = {"message": "There is no such receipt"}
_limited = _fails(429, headers={"retry-after": "17"})
_hangs = _says(head(), Gate(), model="hasty", stream=True)
_SLOWER = {"message": "The model's provider is receiving too many requests; try again later. Nothing was charged."}
_OFF = {"message": "The model `off` is not available at the moment."}
_LATE = {"message": "The model's provider took too long. Nothing was charged."}
_TOP_UP = {"debt": "0", "fits_at": None, "top_up_url": "https://example.com/credits"}
# 9 counted input tokens and 1000 x 0.003 are needed; (0.5 - 0.009) / 0.003 = 163.7
_LACK = {"needed": "3.009", "available": "0.5", "held": "0", "max_tokens_affordable": 163, **_TOP_UP}
# 4 - 3.009 are available; (4 - 0.009) / 0.003 = 1330.3
_HELD = {"needed": "3.009", "available": "0.991", "held": "3.009", "max_tokens_affordable": 1330, **_TOP_UP}
_REFUSED = {"type": "invalid_request_error", "param": "messages", "message": "Too long for [removed]", "limit": 9}
_REFUSES: dict[str, Any] = {
    "message": "Too long for org-AbCdEf123456",
    "param": "messages",
    "code": "too_long",
    "limit": 9,
}
_GENERIC = {"message": "The model's provider cannot be reached at the moment. Nothing was charged."}
_FAILED = {"message": "The model's provider failed to answer. Nothing was charged."}
_BROKE = {"message": "The model's answer broke off; what had arrived was charged."}
_BEGUN = words("one", " two")
_ERROR_EVENT = b'data: {"error": {"message": "secret", "code": "rate_limit_exceeded"}}\n\n'
_CUT = streamed(_BEGUN, CUT, ends=False)
_ERROR = streamed(_BEGUN, _ERROR_EVENT, DONE)
_WHOLE = streamed(words("one"), finish(), usage_chunk(), DONE)
_ASIDE = {"X-Farebox-Operation": "aside"}
_NOWHERE = {"X-Farebox-Operation": "nowhere"}
_SOMEBODY = {"X-Farebox-User": "somebody"}
_QUOTA: dict[str, Any] = {"code": "insufficient_quota", "type": "insufficient_quota"}

_ROWS = (
    # name, how to provoke it, the client's class, status, code, members, requests, of these at the provider
    _Row("bad field", _asks(n=0), BadRequest, 400, None, {"param": "n"}, 1, 0),
    _Row("bad field, streamed", _asks(n=0, stream=True), BadRequest, 400, None, {"param": "n"}, 1, 0),
    _Row("refused by provider", _fails(400, **_REFUSES), BadRequest, 400, "too_long", _REFUSED, 1, 1),
    _Row("too large for provider", _fails(413, **_REFUSES), APIStatusError, 413, "too_long", _REFUSED, 1, 1),
    _Row("nonsense to provider", _fails(422, **_REFUSES), Unprocessable, 422, "too_long", _REFUSED, 1, 1),
    _Row("refused without code", _fails(400), BadRequest, 400, None, {"message": "No"}, 1, 1),
    _Row("field of an own route", _gets("/v1/credits/usage?limit=0"), Unprocessable, 422, None, _LIMIT, 1, 0),
    _Row("too large", _asks(user="x" * 1_000_000), APIStatusError, 413, "request_too_large", {"param": None}, 1, 0),
    _Row("unpriced", _asks(service_tier="priority"), BadRequest, 400, "not_supported", _TIER, 1, 0),
    _Row("no platform", _asks(extra_headers=_SOMEBODY), Denied, 403, "permission_denied", _USER, 1, 0),
    _Row("later endpoint", _moderates, BadRequest, 400, "not_supported", {}, 1, 0),
    _Row("no operation", _asks(extra_headers=_NOWHERE), BadRequest, 400, "unknown_operation", _OPERATION, 1, 0),
    _Row("unknown key", _unknown_key, Unauthenticated, 401, "invalid_api_key", {}, 1, 0),
    _Row("revoked key", _revoked_key, Unauthenticated, 401, "invalid_api_key", {}, 1, 0),
    _Row("poor", _poor, APIStatusError, 402, "insufficient_credits", _LACK, 1, 0, should_retry="false"),
    _Row("held", _held, APIStatusError, 402, "credits_held", _HELD, 3, 0, should_retry="true", after="2"),
    _Row("admin's route", _gets("/admin/v1/accounts"), Denied, 403, "permission_denied", {}, 1, 0),
    _Row("suspended", _is("suspended"), Denied, 403, "account_suspended", {}, 1, 0),
    _Row("closed", _is("closed"), Denied, 403, "account_suspended", {}, 1, 0),
    _Row("key's operations", _with_key(operations=["chat"]), Denied, 403, "operation_not_allowed", {}, 1, 0),
    _Row("other's operation", _asks(extra_headers=_ASIDE), Denied, 403, "operation_not_allowed", {}, 1, 0),
    _Row("no model", _asks("nothing"), NotFound, 404, "model_not_found", _MODEL, 1, 0),
    _Row("no model to show", _gets("/v1/models/nothing"), NotFound, 404, "model_not_found", _MODEL, 1, 0),
    _Row("no path", _gets("/v1/nothing"), NotFound, 404, "not_found", {}, 1, 0),
    _Row("other's receipt", _gets("/v1/credits/receipts/{receipt}"), NotFound, 404, "not_found", _NO_RECEIPT, 1, 0),
    _Row("method", _gets("/v1/chat/completions"), APIStatusError, 405, "method_not_allowed", {}, 1, 0),
    _Row("too often", _too_often, RateLimit, 429, "rate_limit_exceeded", {}, 3, 0, after="5[0-9]|60"),
    _Row("too many", _too_many, RateLimit, 429, "rate_limit_exceeded", {}, 3, 0, after="1"),
    _Row("provider's limit", _limited, RateLimit, 429, "rate_limit_exceeded", _SLOWER, 3, 3, after="17"),
    _Row("provider's limit, bare", _fails(429), RateLimit, 429, "rate_limit_exceeded", _SLOWER, 3, 3),
    _Row("provider's 500", _fails(500, "secret"), ServerError, 502, "upstream_error", _FAILED, 3, 3),
    _Row("provider's 503", _fails(503, "secret"), ServerError, 502, "upstream_error", _FAILED, 3, 3),
    _Row("provider's 500, streamed", _fails(500, stream=True), ServerError, 502, "upstream_error", _FAILED, 3, 3),
    _Row("provider's 404", _fails(404, "secret"), ServerError, 502, "upstream_error", _FAILED, 3, 3),
    _Row("truncated", _says(answer()[:-40], CUT), ServerError, 502, "upstream_error", _FAILED, 3, 3),
    _Row("malformed", _says(response(b'{"id": 1}')), ServerError, 502, "upstream_error", _FAILED, 3, 3),
    _Row("no HTTP", _says(b"220 smtp\r\n\r\n", CUT), ServerError, 502, "upstream_error", _FAILED, 3, 3),
    _Row("unbegun stream", _says(*streamed(), stream=True), ServerError, 502, "upstream_error", {}, 3, 3),
    _Row("refused connection", _asks("gone"), ServerError, 503, "upstream_unavailable", _GENERIC, 3, 0),
    _Row("operator's key", _fails(401, "secret"), ServerError, 503, "upstream_unavailable", _GENERIC, 3, 3),
    _Row("operator's bill", _fails(402, "secret"), ServerError, 503, "upstream_unavailable", _GENERIC, 3, 3),
    _Row("operator's rights", _fails(403, "secret"), ServerError, 503, "upstream_unavailable", _GENERIC, 3, 3),
    _Row("operator's quota", _fails(429, **_QUOTA), ServerError, 503, "upstream_unavailable", _GENERIC, 3, 3),
    _Row("switched off", _asks("off"), ServerError, 503, "upstream_unavailable", _OFF, 3, 0),
    _Row("slow", _says(Gate(), model="hasty"), ServerError, 504, "upstream_timeout", _LATE, 3, 3),
    _Row("slow stream", _hangs, ServerError, 504, "upstream_timeout", _LATE, 3, 3),
    _Row("stopping", _draining, ServerError, 503, "overloaded", {}, 3, 0),
    _Row("crowded", _queue_full, ServerError, 503, "overloaded", {}, 3, 0),
    _Row("full disk", _full_disk, ServerError, 503, "ledger_unavailable", {}, 3, 0),
    _Row("full meanwhile", _full_meanwhile([answer()], "1000"), ServerError, 503, "ledger_unavailable", {}, 3, 1),
    _Row("full midway", _full_meanwhile(_WHOLE, "999.959", stream=True), APIError, 200, "upstream_error", {}, 1, 1),
    # 9 x 0.001 + 2 x 0.003
    _Row("cut", _says(*_CUT, stream=True), APIError, 200, "upstream_error", _BROKE, 1, 1, charged="0.015"),
    _Row("error event", _says(*_ERROR, stream=True), APIError, 200, "upstream_error", _BROKE, 1, 1, charged="0.015"),
)


_ELSEWHERE: dict[tuple[str | None, int], str] = {
    ("spend_limit_reached", 402): "no limits of spending yet",
    ("model_not_in_plan", 403): "no plans yet",
    ("idempotency_conflict", 409): "no Idempotency-Key yet",
    ("idempotency_in_progress", 409): "no Idempotency-Key yet",
    ("external_id_taken", 409): "the operator's: opening an account",
    ("account_closed", 409): "the operator's: opening a closed account again",
    ("not_serving", 409): "the operator's: reloading the config of a server that is not running",
    ("refund_exceeds_charge", 409): "the operator's: a refund",
    ("internal_error", 500): "a fault of Farebox's own, which no test brings about",
}
"""Codes that no row raises, and why."""


def _worth(caller: Caller) -> Decimal:
    """What the account owns; credits that running calls hold are still its own."""
    balance = caller.balance()
    return Decimal(balance["available"]) + Decimal(balance["held"]) - Decimal(balance["debt"])


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: row.name.replace(" ", "-"))
def test_an_error_is_raised_by_the_official_client(row: _Row, scene: _Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its class, status, code and members, is sent as often as stated after the stated delays, and is free."""
    slept: list[float] = []
    monkeypatch.setattr(retrying, "time", SimpleNamespace(sleep=slept.append, time=time.time))
    sent: list[httpx.Request] = []
    answers: list[httpx.Response] = []
    hooks: dict[str, list[Callable[..., object]]] = {"request": [sent.append], "response": [answers.append]}
    # Reading certificates takes a client longer than a call does, and nothing here is encrypted.
    make = partial(httpx.Client, event_hooks=hooks, timeout=20, verify=False)
    with row.provoke(scene) as (caller, ask, key), make() as http:
        client = OpenAI(api_key=key or caller.key, base_url=caller.server.base + "/v1", http_client=http)
        worth, reached = _worth(caller), len(scene.upstream.received)
        with pytest.raises(APIError) as raised:
            ask(client)
        assert worth - _worth(caller) == Decimal(row.charged)
        assert len(scene.upstream.received) - reached == row.provider

    error = raised.value
    assert (type(error), error.code) == (row.raises, row.code)
    assert isinstance(error.body, dict)
    assert {"message", "type", "param", "code", "request_id"} <= error.body.keys()
    assert {name: error.body[name] for name in row.fields} == row.fields
    assert error.body["request_id"] == answers[-1].headers["x-request-id"]
    assert "secret" not in str(error.body)

    assert [answered.status_code for answered in answers] == [row.status] * row.requests
    assert len({answered.headers["x-request-id"] for answered in answers}) == row.requests
    assert [request.headers["x-stainless-retry-count"] for request in sent] == [str(n) for n in range(row.requests)]
    assert {answered.headers.get("x-should-retry") for answered in answers} == {row.should_retry}
    delays = [answered.headers.get("retry-after") for answered in answers]
    if row.after is None:
        assert delays == [None] * row.requests
        assert len(slept) == row.requests - 1 and all(0 < seconds <= 1 for seconds in slept)
    else:
        assert all(re.fullmatch(row.after, delay or "") for delay in delays)
        assert slept == [float(delay) for delay in delays[:-1] if delay is not None]


def test_every_code_has_a_row_or_a_reason() -> None:
    """Of the catalogue's codes none is forgotten, and none is excused that a row raises."""
    listed = {(error.code, error.status) for error in ERRORS}
    assert listed - {(row.code, row.status) for row in _ROWS} == _ELSEWHERE.keys()
    assert len({row.name for row in _ROWS}) == len(_ROWS)


def test_the_catalogue_says_what_is_retried() -> None:
    """Each row is retried, and has the header `x-should-retry`, as the list of errors says of its code."""
    listed = {(error.code, error.status): error for error in ERRORS}
    unlisted = []
    for row in _ROWS:
        error = listed.get((row.code, row.status))
        if error is None:
            unlisted.append((row.code, row.status))
            continue
        assert sdk_retries(error) == (row.requests == 3), row.name
        header = None if error.should_retry is None else str(error.should_retry).lower()
        assert row.should_retry == header, row.name
    # The provider's own codes, and what ends a stream that has begun.
    assert set(unlisted) == {("too_long", 400), ("too_long", 413), ("too_long", 422), ("upstream_error", 200)}
