"""Teams: members spend a pool of credits by keys of their own, each within its limit, and see only their own calls."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.proxy.chats import DONE, MESSAGES, answer, body_of, finish, usage_chunk, words
from tests.proxy.leavers import Leaver
from tests.proxy.running import Caller, Server
from tests.proxy.upstream import Gate, Upstream, streamed


@pytest.fixture(autouse=True)
def _answers(upstream: Upstream) -> None:
    upstream.says(answer())


@dataclass(frozen=True)
class _Team:
    server: Server
    account: str

    def add(self, member: Caller, limit: dict[str, Any] | None = None) -> dict[str, Any]:
        fields = {"account": member.account} if limit is None else {"account": member.account, "limit": limit}
        made: dict[str, Any] = self.server.done("POST", f"/accounts/{self.account}/members", fields)
        return made

    def key(self, member: Caller, **fields: Any) -> Caller:
        """The member as it calls with a new key that spends the team's credits."""
        made = self.server.done("POST", f"/accounts/{member.account}/keys", {"pays": self.account, **fields})
        assert (made["account"], made["pays"]) == (member.account, self.account)
        return Caller(self.server, member.account, made["key"])

    def remove(self, member: Caller) -> httpx.Response:
        return self.server.admin("DELETE", f"/accounts/{self.account}/members/{member.account}")

    @property
    def available(self) -> str:
        return str(self.server.done("GET", f"/accounts/{self.account}/credits")["available"])

    def members(self) -> dict[str, Any]:
        rows = self.server.done("GET", f"/accounts/{self.account}/members")["data"]
        return {row["account"]: row["limit"] for row in rows}


@pytest.fixture
def team(shared: Server) -> _Team:
    """A team with 100 credits."""
    account = shared.done("POST", "/accounts", {"name": "Crew", "kind": "team"})
    assert account["kind"] == "team"
    shared.done("POST", f"/accounts/{account['id']}/grants", {"bucket": "paid", "credits": "100"})
    return _Team(shared, account["id"])


def test_a_members_key_spends_the_pool(shared: Server, team: _Team) -> None:
    """Its own credits stay; the receipt names the key and the member, and the balance shown is the pool's."""
    member = shared.caller("5")
    team.add(member)
    spender = team.key(member)
    called = spender.chat("each")
    assert called.headers["x-credits-available"] == "99"
    assert (spender.available, team.available, member.available) == ("99", "99", "5")
    receipt = spender.receipt(called)
    assert (receipt["member"], receipt["total"]) == (member.account, "1")
    assert receipt["key"].endswith(member.account.removeprefix("acct_"))
    assert spender.balance()["account"] == team.account
    # Its other key still spends its own.
    assert member.chat("each").headers["x-credits-available"] == "4"
    assert member.receipt(member.chat("each"))["member"] is None


def test_a_members_limit_is_for_all_its_keys(shared: Server, team: _Team) -> None:
    """Two keys of one member share its limit, another member has its own, and the refusal names the member."""
    first, second = shared.caller(None), shared.caller(None)
    assert team.add(first, {"credits": "2", "per": "month"})["limit"]["credits"] == "2"
    team.add(second)
    one, two = team.key(first), team.key(first)
    assert [one.chat("each").status_code, two.chat("each").status_code] == [200, 200]
    error = two.chat("each").json()["error"]
    assert error["code"] == "spend_limit_reached"
    assert (error["limit"]["of"], error["limit"]["id"], error["limit"]["spent"]) == ("member", first.account, "2")
    assert team.key(second).chat("each").status_code == 200
    assert one.balance()["limits"] == [
        {
            "of": "member",
            "id": first.account,
            "credits": "2",
            "per": "month",
            "spent": "2",
            "reserved": "0",
            "resets_at": one.balance()["limits"][0]["resets_at"],
        }
    ]
    # A higher limit counts what was spent; null lifts it, and set again it still counts.
    assert team.add(first, {"credits": "3", "per": "month"})["limit"]["spent"] == "2"
    assert [one.chat("each").status_code for _ in range(2)] == [200, 402]
    path = f"/accounts/{team.account}/members"
    assert shared.done("POST", path, {"account": first.account, "limit": None})["limit"] is None
    assert one.chat("each").status_code == 200
    assert team.add(first, {"credits": "3", "per": "month"})["limit"]["spent"] == "4"
    assert one.chat("each").status_code == 402
    assert team.members()[first.account]["credits"] == "3"


