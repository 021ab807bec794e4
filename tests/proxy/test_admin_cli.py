"""The admin API from the shell: every option reaches its route, and means there what it says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.chats import answer
from tests.proxy.running import ADMIN_KEY, Caller, Server, farebox
from tests.proxy.upstream import Upstream

_CONFIG = """
upstreams:
  main: {{kind: openai, base_url: "{url}", api_key: operators-secret}}
models:
  one: {{class: standard, upstream: main/one-1, price: {{request: 1}}}}
  ten: {{class: advanced, upstream: main/ten-1, price: {{request: 10}}}}
operations:
  chat:  {{model: one}}
  image: {{class: advanced}}
  draft: {{multiply: 0.5}}
plans:
  free:    {{allowances: {{daily: 5/day}}}}
  starter: {{price: $20/month, allowances: {{daily: 5/day, subscription: 2000/month}}, overdraft_limit: 50}}
default_plan: free
"""


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return _CONFIG.format(url=running_upstream.url)


@pytest.fixture(autouse=True)
def _answers(upstream: Upstream) -> None:
    upstream.says(answer())


def _json(server: Server, *arguments: str) -> Any:
    ran = farebox(server.folder, *arguments, "--json", FAREBOX_URL=server.base, FAREBOX_ADMIN_KEY=ADMIN_KEY)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def _refused(server: Server, *arguments: str) -> str:
    ran = farebox(server.folder, *arguments, FAREBOX_URL=server.base, FAREBOX_ADMIN_KEY=ADMIN_KEY)
    assert (ran.returncode, ran.stdout) == (1, ""), ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stderr


def test_an_account_lives_on_a_plan_and_a_clock(shared: Server) -> None:
    """What its options say, it is; its credits come anew when the clock is moved on, which never goes back."""
    clock = _json(shared, "clock", "create", "2027-01-31T09:00:00Z", "--reason", "a month's end")
    assert (clock["object"], clock["now"]) == ("clock", "2027-01-31T09:00:00Z")
    said = ("--plan", "starter", "--clock", clock["id"], "--timezone", "Europe/Rome", "--overdraft-limit", "7.5")
    known = ("--email", "ada@example.com", "--external-id", "u-1", "--kind", "user", "--reason", "asked to")
    account = _json(shared, "account", "create", "Ada", *said, *known)
    assert {
        name: account[name] for name in ("name", "plan", "timezone", "overdraft_limit", "email", "external_id")
    } == {
        "name": "Ada",
        "plan": "starter",
        "timezone": "Europe/Rome",
        "overdraft_limit": "7.5",
        "email": "ada@example.com",
        "external_id": "u-1",
    }
    # 5 of the day, 2000 of the month, which ends on 28 February in Rome.
    credits = _json(shared, "account", "credits", account["id"])
    assert (credits["available"], credits["resets_at"]) == ("2005", "2027-02-27T23:00:00Z")
    caller = Caller(shared, account["id"], _json(shared, "key", "create", account["id"])["key"])
    assert caller.chat("ten").status_code == 200
    assert caller.available == "1995"
    moved = _json(shared, "clock", "advance", clock["id"], "2027-02-27T23:00:00Z")
    assert moved == _json(shared, "clock", "show", clock["id"]) == {**clock, "now": "2027-02-27T23:00:00Z"}
    assert _json(shared, "account", "credits", account["id"])["available"] == "2005"
    assert "`to`" in _refused(shared, "clock", "advance", clock["id"], "2027-01-31T09:00:00Z")
    assert "no such clock" in _refused(shared, "clock", "show", "clock_none")
    found = _json(shared, "account", "list", "--external-id", "u-1")["data"]
    assert [one["id"] for one in found] == [account["id"]]
    reasons = [action["reason"] for action in shared.done("GET", "/actions?limit=1000")["data"]]
    assert {"a month's end", "asked to"} <= set(reasons)


def test_plans_are_named_changed_and_left(shared: Server) -> None:
    """No plan is not the default plan; a preview says what the change then does, in both directions."""
    default, none = _json(shared, "account", "create", "Ada"), _json(shared, "account", "create", "Bea", "--no-plan")
    assert (default["plan"], none["plan"]) == ("free", None)
    ada, bea = default["id"], none["id"]
    up = _json(shared, "account", "preview-plan", bea, "--plan", "starter")
    assert (up["from"], up["to"], up["immediate"]) == (None, "starter", True)
    assert [(grant["bucket"], grant["credits"]) for grant in up["grants"]] == [("daily", "5"), ("subscription", "2000")]
    assert _json(shared, "account", "credits", bea)["available"] == "0"
    assert _json(shared, "account", "change", bea, "--plan", "starter", "--name", "Beatrice")["plan"] == "starter"
    assert _json(shared, "account", "credits", bea)["available"] == "2005"
    down = _json(shared, "account", "preview-plan", ada, "--no-plan")
    assert (down["from"], down["to"], down["immediate"]) == ("free", None, False)
    left = _json(shared, "account", "change", ada, "--no-plan", "--email", "ada@example.com")
    assert (left["plan"], left["email"]) == ("free", "ada@example.com")
    assert left["next_plan"] == {"plan": None, "at": down["effective_at"]}
    assert _json(shared, "account", "show", bea)["name"] == "Beatrice"
    assert "`plan`" in _refused(shared, "account", "change", ada, "--plan", "gold")


def test_a_key_has_operations_an_app_and_a_limit(shared: Server) -> None:
    """It may do what it was made for, until it has spent what it may."""
    account = _json(shared, "account", "create", "Ada", "--plan", "starter")["id"]
    limits = ("--operations", "chat, draft", "--operation", "draft", "--limit", "1.5/month")
    key = _json(shared, "key", "create", account, *limits, "--app", "editor", "--name", "laptop", "--reason", "hers")
    assert (key["operations"], key["operation"]) == (["chat", "draft"], "draft")
    assert (key["app"], key["name"], key["limit"]["credits"], key["limit"]["per"]) == (
        "editor",
        "laptop",
        "1.5",
        "month",
    )
    caller = Caller(shared, account, key["key"])
    # A draft is half the price of a call, and what the key's calls are unless they say otherwise.
    assert [caller.chat("one").status_code for _ in range(4)] == [200, 200, 200, 402]
    (listed,) = _json(shared, "key", "list", account)["data"]
    assert (listed["limit"]["spent"], listed["app"]) == ("1.5", "editor")
    assert "`operations`" in _refused(shared, "key", "create", account, "--operations", "chat,video")
    assert "limit" in _refused(shared, "key", "create", account, "--limit", "many/month")


def test_a_team_has_members_and_their_keys(shared: Server) -> None:
    """A member's key spends the team's credits within the member's limit, until the member is taken out."""
    team = _json(shared, "account", "create", "Crew", "--kind", "team", "--no-plan")
    assert team["kind"] == "team"
    _json(shared, "grant", "create", team["id"], "paid", "100")
    ada, bea = (_json(shared, "account", "create", name, "--no-plan")["id"] for name in ("Ada", "Bea"))
    added = _json(shared, "member", "add", team["id"], ada, "--limit", "2/month", "--reason", "hired")
    assert (added["account"], added["limit"]["credits"], added["limit"]["per"]) == (ada, "2", "month")
    assert _json(shared, "member", "add", team["id"], bea)["limit"] is None
    listed = _json(shared, "member", "list", team["id"])["data"]
    assert [member["account"] for member in listed] == [bea, ada]
    key = _json(shared, "key", "create", ada, "--pays", team["id"])
    assert key["pays"] == team["id"]
    caller = Caller(shared, ada, key["key"])
    assert [caller.chat("one").status_code for _ in range(3)] == [200, 200, 402]
    assert _json(shared, "account", "credits", team["id"])["available"] == "98"
    assert _json(shared, "member", "add", team["id"], ada, "--limit", "none")["limit"] is None
    assert caller.chat("one").status_code == 200
    assert _json(shared, "member", "remove", team["id"], ada)["revoked_keys"] == [key["id"]]
    assert caller.chat("one").status_code == 401
    assert "no such member" in _refused(shared, "member", "remove", team["id"], ada)


