"""What everything costs, for people who have no key: `GET /v1/prices` and the page `/prices`."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.chats import answer
from tests.proxy.priced import put
from tests.proxy.running import Caller, Server, until
from tests.proxy.upstream import Upstream

_HOSTILE = """<script>alert(1)</script>" onload="alert(2)"""
_CONFIG = """
credit: {{name: coin, usd: 0.01, show: {show}}}
top_up_url: "https://example.com/credits?a=1&b=2"
upstreams:
  secretive: {{kind: openai, base_url: "{url}", api_key: operators-secret}}
  off:       {{kind: openai, base_url: "{url}", api_key: ""}}
models:
  plain:
    title: Plain
    description: For everything
    class: standard
    speed: 4
    quality: 2
    upstream: secretive/provider-1
    max_output_tokens: 9000
    typical: {{input_tokens: 2000, cached_input_tokens: 500, output_tokens: 400}}
    price: {{input_tokens: {price}, cached_input_tokens: 0.5 / 1k, output_tokens: $40 / 1M}}
  usual:
    class: advanced
    upstream: secretive/provider-2
    max_output_tokens: 9000
    price: {{request: 0.5, input_tokens: 1 / 1k, output_tokens: 3 / 1k, max: 2}}
  long:
    upstream: secretive/provider-3
    max_output_tokens: 9000
    typical: {{input_tokens: 3000, output_tokens: 10}}
    price:
      input_tokens: [{{when: {{input_tokens: "> 2k"}}, price: 4 / 1k}}, {{price: 1 / 1k}}]
      output_tokens: {{price: 3 / 1k, free: 4, beyond: {{6: 5 / 1k}}}}
      factors: [{{when: {{service_tier: flex}}, multiply: 0.5}}]
  hostile:
    title: '{hostile}'
    description: '{hostile}'
    class: '{hostile}'
    upstream: secretive/x
    price: {{request: 1}}
  picture: {{upstream: secretive/provider-4, price: {{image: 50, request: 1}}}}
  hidden:  {{title: Unseen, upstream: off/provider-5, price: {{request: 1}}}}
surcharges: {{web_search: 15}}
operations:
  editor:  {{title: '{hostile}', model: picture, min: 40, max: 400, typical: [45.5, 120], per: run}}
  draft:   {{title: First draft, multiply: 0.6}}
  bounded: {{class: standard, endpoint: /v1/audio/speech, max: $0.10}}
  unseen:  {{model: hidden, min: 7}}
buckets: {{daily: {{title: '{hostile}'}}, paid: {{}}}}
plans:
  free:  {{title: Free, allowances: {{daily: 50/day}}, models: [standard, hidden], overdraft_limit: 5}}
  super: {{title: '{hostile}', price: $20/month, allowances: {{paid: 2000/month}}, renews: calendar}}
