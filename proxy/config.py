"""The operator's `config.yaml`: read whole or refused with file, line and fix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

from pricing.document import Document, Node
from pricing.errors import ConfigError
from pricing.meters import INPUT
from pricing.parsing import parse_model_price, price_table
from pricing.table import ModelPrice, PriceTable, RateCard
from proxy.choice import OperationConfig, named, parse_operations, parse_surcharges, title_of, unreachable
from proxy.credit import Credit, parse_credit
from proxy.limits import LimitsConfig, parse_limits
from proxy.published import PublishedModel, published_model

__all__ = ["BucketConfig", "Config", "ModelConfig", "Timeouts", "UpstreamConfig", "load_config", "parse_config"]

_TOP = (
    "credit",
    "database",
    "top_up_url",
    "max_body",
    "upstreams",
    "models",
    "surcharges",
    "operations",
    "buckets",
    "limits",
)
_TOP_LATER = (
    "plans",
    "default_plan",
    "signup",
    "packs",
    "custom_pack",
    "creators",
    "passthrough",
)
_MOST_TOKENS = 10_000_000
_FALLBACK_OUTPUT = 16384
_DEFAULT_BUCKETS = ("daily", "subscription", "free", "bonus", "paid")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an upstream may take, in seconds."""

    connect: float = 5.0
    first_byte: float = 600.0
    between_bytes: float = 120.0
    total: float = 900.0


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """Who answers. on: whether it has what it needs; a model on an upstream that is off is not offered."""

    name: str
    kind: str
    base_url: str = ""
    api_key: str = field(default="", repr=False)
    output_limit: str = "max_completion_tokens"
    timeouts: Timeouts = Timeouts()
    forward_headers: tuple[str, ...] = ()
    on: bool = True


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What callers may ask for. Token figures are per choice.

    max_output_tokens: the most that can come back; enforce: whether the upstream must be told so.
    max_input_tokens: the provider's published limit, if known.
    """

    name: str
    title: str
    description: str | None
    speed: int | None
    quality: int | None
    klass: str | None
    upstream: UpstreamConfig
    upstream_model: str
    max_output_tokens: int
    enforce: bool
    hold_output_tokens: int
    min_output_tokens: int
    max_input_tokens: int | None
    part_tokens: Mapping[str, int]
    on_leave: str
    price: ModelPrice


@dataclass(frozen=True, slots=True)
class BucketConfig:
    """A kind of grant; they burn in the order of the file. expires: default lifetime of grants into it, in seconds."""

    name: str
    title: str
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file, immutable; swapped whole when it changes."""

    file: str
    credit: Credit
    database: str
    top_up_url: str | None
    max_body: int
    upstreams: Mapping[str, UpstreamConfig]
    models: Mapping[str, ModelConfig]
    operations: Mapping[str, OperationConfig]
    buckets: Mapping[str, BucketConfig]
    limits: LimitsConfig
    table: PriceTable
    warnings: tuple[str, ...]

    def card(self, model: str, operation: str | None = None, attributes: Mapping[str, str] | None = None) -> RateCard:
        """The rate card of one kind of call."""
        return self.table.card(model, operation, attributes)


