"""What the operator's file means where it is silent, and how it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from pricing.errors import ConfigError
from proxy.config import Config, ModelConfig, UpstreamConfig, load_config, parse_config

SHIPPED = Path(__file__).parents[2] / "config.yaml"
PRICE = "price: {input_tokens: 400 / 1M, output_tokens: 1600 / 1M}"


def read(text: str, environment: Mapping[str, str] | None = None) -> Config:
    return parse_config(text, "config.yaml", environment or {})


def config(top: str = "", *, upstream: str = "kind: demo", model: str = "", price: str = PRICE, name: str = "m",
           environment: Mapping[str, str] | None = None) -> Config:  # fmt: skip
    own = f"{model}, " if model else ""
    lines = [top, "upstreams:", f"  up: {{{upstream}}}", "models:", f"  fast: {{{own}upstream: up/{name}, {price}}}"]
    return read("\n".join(line for line in lines if line) + "\n", environment)


OPENAI = 'kind: openai, base_url: "https://api.openai.com/v1"'


def up(upstream: str, environment: Mapping[str, str] | None = None) -> UpstreamConfig:
    return config(upstream=upstream, environment=environment).upstreams["up"]


def fast(model: str = "", *, upstream: str = OPENAI, name: str = "unheard-of", price: str = PRICE) -> ModelConfig:
    return config(upstream=upstream, model=model, name=name, price=price).models["fast"]


def refusal(text: str, environment: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, environment)
    return str(caught.value)


def test_shipped() -> None:
    """The shipped file loads with an empty environment: the demo model is offered, OpenAI's are off and said to be."""
    shipped = load_config(SHIPPED, {})
    assert shipped.models["demo"].upstream.on
    assert not shipped.models["fast"].upstream.on
    assert [warning for warning in shipped.warnings if "openai" in warning and "off" in warning]
    assert list(shipped.buckets) == ["daily", "subscription", "free", "bonus", "paid"]
    assert shipped.buckets["bonus"].expires == 90 * 86400
    assert shipped.database == "sqlite:///farebox.db"
    switched_on = load_config(SHIPPED, {"OPENAI_API_KEY": "sk-1"})
    assert switched_on.models["fast"].upstream.on
    assert switched_on.warnings == ()
    assert switched_on.table.version == shipped.table.version


def test_top_level_defaults() -> None:
    """Only upstreams and models are required; everything else has the default of the documentation."""
    plain = config()
    assert (plain.credit.name, plain.credit.plural, plain.credit.usd, plain.credit.show) == (
        "credit",
        "credits",
        Decimal("0.01"),
        "credits",
    )
    assert plain.database == "sqlite:///farebox.db"
    assert plain.top_up_url is None
    assert plain.max_body == 20_000_000
    assert list(plain.buckets) == ["daily", "subscription", "free", "bonus", "paid"]
    assert all(bucket.expires is None for bucket in plain.buckets.values())


def test_upstream_defaults() -> None:
    """An upstream waits 5 s to connect, 600 s for a first byte, 120 s between bytes and 900 s in all."""
    upstream = up(OPENAI)
    times = upstream.timeouts
    assert (times.connect, times.first_byte, times.between_bytes, times.total) == (5.0, 600.0, 120.0, 900.0)
    assert upstream.forward_headers == ()
    assert upstream.on
    partly = up(OPENAI + ", timeouts: {connect: 250ms, total: 1h}").timeouts
    assert (partly.connect, partly.first_byte, partly.between_bytes, partly.total) == (0.25, 600.0, 120.0, 3600.0)


@pytest.mark.parametrize(
    ("base_url", "limit"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://acme.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("http://127.0.0.1:11434/v1", "max_tokens"),
        ("https://openrouter.ai/api/v1", "max_tokens"),
        ("https://api.openai.com.example.org/v1", "max_tokens"),
        ("https://example.org/api.openai.com", "max_tokens"),
    ],
)
def test_output_limit_by_host(base_url: str, limit: str) -> None:
    """OpenAI and Azure are told the limit as `max_completion_tokens`, everybody else as `max_tokens`."""
    assert up(f'kind: openai, base_url: "{base_url}"').output_limit == limit
    assert up(f'kind: openai, base_url: "{base_url}", output_limit: max_tokens').output_limit == "max_tokens"