async def test_members_at_once_never_spend_more_than_their_limit(shared: Server, team: _Team) -> None:
    """20 calls of each of two members, limits 3 and 5: 8 are answered, and the pool has paid exactly those."""
    members = [shared.caller(None), shared.caller(None)]
    spenders = []
    for member, credits in zip(members, ("3", "5"), strict=True):
        team.add(member, {"credits": credits, "per": "ever"})
        spenders += [team.key(member), team.key(member)]
    async with httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=40)) as client:
        calls = [
            client.post(spender.url, content=body_of(model="each"), headers=spender.headers)
            for spender in spenders
            for _ in range(10)
        ]
        answers = await asyncio.gather(*calls)
    assert sum(answered.status_code == 200 for answered in answers) == 8
    assert team.available == "92"
    assert {row["spent"] for row in team.members().values()} == {"3", "5"}


def test_members_see_their_own_calls_only(shared: Server, team: _Team) -> None:
    """In lists, sums, exports and receipts, whatever they ask for; the statement is refused, the operator sees all."""
    first, second = shared.caller(None), shared.caller(None)
    for member in (first, second):
        team.add(member)
    one, two = team.key(first), team.key(second)
    mine, theirs = one.chat("each"), two.chat("each")
    for query in ("", f"?member={first.account}", "?model=each"):
        rows = one.get(f"/v1/credits/usage{query}").json()["data"]
        assert [row["id"] for row in rows] == [mine.headers["x-request-id"]]
    assert one.get(f"/v1/credits/usage?member={second.account}").json()["data"] == []
    sums = one.get("/v1/credits/usage/summary?by=member&period=all").json()["data"]
    assert sums == [{"key": first.account, "calls": 1, "total": "1"}]
    exported = shared.http.get(f"{shared.base}/v1/credits/usage", headers={**one.headers, "accept": "text/csv"}).text
    assert second.account not in exported and first.account in exported
    refused = one.get(f"/v1/credits/receipts/{theirs.headers['x-request-id']}")
    assert refused.status_code == 404
    assert one.get("/v1/credits/statement").json()["error"]["code"] == "permission_denied"
    everything = shared.done("GET", f"/accounts/{team.account}/usage")["data"]
    assert [row["member"] for row in everything] == [second.account, first.account]
    # The member's own account has paid for nothing.
    assert first.get("/v1/credits/usage").json()["data"] == []


def test_two_members_may_call_their_runs_alike(shared: Server, team: _Team) -> None:
    """What one of them spends in a run does not count in the other's of that name."""
    first, second = shared.caller(None), shared.caller(None)
    for member in (first, second):
        team.add(member)
    limited = {"X-Farebox-Run": "build", "X-Farebox-Run-Limit": "1"}
    answers = []
    for spender in (team.key(first), team.key(second)):
        for _ in range(2):
            sent = {**spender.headers, **limited}
            answers.append(shared.http.post(spender.url, content=body_of(model="each"), headers=sent))
    assert [answered.status_code for answered in answers] == [200, 402, 200, 402]
    error = answers[1].json()["error"]
    assert (error["limit"]["of"], error["limit"]["id"]) == ("run", "build")


def test_a_removed_member_is_refused_and_its_running_call_ends_on_the_pool(
    upstream: Upstream, shared: Server, team: _Team
) -> None:
    """Its keys for the team are revoked at once, its own key is not; what ran is answered and charged."""
    member = shared.caller("5")
    team.add(member, {"credits": "50", "per": "month"})
    spender, other = team.key(member), team.key(member)
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    with shared.http.stream("POST", spender.url, content=body_of(stream=True), headers=spender.headers) as stream:
        gate.reached()
        removed = team.remove(member)
        assert removed.status_code == 200
        assert len(removed.json()["revoked_keys"]) == 2
        assert [one.chat().status_code for one in (spender, other)] == [401, 401]
        gate.open()
        assert stream.read().endswith(DONE)
    assert team.available == "99.959"
    upstream.says(answer())
    assert member.chat("each").status_code == 200
    assert team.members() == {}
    assert team.remove(member).status_code == 404
    # Let in again it has what it spent before counted, and needs new keys.
    assert team.add(member, {"credits": "50", "per": "month"})["limit"]["spent"] == "0.041"
    assert spender.chat("each").status_code == 401
    assert team.key(member).chat("each").status_code == 200