packs: {{small: {{price: $20, credits: 2000}}, large: {{title: '{hostile}', price: $100, credits: 10500}}}}
custom_pack: {{min: $5, max: $5000}}
"""


def _config(url: str, price: str = "1 / 1k", show: str = "credits") -> str:
    return _CONFIG.format(url=url, price=price, show=show, hostile=_HOSTILE)


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return _config(running_upstream.url)


@pytest.fixture
def first(shared: Server, upstream: Upstream) -> dict[str, Any]:
    """What is shown when a test begins, always the same."""
    put(shared, _config(upstream.url))
    shared.done("POST", "/prices/reload")
    return _prices(shared)


def _prices(server: Server) -> dict[str, Any]:
    answered = server.http.get(server.base + "/v1/prices")
    assert answered.status_code == 200, answered.text
    document: dict[str, Any] = answered.json()
    return document


class _Page(HTMLParser):
    """A page's elements with their attributes, and its text."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.answered = server.http.get(server.base + "/prices")
        assert self.answered.status_code == 200, self.answered.text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.answered.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_price_list(first: dict[str, Any], shared: Server) -> None:
    """Everything that is offered, as the config says it, to whoever asks."""
    assert (first["object"], first["version"]) == ("prices", shared.done("GET", "/prices")["version"])
    assert first["effective_at"].endswith("Z")
    assert first["credit"] == {"name": "coin", "plural": "coins", "usd": "0.01", "show": "credits"}
    models = {model["id"]: model for model in first["models"]}
    assert list(models) == ["plain", "usual", "long", "hostile", "picture"]
    assert models["plain"] == {
        "id": "plain",
        "title": "Plain",
        "description": "For everything",
        "class": "standard",
        "speed": 4,
        "quality": 2,
        "max_output_tokens": 9000,
        "price": {"input_tokens": "1 / 1k", "cached_input_tokens": "0.5 / 1k", "output_tokens": "$40 / 1M"},
        # 1500 at 0.001, 500 at 0.0005 and 400 at 0.004
        "typical": {
            "usage": {"input_tokens": "2000", "cached_input_tokens": "500", "output_tokens": "400"},
            "cost": "3.35",
        },
        "plans": ["free", "super"],
    }
    assert models["usual"]["typical"] == {
        "usage": {"request": "1", "input_tokens": "1000", "output_tokens": "500"},
        "cost": "2",
    }
    assert models["picture"]["typical"] == {"usage": {"request": "1", "image": "1"}, "cost": "51"}
    assert models["long"]["price"]["factors"] == [{"when": {"service_tier": "flex"}, "multiply": "0.5"}]
    assert [model["plans"] for model in first["models"]] == [["free", "super"], *[["super"]] * 4]
    operations = {operation.pop("id"): operation for operation in first["operations"]}
    assert list(operations) == ["editor", "draft", "bounded"]
    of_editor = {"low": "45.5", "high": "120", "per": "run", "model": "picture", "class": None, "endpoint": None}
    assert operations["editor"] == {"title": _HOSTILE, **of_editor, "multiply": None, "price": None}
    assert (operations["draft"]["low"], operations["draft"]["high"]) == (None, None)
    assert operations["draft"]["multiply"] == "0.6"
    assert (operations["bounded"]["low"], operations["bounded"]["high"]) == (None, "10")
    assert first["surcharges"] == {"web_search": "15"}
    free, paid = first["plans"]
    assert free == {
        "id": "free",
        "title": "Free",
        "price": None,
        "allowances": [{"bucket": "daily", "credits": "50", "per": "day"}],
        "models": ["plain"],
        "renews": "anniversary",
        "overdraft_limit": "5",
    }
    assert (paid["price"], paid["models"], paid["renews"]) == ("$20/month", None, "calendar")
    small, large = first["packs"]
    assert small == {"id": "small", "title": "Small", "price": "$20", "credits": "2000", "bonus": None}
    assert (large["credits"], large["bonus"]) == ("10500", "500")
    assert first["custom_pack"] == {"min": "$5", "max": "$5000"}
    assert first["top_up_url"] == "https://example.com/credits?a=1&b=2"
    assert first["upcoming"] == []


@pytest.mark.parametrize("model", ["plain", "usual", "long"])
def test_a_typical_call_costs_what_is_shown(
    first: dict[str, Any], upstream: Upstream, caller: Caller, model: str
) -> None:
    """A real call with that usage has a receipt of exactly this total."""
    (typical,) = [each["typical"] for each in first["models"] if each["id"] == model]
    used = {meter: int(quantity) for meter, quantity in typical["usage"].items()}
    reported = {
        "prompt_tokens": used["input_tokens"],
        "completion_tokens": used["output_tokens"],
        "prompt_tokens_details": {"cached_tokens": used.get("cached_input_tokens", 0)},
    }
    upstream.says(answer(usage=reported))
    receipt = caller.receipt(caller.chat(model))
    assert (receipt["total"], receipt["operation"], receipt["estimated"]) == (typical["cost"], None, False)