def test_api_key() -> None:
    """An empty api_key switches an upstream off; none at all means that none is needed."""
    assert up(OPENAI + ', api_key: "${KEY}"', {"KEY": "sk-1"}).api_key == "sk-1"
    assert up(OPENAI + ', api_key: "${KEY:-}"').on is False
    assert up(OPENAI + ', api_key: ""').on is False
    assert up(OPENAI).on is True
    assert "sk-1" not in repr(up(OPENAI + ', api_key: "sk-1"'))
    with pytest.raises(ConfigError, match="KEY"):
        up(OPENAI + ', api_key: "${KEY}"')


def test_trailing_slash() -> None:
    """A base URL may end in a slash."""
    assert up('kind: openai, base_url: "http://h/v1/"').base_url == "http://h/v1"


@pytest.mark.parametrize(
    "url",
    [
        "h/v1",
        "ftp://h/v1",
        "http://",
        "http:///v1",
        "https://h:port/v1",
        "http://h:99999/v1",
        "http://a b/v1",
        "file:///etc/passwd",
        "http://:4000/v1",
    ],
)
def test_base_url_refused(url: str) -> None:
    """A base URL names scheme and host."""
    with pytest.raises(ConfigError) as caught:
        up(f'kind: openai, base_url: "{url}"')
    assert str(caught.value).startswith("config.yaml:2: upstreams.up.base_url: ")


@pytest.mark.parametrize("url", ["https://h/v1?api-version=1", "https://h/v1#part"])
def test_base_url_with_a_tail(url: str) -> None:
    """A base URL to which no path can be added is refused."""
    with pytest.raises(ConfigError):
        up(f'kind: openai, base_url: "{url}"')


def test_forward_headers() -> None:
    """Headers to forward are names in any case; credentials and Farebox's own are never forwarded."""
    assert up(OPENAI + ", forward_headers: [X-Trace, helicone-id]").forward_headers == ("x-trace", "helicone-id")
    for name in ("Authorization", "cookie", "x-api-key", "X-Farebox-User", "a b", "content-length"):
        with pytest.raises(ConfigError):
            up(OPENAI + f", forward_headers: [{name}]")


def test_output_tokens_of_a_known_model() -> None:
    """Without a figure of the operator's the published one bounds the output, and is not sent."""
    model = fast(name="gpt-4.1-mini")
    assert (model.max_output_tokens, model.targets[0].enforce, model.hold_output_tokens) == (32768, False, 32768)
    assert model.max_input_tokens == 1_047_576
    assert config(upstream=OPENAI, name="gpt-4.1-mini").warnings == ()


def test_output_tokens_of_an_unknown_model() -> None:
    """Of a model that nobody publishes 16,384 are enforced, with a warning that names it."""
    model = fast()
    assert (model.max_output_tokens, model.targets[0].enforce, model.hold_output_tokens) == (16384, True, 16384)
    assert model.max_input_tokens is None
    assert [
        "fast" in warning and "16384" in warning for warning in config(upstream=OPENAI, name="unheard-of").warnings
    ] == [True]


def test_output_tokens_as_written() -> None:
    """The operator's figure is enforced; what is held without the caller's limit follows it or is less."""
    model = fast("max_output_tokens: 8192", name="gpt-4.1-mini")
    assert (model.max_output_tokens, model.targets[0].enforce, model.hold_output_tokens) == (8192, True, 8192)
    assert fast("max_output_tokens: 8192, hold_output_tokens: 1000").hold_output_tokens == 1000
    for member in ("hold_output_tokens: 8193", "min_output_tokens: 8193", "min_output_tokens: 0"):
        with pytest.raises(ConfigError):
            fast(f"max_output_tokens: 8192, {member}")


@pytest.mark.parametrize(
    ("name", "member", "least"),
    [
        ("gpt-4.1-mini", "", 16),
        ("unheard-of", "", 16),
        ("gpt-5", "", 1024),
        ("gpt-5", "min_output_tokens: 64", 64),
        ("gpt-5", "max_output_tokens: 500", 500),
        ("gpt-4.1-mini", "max_output_tokens: 8", 8),
    ],
)
def test_min_output_tokens(name: str, member: str, least: int) -> None:
    """A call is never shortened below 16 tokens, 1,024 where the model reasons, unless the operator says otherwise."""
    assert fast(member, name=name).min_output_tokens == least


