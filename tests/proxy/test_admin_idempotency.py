"""Admin commands sent again under one Idempotency-Key: carried out once, answered as before."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.proxy.chats import answer
from tests.proxy.running import ADMIN_KEY, Caller, Server
from tests.proxy.upstream import Upstream

_REASON = {"reason": "as agreed"}
_Command = tuple[str, str, dict[str, Any] | None]


def _sent(server: Server, command: _Command, key: str = "k-1") -> httpx.Response:
    method, path, fields = command
    headers = {"authorization": f"Bearer {ADMIN_KEY}", "idempotency-key": key}
    return server.http.request(method, f"{server.base}/admin/v1{path}", json=fields, headers=headers)


def _commands(server: Server, upstream: Upstream) -> dict[str, _Command]:
    """One of each, on an account that has called."""
    upstream.says(answer())
    caller = server.caller("100")
    call = caller.chat("each").headers["x-request-id"]
    account = f"/accounts/{caller.account}"
    grant = server.done("POST", f"{account}/grants", {"bucket": "bonus", "credits": 5})["id"]
    key = server.done("POST", f"{account}/keys", {})["id"]
    team = "/accounts/" + server.done("POST", "/accounts", {"name": "Crew", "kind": "team"})["id"]
    member = server.caller(None).account
    server.done("POST", f"{team}/members", {"account": member})
    clock = server.done("POST", "/clocks", {"now": "2026-01-31T12:00:00Z"})["id"]
    limit = {"credits": 1, "per": "day"}
    return {
        "account.create": ("POST", "/accounts", {"name": "Ada", "external_id": f"ada-{caller.account}", **_REASON}),
        "account.change": ("PATCH", account, {"name": "Ada", **_REASON}),
        "grant.create": ("POST", f"{account}/grants", {"bucket": "bonus", "credits": "2.5", **_REASON}),
        "grant.void": ("POST", f"/grants/{grant}/void", _REASON),
        "key.create": ("POST", f"{account}/keys", {"name": "second", "limit": limit, **_REASON}),
        "key.revoke": ("DELETE", f"/keys/{key}", _REASON),
        "member.add": ("POST", f"{team}/members", {"account": caller.account, "limit": limit, **_REASON}),
        "member.remove": ("DELETE", f"{team}/members/{member}", _REASON),
        "limit.set": ("POST", f"{account}/limits", {"of": "app", "id": "painter", "limit": limit, **_REASON}),
        "receipt.refund": ("POST", f"/receipts/{call}/refund", {"credits": "0.5", **_REASON}),
        "account.adjust": ("POST", f"{account}/adjust", {"credits": "-3", **_REASON}),
        "clock.create": ("POST", "/clocks", {"now": "2026-01-31T12:00:00Z", **_REASON}),
        "clock.advance": ("POST", f"/clocks/{clock}/advance", {"to": "2026-02-01T12:00:00Z", **_REASON}),
        "prices.reload": ("POST", "/prices/reload", None),
    }


def _state(server: Server) -> dict[str, Any]:
    """Everything that commands change: the totals of the books, and how much there is of each thing."""
    with closing(sqlite3.connect(server.folder / "farebox.db")) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        counts = {table: connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables}
    return {**counts, **server.done("GET", "/audit")["totals"]}


@pytest.fixture
def own(server: Callable[..., Server], upstream: Upstream) -> Server:
    return server().start()


def test_every_command_is_carried_out_once(upstream: Upstream, own: Server) -> None:
    """Sent twice it answers twice the same, the second time saying so, and changes nothing more; with its reason."""
    commands = _commands(own, upstream)
    answers = {name: _sent(own, command, name) for name, command in commands.items()}
    assert {name: answered.status_code < 300 for name, answered in answers.items()} == dict.fromkeys(commands, True)
    before = _state(own)
    for name, command in commands.items():
        again = _sent(own, command, name)
        assert (again.status_code, again.json()) == (answers[name].status_code, answers[name].json()), name
        assert again.headers["x-idempotent-replayed"] == "true"
        assert "x-idempotent-replayed" not in answers[name].headers
    assert _state(own) == before
    actions = own.done("GET", "/actions?limit=100")["data"]
    reasons = {action["command"]: action["reason"] for action in actions[: len(commands)]}
    assert reasons == {name: None if name == "prices.reload" else "as agreed" for name in commands}


def test_a_command_that_was_cut_off_goes_on(upstream: Upstream, own: Server) -> None:
    """The process died after the work, before its answer was kept: sent again it answers the same and adds nothing."""
    commands = _commands(own, upstream)
    answers = {name: _sent(own, command, name).json() for name, command in commands.items()}
    before = _state(own)
    own.stop()
    with closing(sqlite3.connect(own.folder / "farebox.db", isolation_level=None)) as connection:
        assert connection.execute("UPDATE command SET status = NULL, answer = NULL").rowcount == len(commands)
    own.start()
    for name, command in commands.items():
        again = _sent(own, command, name)
        if name == "member.remove":
            # Whoever sends it again hears that there is none, as was asked for.
            assert again.status_code == 404
            before["command"] -= 1
            continue
        assert again.status_code < 300, again.text
        if name == "grant.void":
            # It went the first time.
            answers[name]["voided"] = "0"
        if name == "grant.create":
            # The adjustment took it since.
            answers[name]["remaining"] = "0"
        if name == "prices.reload":
            answers[name]["effective_at"] = again.json()["effective_at"]
        assert again.json() == answers[name], name
        assert "x-idempotent-replayed" not in again.headers
    assert _state(own) == before
    own.audit()


async def test_fifty_at_once_are_one_grant(shared: Server) -> None:
    """The others hear that it is being carried out, or get its answer."""
    caller = shared.caller(None)
    url = f"{shared.base}/admin/v1/accounts/{caller.account}/grants"
    headers = {"authorization": f"Bearer {ADMIN_KEY}", "idempotency-key": "once"}
    async with httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=50)) as client:
        fields = {"bucket": "bonus", "credits": 5}
        answers = await asyncio.gather(*(client.post(url, json=fields, headers=headers) for _ in range(50)))
    made = [answered.json()["id"] for answered in answers if answered.status_code == 201]
    assert len(set(made)) == 1
    for answered in answers:
        if answered.status_code != 201:
            assert answered.json()["error"]["code"] == "idempotency_in_progress"
            assert answered.headers["retry-after"] == "1"
    assert caller.available == "5"


def test_another_body_under_the_key_is_refused(shared: Server) -> None:
    """Nothing is done; another route, or another account, has keys of its own."""
    first, second = shared.caller(None), shared.caller(None)
    fields = {"bucket": "bonus", "credits": 5}
    paths = [f"/accounts/{one.account}/grants" for one in (first, second)]
    assert [_sent(shared, ("POST", path, fields)).status_code for path in paths] == [201, 201]
    refused = _sent(shared, ("POST", paths[0], {**fields, "credits": 6}))
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert refused.headers["x-should-retry"] == "false"
    assert _sent(shared, ("POST", f"/accounts/{first.account}/adjust", {"credits": 1, **_REASON})).status_code == 201
    assert (first.available, second.available) == ("6", "5")


def test_a_refused_command_frees_its_key(shared: Server) -> None:
    """What was wrong can be put right under the same key."""
    caller = shared.caller(None)
    path = f"/accounts/{caller.account}/grants"
    for fields, status in (({"bucket": "nowhere", "credits": 5}, 422), ({"bucket": "bonus", "credits": 5}, 201)):
        assert _sent(shared, ("POST", path, fields)).status_code == status
    assert _sent(shared, ("POST", "/accounts/acct_0000000000000001/grants", {})).status_code == 404
    assert caller.available == "5"


def test_a_keys_secret_is_given_again_and_kept_nowhere(own: Server) -> None:
    """It is made again of the admin key and the command's; under another admin key it stays unknown."""
    account = own.done("POST", "/accounts", {"name": "Ada"})["id"]
    command: _Command = ("POST", f"/accounts/{account}/keys", {})
    first, again, other = _sent(own, command), _sent(own, command), _sent(own, command, "k-2")
    secret = first.json()["key"]
    assert again.json()["key"] == secret != other.json()["key"]
    assert Caller(own, account, secret).balance()["account"] == account
    own.stop()
    for file in own.folder.glob("farebox.db*"):
        assert secret.encode() not in file.read_bytes()
    changed = Server(own.folder, FAREBOX_ADMIN_KEY="another-admin-key").start()
    try:
        headers = {"authorization": "Bearer another-admin-key", "idempotency-key": "k-1"}
        refused = changed.http.post(f"{changed.base}/admin/v1{command[1]}", json={}, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "idempotency_conflict")
    finally:
        changed.close()


def test_it_takes_the_admin_key_to_be_answered_again(shared: Server) -> None:
    """Who knows a command and its key only is refused."""
    caller = shared.caller(None)
    path = f"/accounts/{caller.account}/keys"
    assert _sent(shared, ("POST", path, {})).status_code == 201
    headers = {**caller.headers, "idempotency-key": "k-1"}
    refused = shared.http.post(f"{shared.base}/admin/v1{path}", json={}, headers=headers)
    assert refused.status_code == 403