def load_config(path: Path, environment: Mapping[str, str]) -> Config:
    """Read a config file; raises ConfigError with file, line and fix."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(str(path), 1, "no such file; name one with --config, or run `farebox demo`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), 1, f"cannot be read as UTF-8 text: {error}") from None
    return parse_config(text, str(path), environment)


def parse_config(text: str, file: str, environment: Mapping[str, str]) -> Config:
    """Read the text of a config file; raises ConfigError."""
    root = Document(file, text, environment).root()
    top = root.fields(_TOP, _TOP_LATER)
    for name in ("upstreams", "models"):
        if name not in top:
            raise root.error(f"`{name}:` is missing; add it")
    warnings: list[str] = []
    credit = parse_credit(top["credit"]) if "credit" in top else Credit()
    upstreams = {name: _upstream(name, node) for name, node in named(top["upstreams"]).items()}
    models = {name: _model(name, node, upstreams, credit.usd, warnings) for name, node in named(top["models"]).items()}
    surcharges = parse_surcharges(top["surcharges"], credit.usd) if "surcharges" in top else {}
    prices = {name: model.price for name, model in models.items()}
    classes = {name: model.klass for name, model in models.items()}
    operations, operation_prices = parse_operations(top.get("operations"), credit.usd, prices, classes)
    matching = {name: operation.matching(classes) for name, operation in operations.items()}
    warnings += unreachable(operations, classes)
    warnings += [
        f"upstream {upstream.name} is off: its api_key is empty; its models are not offered"
        for upstream in upstreams.values()
        if not upstream.on
    ]
    return Config(
        file=file,
        credit=credit,
        database=_database(top.get("database"), environment),
        top_up_url=_url(top["top_up_url"], ("http", "https", "mailto")) if "top_up_url" in top else None,
        max_body=_size(top["max_body"]) if "max_body" in top else 20_000_000,
        upstreams=upstreams,
        models=models,
        operations=operations,
        buckets=_buckets(top.get("buckets")),
        limits=parse_limits(top["limits"]) if "limits" in top else LimitsConfig(),
        table=price_table(prices, operation_prices, surcharges, matching),
        warnings=tuple(warnings),
    )


def _database(node: Node | None, environment: Mapping[str, str]) -> str:
    chosen = environment.get("FAREBOX_DATABASE_URL")
    url = chosen or (node.text() if node else "sqlite:///farebox.db")
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        return url
    problem = "must be sqlite:///FILE"
    if url.startswith("postgres"):
        problem = "PostgreSQL is not supported by this release; use sqlite:///FILE"
    raise ConfigError("FAREBOX_DATABASE_URL", 1, problem) if node is None or chosen else node.error(problem)


def _url(node: Node, schemes: tuple[str, ...]) -> str:
    url = node.text()
    try:
        parts = urlsplit(url)
        good = parts.scheme in schemes and bool(parts.hostname or parts.scheme == "mailto") and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or re.search(r"\s", url):
        raise node.error(f"must be a URL beginning with {' or '.join(s + ':' for s in schemes)}, not `{url[:60]}`")
    return url


def _size(node: Node) -> int:
    match = re.fullmatch(r"(\d{1,9})\s*(|k|M)B?", node.text(), re.ASCII)
    if match is None or not int(match[1]):
        raise node.error("must be a size such as 20MB, 500kB or a number of bytes")
    return int(match[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[match[2]]


def _upstream(name: str, node: Node) -> UpstreamConfig:
    kind_node = node.members().get("kind")
    if kind_node is None:
        raise node.error("`kind:` is missing; write `kind: openai` or `kind: demo`")
    if kind_node.text() == "litellm":
        raise kind_node.error("`litellm` is not supported by this release; use `kind: openai`")
    kind = kind_node.choice(("openai", "demo"))
    if kind == "demo":
        node.fields(("kind",))
        return UpstreamConfig(name, kind, output_limit="max_completion_tokens")
    fields = node.fields(("kind", "base_url", "api_key", "output_limit", "timeouts", "forward_headers"))
    if "base_url" not in fields:
        raise node.error('`base_url:` is missing; add e.g. base_url: "https://api.openai.com/v1"')
    base_url = _url(fields["base_url"], ("http", "https")).rstrip("/")
    if "?" in base_url or "#" in base_url:
        raise fields["base_url"].error("must end with the path, without `?` or `#`: endpoints are appended to it")
    api_key = fields["api_key"].text(empty=True) if "api_key" in fields else ""
    if re.search(r"[^\x21-\x7e]", api_key):
        raise fields["api_key"].error("contains spaces or characters that no header can carry; check what was pasted")
    host = urlsplit(base_url).hostname or ""
    native = host == "api.openai.com" or host.endswith(".openai.azure.com")
    return UpstreamConfig(
        name=name,
        kind=kind,
        base_url=base_url,
        api_key=api_key,
        output_limit=(
            fields["output_limit"].choice(("max_tokens", "max_completion_tokens"))
            if "output_limit" in fields
            else "max_completion_tokens"
            if native
            else "max_tokens"
        ),
        timeouts=_timeouts(fields["timeouts"]) if "timeouts" in fields else Timeouts(),
        forward_headers=_headers(fields["forward_headers"]) if "forward_headers" in fields else (),
        # Without `api_key` there is nothing to send, as with a local model; written and empty switches off.
        on="api_key" not in fields or bool(api_key),
    )


def _timeouts(node: Node) -> Timeouts:
    fields = node.fields(("connect", "first_byte", "between_bytes", "total"))
    return Timeouts(**{name: child.seconds() for name, child in fields.items()})


def _headers(node: Node) -> tuple[str, ...]:
    names = []
    for item in node.items():
        name = item.text().lower()
        if not re.fullmatch(r"[a-z0-9!#$%&'*+.^_`|~-]+", name):
            raise item.error(f"`{name[:40]}` is no header name; write one such as `x-request-source`")
        if name in (
            "authorization",
            "cookie",
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "x-api-key",
        ):
            raise item.error(f"`{name}` is never forwarded; remove it")
        if name.startswith("x-farebox-"):
            raise item.error("x-farebox-* headers are never forwarded; remove it")
        names.append(name)
    return tuple(names)


def _model(
    name: str, node: Node, upstreams: Mapping[str, UpstreamConfig], usd: Decimal, warnings: list[str]
) -> ModelConfig:
    known = (
        "title",
        "description",
        "speed",
        "quality",
        "class",
        "upstream",
        "max_output_tokens",
        "hold_output_tokens",
        "min_output_tokens",
        "part_tokens",
        "on_leave",
        "price",
    )
    fields = node.fields(known)
    for key in ("upstream", "price"):
        if key not in fields:
            raise node.error(
                f"`{key}:` is missing; "
                + (
                    "nobody would answer; add `upstream: <upstream>/<its model name>`"
                    if key == "upstream"
                    else "a reachable model needs a price; add one, such as `price: {request: 1}`"
                )
            )
    upstream, upstream_model = _target(fields["upstream"], upstreams)
    published = published_model(upstream_model) if upstream.kind == "openai" else PublishedModel()
    price = parse_model_price(fields["price"], name, usd)
    sells_tokens = INPUT in price.rules
    if "max_output_tokens" in fields:
        most, enforce = fields["max_output_tokens"].integer(1, _MOST_TOKENS), True
    elif published.max_output_tokens:
        most, enforce = published.max_output_tokens, False
    else:
        most, enforce = _FALLBACK_OUTPUT, sells_tokens
        if sells_tokens and upstream.kind != "demo":
            warnings.append(
                f"model {name}: the output limit of {upstream_model} is not known; {_FALLBACK_OUTPUT} is enforced."
                " Set max_output_tokens"
            )
    least = min(1024 if published.reasons else 16, most)
    return ModelConfig(
        name=name,
        title=fields["title"].text() if "title" in fields else name,
        description=fields["description"].text() if "description" in fields else None,
        speed=fields["speed"].integer(1, 5) if "speed" in fields else None,
        quality=fields["quality"].integer(1, 5) if "quality" in fields else None,
        klass=fields["class"].text() if "class" in fields else None,
        upstream=upstream,
        upstream_model=upstream_model,
        max_output_tokens=most,
        enforce=enforce,
        hold_output_tokens=fields["hold_output_tokens"].integer(1, most) if "hold_output_tokens" in fields else most,
        min_output_tokens=fields["min_output_tokens"].integer(1, most) if "min_output_tokens" in fields else least,
        max_input_tokens=published.max_input_tokens,
        part_tokens=_part_tokens(fields.get("part_tokens")),
        on_leave=(
            fields["on_leave"].choice(("cancel", "finish"))
            if "on_leave" in fields
            else "finish"
            if published.hides_reasoning
            else "cancel"
        ),
        price=price,
    )


def _target(node: Node, upstreams: Mapping[str, UpstreamConfig]) -> tuple[UpstreamConfig, str]:
    if node.is_list:
        raise node.error("fallbacks are not supported by this release; name one `<upstream>/<model>`")
    text = node.text()
    name, slash, model = text.partition("/")
    if not slash or not model:
        raise node.error(f"must be `<upstream>/<its model name>`, not `{text[:60]}`")
    if name not in upstreams:
        raise node.error(f"there is no upstream `{name[:40]}`; known: {', '.join(upstreams)}")
    return upstreams[name], model


def _part_tokens(node: Node | None) -> dict[str, int]:
    tokens = {"image": 1600, "file": 20000, "audio_second": 50}
    if node:
        tokens |= {name: child.integer(0, _MOST_TOKENS) for name, child in node.fields(tokens).items()}
    return tokens


def _buckets(node: Node | None) -> dict[str, BucketConfig]:
    if node is None:
        return {name: BucketConfig(name, name.capitalize()) for name in _DEFAULT_BUCKETS}
    buckets = {}
    for name, child in named(node).items():
        fields = {} if child.is_null else child.fields(("title", "expires"))
        expires = None
        if "expires" in fields:
            match = re.fullmatch(r"(\d{1,5})([dhy])", fields["expires"].text(), re.ASCII)
            if match is None or not int(match[1]):
                raise fields["expires"].error("must be a lifetime such as 90d, 12h or 1y")
            expires = int(match[1]) * {"h": 3600.0, "d": 86400.0, "y": 365 * 86400.0}[match[2]]
        title = fields["title"].text() if "title" in fields else title_of(name)
        buckets[name] = BucketConfig(name, title, expires)
    return buckets