@pytest.mark.parametrize(
    ("name", "member", "on_leave"),
    [
        ("gpt-4.1-mini", "", "cancel"),
        ("unheard-of", "", "cancel"),
        ("gpt-5", "", "finish"),
        ("deepseek/deepseek-reasoner", "", "cancel"),
        ("gpt-5", "on_leave: cancel", "cancel"),
        ("gpt-4.1-mini", "on_leave: finish", "finish"),
    ],
)
def test_on_leave(name: str, member: str, on_leave: str) -> None:
    """When a client leaves its call is cancelled, but read to the end where reasoning is billed and not shown."""
    assert fast(member, name=name).on_leave == on_leave


def test_model_defaults() -> None:
    """A model is titled by its name; what pickers show is null until written."""
    model = fast()
    assert (model.title, model.description, model.speed, model.quality, model.klass) == ("fast", None, None, None, None)
    assert model.part_tokens == {"image": 1600, "file": 20000, "audio_second": 50}
    assert fast("part_tokens: {image: 85}").part_tokens == {"image": 85, "file": 20000, "audio_second": 50}
    full = fast("title: Fast, description: Quick, speed: 5, quality: 1, class: standard")
    assert (full.title, full.description, full.speed, full.quality, full.klass) == ("Fast", "Quick", 5, 1, "standard")


def test_model_target() -> None:
    """What follows the first slash is the upstream's own name of the model, slashes and colons included."""
    assert fast(name="meta/llama-3:70b").targets[0].model == "meta/llama-3:70b"


@pytest.mark.parametrize(
    ("size", "most"), [("500", 500), ("20MB", 20_000_000), ("500kB", 500_000), ("5 M", 5_000_000), ("7k", 7_000)]
)
def test_max_body(size: str, most: int) -> None:
    """The largest body is a number of bytes, with k or M."""
    assert config(f"max_body: {size}").max_body == most


@pytest.mark.parametrize("size", ["0", "-1", "1.5MB", "20GB", "MB", "1e6", "0MB"])
def test_max_body_refused(size: str) -> None:
    """A size that is none is refused with an example."""
    with pytest.raises(ConfigError, match="20MB"):
        config(f"max_body: {size}")


def test_buckets() -> None:
    """Buckets burn in the file's order, titled by their names, and never expire unless it says when."""
    buckets = config("buckets:\n  gift_cards: {expires: 1y}\n  daily:\n  paid: {title: Bought, expires: 12h}").buckets
    assert [(b.name, b.title, b.expires) for b in buckets.values()] == [
        ("gift_cards", "Gift cards", 365 * 86400.0),
        ("daily", "Daily", None),
        ("paid", "Bought", 12 * 3600.0),
    ]
    for lifetime in ("90", "0d", "1w", "-1d", "1.5d", "never"):
        with pytest.raises(ConfigError, match="90d"):
            config(f"buckets: {{bonus: {{expires: {lifetime}}}}}")


def test_credit() -> None:
    """A credit's plural follows its name, and dollars in prices follow what it sells for."""
    named = config("credit: {name: coin, usd: 0.02, show: usd}", price="price: {request: $1}")
    assert (named.credit.plural, named.credit.usd, named.credit.show) == ("coins", Decimal("0.02"), "usd")
    price = named.card("fast").prices["request"]
    assert price.nano == 50 * 10**9 * price.per
    for wrong in ("usd: 0", "usd: -1", "usd: 1e-2", "show: euros"):
        with pytest.raises(ConfigError):
            config(f"credit: {{{wrong}}}")


def test_database_from_the_environment() -> None:
    """The environment's database comes before the file's, and the file's before the default."""
    other = {"FAREBOX_DATABASE_URL": "sqlite:///other.db"}
    assert config(environment=other).database == "sqlite:///other.db"
    assert config('database: "sqlite:///own.db"').database == "sqlite:///own.db"
    assert config('database: "sqlite:///own.db"', environment=other).database == "sqlite:///other.db"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "mysql://h/d", "farebox.db"])