def test_limits_are_set_changed_and_lifted(shared: Server) -> None:
    """Of a key, of an app over all its keys, of a member; each is listed until it is lifted."""
    account = _json(shared, "account", "create", "Ada", "--plan", "starter")["id"]
    keys = [_json(shared, "key", "create", account, "--app", "editor") for _ in range(2)]
    callers = [Caller(shared, account, key["key"]) for key in keys]
    app = _json(shared, "limit", "set", account, "--of", "app", "--id", "editor", "--limit", "3/day", "--reason", "r")
    assert (app["of"], app["name"], app["limit"]["credits"]) == ("app", "editor", "3")
    _json(shared, "limit", "set", account, "--of", "key", "--id", keys[0]["id"], "--limit", "1/ever")
    assert [callers[0].chat("one").status_code for _ in range(2)] == [200, 402]
    assert [callers[1].chat("one").status_code for _ in range(3)] == [200, 200, 402]
    limits = {row["of"]: row["limit"] for row in _json(shared, "limit", "list", account)["data"]}
    assert {of: (limit["credits"], limit["per"], limit["spent"]) for of, limit in limits.items()} == {
        "key": ("1", "ever", "1"),
        "app": ("3", "day", "3"),
    }
    lifted = _json(shared, "limit", "set", account, "--of", "app", "--id", "editor", "--limit", "none")
    assert lifted["limit"] is None
    assert callers[1].chat("one").status_code == 200
    assert callers[0].chat("one").status_code == 402
    refused = _refused(shared, "limit", "set", account, "--of", "member", "--id", account, "--limit", "1/day")
    assert "`id`" in refused