def test_a_suspended_account_spends_no_teams_credits_either(shared: Server, team: _Team) -> None:
    """Neither does a member while the team is suspended; made active again, both call."""
    member = shared.caller("5")
    team.add(member)
    spender = team.key(member)
    assert spender.chat("each").status_code == 200
    for suspended in (member.account, team.account):
        shared.done("PATCH", f"/accounts/{suspended}", {"status": "suspended"})
        refused = spender.chat("each")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "account_suspended")
        assert spender.available == "99"
        shared.done("PATCH", f"/accounts/{suspended}", {"status": "active"})
        assert member.chat("each").status_code == 200
    assert spender.chat("each").status_code == 200
    assert team.available == "98"


async def test_a_call_that_arrives_slowly_is_looked_at_again(shared: Server, team: _Team) -> None:
    """Its headers came before its key was revoked and its body after: it is refused, and costs nobody anything."""
    member = shared.caller(None)
    team.add(member)
    body = body_of(model="each")
    async with Leaver(team.key(member), body, short=5) as slow:
        # Longer than a body may take without its sender being looked at again.
        await asyncio.sleep(1.2)
        assert team.remove(member).status_code == 200
        slow.send(body[-5:])
        await slow.until(b"invalid_api_key")
    assert slow.seen.startswith(b"HTTP/1.1 401")
    assert team.available == "100"


def test_a_removed_member_is_told_nothing_more(shared: Server, team: _Team) -> None:
    """Its events end with the key."""
    member = shared.caller(None)
    team.add(member)
    spender = team.key(member)
    with httpx.stream("GET", f"{shared.base}/v1/credits/events", headers=spender.headers, timeout=10) as events:
        lines = events.iter_lines()
        assert "event: balance" in next(lines)
        team.remove(member)
        shared.done("POST", f"/accounts/{team.account}/grants", {"bucket": "paid", "credits": "777"})
        assert not [line for line in lines if "877" in line]


def test_a_suspended_platform_acts_for_nobody(shared: Server) -> None:
    """Its users' credits are safe from it, and theirs again when it is active."""
    platform = shared.caller(None)
    made = shared.done("POST", f"/accounts/{platform.account}/keys", {"platform": True})
    user = shared.done("POST", "/accounts", {"name": "A", "external_id": f"s-{platform.account}"})
    shared.done("POST", f"/accounts/{user['id']}/grants", {"bucket": "paid", "credits": "5"})
    headers = {"authorization": f"Bearer {made['key']}", "X-Farebox-User": user["external_id"]}

    def call() -> int:
        return shared.http.post(platform.url, content=body_of(model="each"), headers=headers).status_code

    assert call() == 200
    shared.done("PATCH", f"/accounts/{platform.account}", {"status": "suspended"})
    assert call() == 403
    shared.done("PATCH", f"/accounts/{platform.account}", {"status": "active"})
    assert call() == 200


def test_a_wrong_reason_stops_a_command_before_it_does_anything(shared: Server, team: _Team) -> None:
    """422 and the member, its keys and the journal are as they were."""
    member = shared.caller(None)
    team.add(member)
    spender = team.key(member)
    path = f"/accounts/{team.account}/members/{member.account}"
    for reason in (5, "x" * 2001, "a\nb"):
        refused = shared.admin("DELETE", path, {"reason": reason})
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, "reason")
        assert spender.chat("each").status_code == 200
    assert shared.admin("DELETE", path, {"reason": "left"}).status_code == 200
    assert shared.done("GET", "/actions?limit=1")["data"][0]["reason"] == "left"
    # What is left of a member is its limit, which can be lifted.
    limits = f"/accounts/{team.account}/limits"
    assert shared.admin("POST", limits, {"of": "member", "id": member.account, "limit": None}).status_code == 422
    team.add(member, {"credits": "5", "per": "day"})
    team.remove(member)
    assert shared.done("POST", limits, {"of": "member", "id": member.account, "limit": None})["limit"] is None
    assert shared.done("GET", limits)["data"] == []


def test_membership_is_what_lets_a_key_spend(shared: Server, team: _Team) -> None:
    """Who is no member, an account that is no team, or a team as a member: each is refused by its field."""
    member, stranger = shared.caller(None), shared.caller(None)
    team.add(member)
    wrong: tuple[tuple[str, dict[str, Any], str], ...] = (
        (f"/accounts/{stranger.account}/keys", {"pays": team.account}, "pays"),
        (f"/accounts/{member.account}/keys", {"pays": stranger.account}, "pays"),
        (f"/accounts/{member.account}/keys", {"pays": "acct_x"}, "pays"),
        (f"/accounts/{stranger.account}/members", {"account": member.account}, "kind"),
        (f"/accounts/{team.account}/members", {"account": team.account}, "account"),
        (f"/accounts/{team.account}/members", {"account": "acct_0000000000000001"}, "account"),
        (f"/accounts/{team.account}/members", {}, "account"),
        (f"/accounts/{member.account}/keys", {"platform": "yes"}, "platform"),
        (f"/accounts/{member.account}/keys", {"pays": team.account, "platform": True}, "pays"),
    )
    for path, fields, name in wrong:
        refused = shared.admin("POST", path, fields)
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, name), refused.text
    # Naming oneself is what is so without it, and a team may have keys of its own.
    assert shared.done("POST", f"/accounts/{member.account}/keys", {"pays": member.account})["pays"] == member.account
    own = Caller(shared, team.account, shared.done("POST", f"/accounts/{team.account}/keys", {})["key"])
    assert own.chat("each").status_code == 200
    assert len(own.get("/v1/credits/statement").json()["data"]) == 2