def test_database_refused(url: str) -> None:
    """A database that is none is refused, in the file at its line, in the environment by its name."""
    with pytest.raises(ConfigError, match=r"config\.yaml:1: database: "):
        config(f'database: "{url}"')
    with pytest.raises(ConfigError, match="FAREBOX_DATABASE_URL"):
        config(environment={"FAREBOX_DATABASE_URL": url})


def test_top_up_url() -> None:
    """Credits are topped up at a page or by mail."""
    assert config("top_up_url: https://example.com/credits").top_up_url == "https://example.com/credits"
    assert config("top_up_url: mailto:shop@example.com").top_up_url == "mailto:shop@example.com"
    for url in ("javascript:alert(1)", "example.com", "ftp://h"):
        with pytest.raises(ConfigError):
            config(f'top_up_url: "{url}"')


def test_version_follows_prices_alone() -> None:
    """Titles and limits do not change the price table's version; prices do."""
    version = config().table.version
    assert config(model="title: Quick, max_output_tokens: 5", name="n").table.version == version
    assert config(price="price: {input_tokens: 41 / 1M, output_tokens: 160 / 1M}").table.version != version


def test_fallbacks() -> None:
    """Of who answers when others fail the price is its own, else of the model sold from there, else the model's."""
    found = read(
        "upstreams: {d: {kind: demo}, o: {kind: openai, base_url: 'http://h/v1'}}\n"
        "models:\n"
        "  a: {upstream: [d/x, {upstream: d/y, price: {request: 5}}, d/z, o/gpt-4.1-mini], price: {request: 1}}\n"
        "  z: {upstream: [d/z, d/x], price: {request: 7}}\n"
        "  y: {upstream: d/y, price: {request: 8}}\n"
    )
    targets = found.models["a"].targets
    assert [target.price.model for target in targets] == ["a", "a@d/y", "z", "a"]
    assert [target.price.model for target in found.models["z"].targets] == ["z", "a"]
    assert found.card("a@d/y").prices["request"].text == "5"
    # What a provider is known to take is the most that it is told, and what comes of any of them is held for.
    assert [target.told(None, None) for target in targets] == [None, 16384, 16384, 32768]
    assert [target.told(100_000, None) for target in targets] == [None, 16384, 16384, 32768]
    assert [target.told(None, 20_000) for target in targets] == [16384, 16384, 16384, 20_000]
    assert (found.models["a"].max_output_tokens, found.models["a"].max_input_tokens) == (32768, None)


def test_operations_hold_for_who_answers_otherwise() -> None:
    """What an operation can't be together with a price is refused for the prices of fallbacks too."""
    message = refusal(
        "upstreams: {d: {kind: demo}}\n"
        "models:\n"
        "  a: {upstream: [d/x, {upstream: d/y, price: {request: 5, max: 6}}], price: {request: 1}}\n"
        "operations:\n"
        "  o: {model: a, min: 7}\n"
    )
    assert message.startswith("config.yaml:5: operations.o: for the model `a@d/y` `min` would be 7 and `max` 6")


@pytest.mark.parametrize(
    "key",
    [
        "creators",
        "passthrough",
    ],
)
def test_later_keys(key: str) -> None:
    """Keys of later releases are refused by name, never ignored."""
    assert refusal(f"upstreams: {{d: {{kind: demo}}}}\n{key}: {{}}\nmodels: {{}}\n") == (
        f"config.yaml:2: {key}: `{key}` is not supported by this release; remove it"
    )