def test_a_platforms_key_acts_for_users(shared: Server) -> None:
    """Each call names who pays; a key of a platform has no limit of its own."""
    platform = _json(shared, "account", "create", "Shop")["id"]
    user = _json(shared, "account", "create", "Ada", "--external-id", "u-7")["id"]
    key = _json(shared, "key", "create", platform, "--platform", "--app", "shop")
    assert key["platform"] is True
    caller = Caller(shared, platform, key["key"])
    called = caller.post(b'{"model": "one", "messages": [{"role": "user", "content": "?"}]}', x_farebox_user="u-7")
    assert called.status_code == 200, called.text
    assert _json(shared, "account", "credits", user)["available"] == "4"
    assert _json(shared, "account", "credits", platform)["available"] == "5"
    assert "`limit`" in _refused(shared, "key", "create", platform, "--platform", "--limit", "1/day")


def test_accounts_are_listed_by_plan(shared: Server) -> None:
    """Those on the plan that is named, and nobody else."""
    on, off = (_json(shared, "account", "create", "Ada", "--plan", plan)["id"] for plan in ("starter", "free"))
    listed = [
        account["id"] for account in _json(shared, "account", "list", "--plan", "starter", "--limit", "9")["data"]
    ]
    assert on in listed and off not in listed


def test_an_adjustment_goes_where_it_is_told(shared: Server) -> None:
    """More credits go to the bucket that is named."""
    account = _json(shared, "account", "create", "Ada", "--no-plan")["id"]
    adjusted = _json(shared, "account", "adjust", account, "12", "--bucket", "paid", "--reason", "counted wrong")
    assert (adjusted["grant"]["bucket"], adjusted["grant"]["granted"]) == ("paid", "12")


def test_lists_go_on_after_what_was_seen(shared: Server) -> None:
    """A page is as long as asked for, and says on stderr how to read on."""
    account = _json(shared, "account", "create", "Ada", "--no-plan")["id"]
    made = [_json(shared, "grant", "create", account, "paid", str(n), "--reason", "a gift")["id"] for n in (1, 2, 3)]
    command = ("grant", "list", account, "--limit", "2")
    ran = farebox(shared.folder, *command, FAREBOX_URL=shared.base, FAREBOX_ADMIN_KEY=ADMIN_KEY)
    assert made[2] in ran.stdout and made[1] in ran.stdout and made[0] not in ran.stdout
    assert ran.stderr.strip().endswith(f"--after {made[1]}")
    (last,) = _json(shared, *command, "--after", made[1])["data"]
    assert last["id"] == made[0]
    assert "`limit`" in _refused(shared, *command[:-1], "none")