@pytest.mark.usefixtures("first")
def test_the_page_says_the_same(shared: Server) -> None:
    """In words: prices by the million, a typical call, ranges, plans and packs, the version and since when."""
    page, said = _Page(shared), " ".join(_Page(shared).text.split())
    for words in (
        "1,000 coins per 1M input tokens",
        "500 coins per 1M cached input tokens",
        "4,000 coins per 1M output tokens",
        "3.35 coins",
        "2,000 input tokens, 500 cached input tokens, 400 output tokens",
        "4 of 5",
        "0.5 coins per call",
        "at most 2 coins a call",
        "4,000 coins per 1M input tokens with more than 2k input tokens",
        "1,000 coins per 1M input tokens otherwise",
        "free up to 4 of a call, then 3,000 coins up to 6 of a call, then 5,000 coins per 1M output tokens",
        "all of it × 0.5 with service tier flex",
        "45.5–120 coins",
        "0.6 × the model's price",
        "at most 10 coins",
        "15 coins per web search",
        "$20 a month",
        "2,000 coins a month",
        "up to 5 coins below zero",
        "10,500 coins",
        "500 coins more than its price buys otherwise",
        "Or any amount from $5 to $5000.",
        f"Prices of version {_prices(shared)['version']}, in force since 20",
    ):
        assert words in said, words
    assert {"class": "buy", "href": "https://example.com/credits?a=1&b=2"} in page.all("a")
    assert page.all("html") == [{"lang": "en"}]
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
    assert len(page.all("caption")) == len(page.all("table")) == 4
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))