@pytest.mark.parametrize(
    ("lines", "line", "fix"),
    [
        (["models: {a: {}}"], 1, "`upstreams:` is missing"),
        (["upstreams: {d: {kind: demo}}"], 1, "`models:` is missing"),
        (["upstreams: {d: {kind: demo}}", "models: {}"], 2, "name at least one"),
        (["upstreams: {d: {kind: demo}}", "models:", "  a: {upstream: d/x}"], 3, "`price:` is missing"),
        (["upstreams: {d: {kind: demo}}", "models:", "  a: {price: {request: 1}}"], 3, "`upstream:` is missing"),
        (["upstreams: {d: {kind: demo}}", "models:", "  a: {upstream: e/x, price: {request: 1}}"], 3, "known: d"),
        (["upstreams: {d: {kind: demo}}", "models:", "  a: {upstream: d, price: {request: 1}}"], 3, "<upstream>/"),
        (["upstreams: {d: {kind: demo}}", "models:", "  a: {upstream: [], price: {request: 1}}"], 3, "is empty"),
        (["upstreams: {d: {kind: demo}}", "models:", "  a: {upstream: [d/x, d/x], price: {request: 1}}"], 3, "twice"),
        (
            ["upstreams: {d: {kind: demo}}", "models:", "  a: {upstream: [d/x, e/x], price: {request: 1}}"],
            3,
            "upstream[1]: there is no upstream `e`; known: d",
        ),
        (
            [
                "upstreams: {d: {kind: demo}}",
                "models:",
                "  a: {upstream: [{price: {request: 1}}], price: {request: 1}}",
            ],
            3,
            "`upstream:` is missing",
        ),
        (
            [
                "upstreams: {d: {kind: demo}}",
                "models:",
                "  a: {upstream: [d/x, {upstream: d/y, price: {}}],",
                "      price: {request: 1}}",
            ],
            3,
            "has no price",
        ),
        (
            [
                "upstreams: {d: {kind: demo}}",
                "models:",
                "  a: {upstream: [d/x, d/y], price: {request: 1}}",
                "  b: {upstream: d/y, price: {request: 2}}",
                "  c: {upstream: d/y, price: {request: 3}}",
            ],
            3,
            "`d/y` is sold as b and c, at different prices",
        ),
        (["upstreams:", "  d: {kind: demo, attributes: {}}"], 2, "names nothing"),
        (["upstreams:", "  d: {kind: demo, attributes: {quality: high}}"], 2, "unknown key `quality`"),
        (["upstreams: {d: {kind: demo}}", "models:", "  a b: {upstream: d/x, price: {request: 1}}"], 3, "is no name"),
        (["upstreams: {d: {kind: demo}}", "modles: {}"], 2, "did you mean `models`?"),
        (["upstreams:", "  d: {}"], 2, "`kind:` is missing"),
        (["upstreams:", "  d: {kind: litellm, provider: x}"], 2, "`litellm` is not supported by this release"),
        (["upstreams:", "  d: {kind: openai}"], 2, "`base_url:` is missing"),
        (["upstreams:", "  d: {kind: grpc}"], 2, "openai"),
        (["upstreams:", "  d: {kind: demo, base_url: 'http://h'}"], 2, "unknown key `base_url`"),
        (["upstreams:", "  d: {kind: openai, base_url: 'http://h', api_key: 'a b'}"], 2, "no header can carry"),
        (
            ["upstreams:", "  d: {kind: openai, base_url: 'http://h', timeouts: {conect: 5s}}"],
            2,
            "did you mean `connect`?",
        ),
        (["upstreams:", "  d: {kind: demo}", "  d: {kind: demo}"], 3, "twice (first on line 2)"),
    ],
)
def test_refused(lines: list[str], line: int, fix: str) -> None:
    """What is missing, misspelt or of a later release is refused with its line and the fix."""
    message = refusal("\n".join(lines) + ("\nmodels: {}\n" if "upstreams:" in lines else "\n"))
    assert message.startswith(f"config.yaml:{line}: ")
    assert fix in message


def test_unreadable_files(tmp_path: Path) -> None:
    """A file that is missing, a folder or no UTF-8 is refused by its name."""
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "latin.yaml"):
        with pytest.raises(ConfigError) as caught:
            load_config(path, {})
        assert str(caught.value).startswith(f"{path}:1: ")


@pytest.mark.parametrize(
    ("show", "nanocredits", "says"),
    [
        ("credits", 12_500_000_000, "12.5 credits"),
        ("credits", 10**9, "1 credit"),
        ("usd", 12_500_000_000, "$0.125"),
        ("usd", 10**12, "$10"),
        ("usd", 0, "$0"),
    ],
)
def test_amounts_for_people(show: str, nanocredits: int, says: str) -> None:
    """Messages name amounts in credits, or in dollars where the operator shows them so."""
    models = "models: {a: {upstream: d/a, price: {request: 1}}}"
    text = f"credit: {{show: {show}}}\nupstreams: {{d: {{kind: demo}}}}\n{models}"
    assert parse_config(text, "config.yaml", {}).credit.say(nanocredits) == says