@pytest.mark.parametrize(
    "command",
    [
        "account preview-plan acct_1",
        "account preview-plan acct_1 --plan free --no-plan",
        "account create Ada --plan free --no-plan",
        "account create Ada --kind robot",
        "account create Ada --idempotency-key ä",
        "key create acct_1 --limit 100",
        "key create acct_1 --limit 100/week",
        "key create acct_1 --limit /day",
        "key create acct_1 --limit none",
        "limit set acct_1 --of key --id key_1",
        "limit set acct_1 --of user --id key_1 --limit 1/day",
        "limit set acct_1 --of key --id key_1 --limit nothing",
        "clock create",
        "member add team_1",
    ],
)
def test_what_is_no_command_is_not_sent(tmp_path: Path, command: str) -> None:
    """Usage errors exit 2 before anything is asked: there is neither a server nor a config here."""
    ran = farebox(tmp_path, *command.split())
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "Usage" in ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def told() -> Iterator[Callable[..., list[Any]]]:
    """Runs a command and returns what it asked a server: method, path with query, body or None, Idempotency-Key."""
    asked: list[list[Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            asked.append(
                [self.command, self.path, json.loads(body) if body else None, self.headers.get("idempotency-key")]
            )
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815  http.server's names

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="what commands ask")
    thread.start()

    def run(folder: Path, *command: str) -> list[Any]:
        ran = farebox(folder, *command, FAREBOX_URL=f"http://127.0.0.1:{server.server_port}", FAREBOX_ADMIN_KEY="k")
        assert ran.returncode == 0, ran.stderr
        return asked.pop()

    yield run
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("command", "method", "path", "body"),
    [
        ("account create Ada --kind team", "POST", "accounts", {"name": "Ada", "kind": "team"}),
        ("account create Ada --no-plan", "POST", "accounts", {"name": "Ada", "plan": None}),
        ("account list --plan free --after acct_1", "GET", "accounts?plan=free&after=acct_1", None),
        (
            "key create acct_1 --pays team_1 --limit 0/ever",
            "POST",
            "accounts/acct_1/keys",
            {"pays": "team_1", "limit": {"credits": "0", "per": "ever"}},
        ),
        ("key create acct_1 --platform", "POST", "accounts/acct_1/keys", {"platform": True}),
        ("member add team_1 acct_1", "POST", "accounts/team_1/members", {"account": "acct_1"}),
        (
            "member add team_1 acct_1 --limit 2.5/day",
            "POST",
            "accounts/team_1/members",
            {"account": "acct_1", "limit": {"credits": "2.5", "per": "day"}},
        ),
        (
            "member add team_1 acct_1 --limit none",
            "POST",
            "accounts/team_1/members",
            {"account": "acct_1", "limit": None},
        ),
        ("member list team_1", "GET", "accounts/team_1/members", None),
        ("member remove team_1 acct_1", "DELETE", "accounts/team_1/members/acct_1", None),
        (
            "limit set acct_1 --of app --id editor --limit 100/month --reason asked",
            "POST",
            "accounts/acct_1/limits",
            {"of": "app", "id": "editor", "limit": {"credits": "100", "per": "month"}, "reason": "asked"},
        ),
        (
            "limit set acct_1 --of key --id key_1 --limit none",
            "POST",
            "accounts/acct_1/limits",
            {"of": "key", "id": "key_1", "limit": None},
        ),
        ("limit list acct_1", "GET", "accounts/acct_1/limits", None),
    ],
)
def test_a_command_asks_what_it_says(
    told: Callable[..., list[Any]], tmp_path: Path, command: str, method: str, path: str, body: Any
) -> None:
    """The method, the path and just the members that were given, null where null was."""
    assert told(tmp_path, *command.split()) == [method, f"/admin/v1/{path}", body, None]


@pytest.mark.parametrize(
    "command",
    [
        "account create Ada",
        "account change acct_1 --status active",
        "account adjust acct_1 5 --reason r",
        "receipt refund req_1 --reason r",
        "grant create acct_1 paid 5",
        "grant void grant_1 --reason r",
        "clock create 2027-01-31T09:00:00Z",
        "clock advance clock_1 2027-01-31T09:00:00Z",
        "key create acct_1",
        "key revoke key_1",
        "member add team_1 acct_1",
        "member remove team_1 acct_1",
        "limit set acct_1 --of key --id key_1 --limit none",
    ],
)
def test_what_changes_something_can_be_sent_twice(told: Callable[..., list[Any]], tmp_path: Path, command: str) -> None:
    """Every command that changes something takes an Idempotency-Key along, as a header and not as a member."""
    *_, body, key = told(tmp_path, *command.split(), "--idempotency-key", "order-1")
    assert key == "order-1"
    assert "idempotency_key" not in (body or {})