@pytest.mark.usefixtures("first")
def test_what_operators_write_is_text(shared: Server) -> None:
    """Titles and descriptions that look like markup are shown, and are none; nothing runs, and all is from here."""
    page = _Page(shared)
    assert page.text.count(_HOSTILE) >= 6
    assert not {"script", "style", "iframe", "img", "form", "base"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert page.answered.headers["content-security-policy"] == (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    )
    assert page.answered.headers["x-content-type-options"] == "nosniff"
    assert page.answered.headers["referrer-policy"] == "no-referrer"
    assert page.answered.headers["content-type"] == "text/html; charset=utf-8"
    for link in page.all("link"):
        found = shared.http.get(f"{shared.base}/{link['href']}")
        assert found.status_code == 200 and found.content
        kind = "text/css; charset=utf-8" if link["rel"] == "stylesheet" else "image/svg+xml"
        assert found.headers["content-type"] == kind


@pytest.mark.usefixtures("first")
def test_what_is_the_operators_own_is_not_shown(shared: Server) -> None:
    """Neither who answers nor with which key, nor what nobody can call."""
    for path in ("/v1/prices", "/prices"):
        text = shared.http.get(shared.base + path).text.lower()
        for secret in ("provider-", "secretive", "operators-secret", "127.0.0.1", "hidden", "unseen"):
            assert secret not in text, (path, secret)


@pytest.mark.parametrize("path", ["/v1/prices", "/prices"])
def test_an_edit_is_shown_within_two_seconds(
    shared: Server, upstream: Upstream, first: dict[str, Any], path: str
) -> None:
    """With another tag; before it, and after it, who has it is told so in a 304 without a body."""
    url = shared.base + path
    before = shared.http.get(url)
    assert before.headers["cache-control"] == "public, max-age=5"
    for tags in (before.headers["etag"], f'"other", W/{before.headers["etag"]}', "*"):
        known = shared.http.get(url, headers={"if-none-match": tags})
        assert (known.status_code, known.content) == (304, b"")
        assert known.headers["etag"] == before.headers["etag"]
    assert shared.http.get(url, headers={"if-none-match": '"other"'}).content == before.content
    assert shared.http.head(url).headers["etag"] == before.headers["etag"]
    began = time.monotonic()
    put(shared, _config(upstream.url, "7 / 1k"))
    tag = {"if-none-match": before.headers["etag"]}
    assert until(lambda: shared.http.get(url, headers=tag).status_code == 200, 5)
    assert time.monotonic() - began < 2
    after = shared.http.get(url)
    assert after.headers["etag"] != before.headers["etag"]
    assert ("7 / 1k" if path == "/v1/prices" else "7,000 coins per 1M input tokens") in after.text
    assert _prices(shared)["version"] != first["version"]
    # 1500 at 0.007, the rest as before
    assert _prices(shared)["models"][0]["typical"]["cost"] == "12.35"


@pytest.mark.usefixtures("first")
def test_a_title_alone_changes_what_is_shown(shared: Server, upstream: Upstream) -> None:
    """The table's version stays, the tag does not: packs and typical calls belong to the page and change no charge."""
    before = shared.http.get(shared.base + "/v1/prices")
    text = _config(upstream.url).replace("$20, credits: 2000", "$30, credits: 3000")
    put(shared, text.replace("output_tokens: 400", "output_tokens: 0"))
    shared.done("POST", "/prices/reload")
    after = shared.http.get(shared.base + "/v1/prices")
    assert after.headers["etag"] != before.headers["etag"]
    assert after.json()["version"] == before.json()["version"]
    assert after.json()["packs"][0]["credits"] == "3000"
    assert after.json()["models"][0]["typical"]["cost"] == "1.75"


@pytest.mark.usefixtures("first")
def test_amounts_in_dollars(shared: Server, upstream: Upstream) -> None:
    """With `show: usd` the page says dollars, and JSON still says credits."""
    put(shared, _config(upstream.url, show="usd"))
    shared.done("POST", "/prices/reload")
    said = " ".join(_Page(shared).text.split())
    for words in (
        "$10 per 1M input tokens",
        "$0.0335",
        "at most $0.02 a call",
        "$0.455–$1.20",
        "$0.15 per web search",
        "$0.50 a day",
        "$105",
    ):
        assert words in said, words
    assert "coin" not in said
    shown = _prices(shared)
    assert shown["credit"]["show"] == "usd"
    assert shown["models"][0]["typical"]["cost"] == "3.35"


def test_without_plans_packs_and_operations(server: Callable[..., Server], tmp_path: Path) -> None:
    """A config of one model makes a page of one table; prices come into force with the server."""
    (tmp_path / "config.yaml").write_text(
        "upstreams: {d: {kind: demo}}\nmodels: {one: {upstream: d/x, price: {request: 1}}}\n"
    )
    running = server().start()
    page = _Page(running)
    assert len(page.all("table")) == 1
    assert "1 credit per call" in page.text
    shown = _prices(running)
    empty: dict[str, Any] = {"operations": [], "surcharges": {}, "plans": [], "packs": [], "upcoming": []}
    assert {name: shown[name] for name in empty} == empty
    assert (shown["custom_pack"], shown["top_up_url"]) == (None, None)
    assert shown["models"][0]["typical"] == {"usage": {"request": "1"}, "cost": "1"}


_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(_CHROMIUM is None, reason="NO BROWSER LOOKED AT /prices: there is no Chromium here; install one")
@pytest.mark.usefixtures("first")
def test_a_browser_shows_the_page(shared: Server, tmp_path: Path) -> None:
    """With its own style, and without anything that its policy has to stop."""
    assert _CHROMIUM is not None
    ran = subprocess.run(
        [
            _CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            f"--user-data-dir={tmp_path}",
            "--enable-logging=stderr",
            "--dump-dom",
            shared.base + "/prices",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "<title>Prices</title>" in ran.stdout
    assert "1,000 coins per 1M input tokens" in ran.stdout
    # Whatever the policy stops, a request to elsewhere too, is said on the console.
    assert "CONSOLE" not in ran.stderr, ran.stderr