def test_adding_a_member_twice_changes_its_limit(shared: Server, team: _Team) -> None:
    """201 and then 200; without a limit in it the second command leaves the limit as it is."""
    member = shared.caller(None)
    path = f"/accounts/{team.account}/members"
    limit = {"credits": "2", "per": "day"}
    answers = [
        shared.admin("POST", path, {"account": member.account, "limit": limit}),
        shared.admin("POST", path, {"account": member.account}),
        shared.admin("POST", path, {"account": member.account, "limit": {"credits": "4", "per": "day"}}),
    ]
    shown = [(answered.status_code, answered.json()["limit"]["credits"]) for answered in answers]
    assert shown == [(201, "2"), (200, "2"), (200, "4")]
    assert len(team.members()) == 1


def test_an_account_limits_what_is_spent_in_an_app(shared: Server) -> None:
    """All its keys for the app share the limit; it is listed, changed and lifted, and other apps go on."""
    caller = shared.caller("100")
    keys = [
        Caller(shared, caller.account, shared.done("POST", f"/accounts/{caller.account}/keys", {"app": app})["key"])
        for app in ("painter", "painter", "writer")
    ]
    path = f"/accounts/{caller.account}/limits"
    made = shared.done("POST", path, {"of": "app", "id": "painter", "limit": {"credits": "2", "per": "day"}})
    assert (made["id"], made["of"], made["name"], made["limit"]["credits"]) == ("app:painter", "app", "painter", "2")
    assert [key.chat("each").status_code for key in keys] == [200, 200, 200]
    error = keys[0].chat("each").json()["error"]
    assert (error["limit"]["of"], error["limit"]["id"]) == ("app", "painter")
    assert [one["of"] for one in keys[1].balance()["limits"]] == ["app"]
    assert keys[2].balance()["limits"] == []
    listed = shared.done("GET", path)["data"]
    assert [(one["id"], one["limit"]["spent"]) for one in listed] == [("app:painter", "2")]
    assert shared.done("POST", path, {"of": "app", "id": "painter", "limit": None})["limit"] is None
    assert keys[0].chat("each").status_code == 200
    assert shared.done("GET", path)["data"] == []


def test_a_keys_limit_can_be_set_changed_and_lifted_later(shared: Server) -> None:
    """By the same route; a key that spends another's credits, or none, is refused."""
    caller, stranger = shared.caller("100"), shared.caller("100")
    made = shared.done("POST", f"/accounts/{caller.account}/keys", {})
    key, path = Caller(shared, caller.account, made["key"]), f"/accounts/{caller.account}/limits"
    assert key.chat("each").status_code == 200
    limit = {"of": "key", "id": made["id"], "limit": {"credits": 1, "per": "ever"}}
    # What was spent before there was a limit does not count.
    assert shared.done("POST", path, limit)["limit"]["spent"] == "0"
    assert [key.chat("each").status_code for _ in range(2)] == [200, 402]
    shown = next(
        row for row in shared.done("GET", f"/accounts/{caller.account}/keys")["data"] if row["id"] == made["id"]
    )
    assert shown["limit"]["spent"] == "1"
    shared.done("POST", path, {**limit, "limit": None})
    assert key.chat("each").status_code == 200
    for name, fields in (
        ("id", limit),
        ("id", {**limit, "id": "key_x"}),
        ("of", {**limit, "of": "run"}),
        ("of", {"id": "x", "limit": None}),
        ("limit", {"of": "app", "id": "x"}),
        ("limit", {"of": "app", "id": "x", "limit": {"credits": 1, "per": "year"}}),
        ("id", {**limit, "of": "member", "id": caller.account}),
    ):
        refused = shared.admin("POST", f"/accounts/{stranger.account}/limits", fields)
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, name), refused.text


def test_a_platforms_key_spends_whose_credits_the_call_names(shared: Server) -> None:
    """By external_id: each user's balance, usage and receipts are that user's; without the header they are its own."""
    platform = shared.caller("10")
    made = shared.done("POST", f"/accounts/{platform.account}/keys", {"platform": True, "app": "builder"})
    assert made["platform"] is True
    key = Caller(shared, platform.account, made["key"])
    users = {}
    for name in ("ann", "ben"):
        external = f"{name}-{platform.account}"
        user = shared.done("POST", "/accounts", {"name": name, "external_id": external})["id"]
        shared.done("POST", f"/accounts/{user}/grants", {"bucket": "paid", "credits": "2"})
        users[external] = user
    for external, user in users.items():
        headers = {**key.headers, "X-Farebox-User": external}
        called = shared.http.post(key.url, content=body_of(model="each"), headers=headers)
        assert called.headers["x-credits-available"] == "1"
        receipt = shared.http.get(
            f"{shared.base}/v1/credits/receipts/{called.headers['x-request-id']}", headers=headers
        ).json()
        assert (receipt["app"], receipt["key"]) == ("builder", made["id"])
        balance = shared.http.get(f"{shared.base}/v1/credits", headers=headers).json()
        assert (balance["account"], balance["available"]) == (user, "1")
        usage = shared.http.get(f"{shared.base}/v1/credits/usage", headers=headers).json()["data"]
        assert [row["id"] for row in usage] == [called.headers["x-request-id"]]
        # The third call of two credits' worth is refused though the platform has credits.
        again = [shared.http.post(key.url, content=body_of(model="each"), headers=headers) for _ in range(2)]
        assert [one.status_code for one in again] == [200, 402]
    assert key.chat("each").headers["x-credits-available"] == "9"
    ann = next(iter(users))
    shared.done("POST", f"/accounts/{users[ann]}/grants", {"bucket": "paid", "credits": "9"})
    limit = {"of": "app", "id": "builder", "limit": {"credits": "0", "per": "day"}}
    shared.done("POST", f"/accounts/{users[ann]}/limits", limit)
    refused = shared.http.post(key.url, content=body_of(model="each"), headers={**key.headers, "X-Farebox-User": ann})
    assert refused.json()["error"]["limit"]["of"] == "app"
    # Its own calls are not concerned by what a user allows the app.
    assert key.chat("each").status_code == 200


def test_who_is_no_platform_acts_for_nobody(shared: Server) -> None:
    """403 for an ordinary key, 404 for an id that nobody has, on calls and on what is open; nothing is called."""
    caller = shared.caller("10")
    made = shared.done("POST", f"/accounts/{caller.account}/keys", {"platform": True})
    user = shared.done("POST", "/accounts", {"name": "A", "external_id": f"x-{caller.account}"})
    assert user["external_id"]
    for secret, external, status in (
        (caller.key, user["external_id"], 403),
        (made["key"], "unknown", 404),
        (made["key"], "", 404),
    ):
        headers = {"authorization": f"Bearer {secret}", "X-Farebox-User": external}
        for answered in (
            shared.http.post(caller.url, content=body_of(), headers=headers),
            shared.http.get(f"{shared.base}/v1/credits", headers=headers),
        ):
            assert answered.status_code == status
            assert answered.json()["error"]["param"] == "X-Farebox-User"
    limited = shared.admin(
        "POST", f"/accounts/{caller.account}/keys", {"platform": True, "limit": {"credits": 1, "per": "day"}}
    )
    assert (limited.status_code, limited.json()["error"]["param"]) == (422, "limit")
    limited = shared.admin("POST", f"/accounts/{caller.account}/limits", {"of": "key", "id": made["id"], "limit": None})
    assert limited.status_code == 422


def test_the_client_sdk_acts_for_a_user_by_a_header(shared: Server) -> None:
    """As an app would: one client, a header a call."""
    platform = shared.caller(None)
    made = shared.done("POST", f"/accounts/{platform.account}/keys", {"platform": True})
    external = f"sdk-{platform.account}"
    user = shared.done("POST", "/accounts", {"name": "A", "external_id": external})["id"]
    shared.done("POST", f"/accounts/{user}/grants", {"bucket": "paid", "credits": "2"})
    client = Caller(shared, platform.account, made["key"]).openai
    said = client.chat.completions.create(model="each", messages=MESSAGES, extra_headers={"X-Farebox-User": external})
    assert said.choices[0].message.content == "one two three"
    assert shared.done("GET", f"/accounts/{user}/credits")["available"] == "1"
