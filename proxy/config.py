"""The operator's `config.yaml`: read whole or refused with file, line and fix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from ledger.rules import Rules
from pricing.document import Document, Node
from pricing.errors import ConfigError
from pricing.parsing import price_table
from pricing.table import ModelPrice, PriceTable, RateCard
from pricing.usage import Usage
from proxy.buckets import BucketConfig, parse_buckets
from proxy.choice import OperationConfig, named, operations_of, parse_operations, parse_surcharges, unreachable
from proxy.credit import Credit, parse_credit
from proxy.limits import LimitsConfig, parse_limits
from proxy.packs import CustomPack, PackConfig, packs_off_price, parse_custom_pack, parse_packs
from proxy.plans import PlanConfig, Signup, off_price, parse_plans, parse_signup, plans_by_model
from proxy.schedule import Schedule
from proxy.targets import Target, limited, parse_targets, resold
from proxy.typical import parse_typical
from proxy.upstream.config import Timeouts, UpstreamConfig, parse_upstream, parse_url

__all__ = ["BucketConfig", "Config", "ModelConfig", "Timeouts", "UpstreamConfig", "load_config", "parse_config"]

_DAY = 86_400_000_000
_PACK_AFTER_DAYS = 400
_TOP = (
    "credit",
    "database",
    "top_up_url",
    "max_body",
    "keep_answers",
    "pack_after",
    "upstreams",
    "models",
    "surcharges",
    "operations",
    "buckets",
    "plans",
    "default_plan",
    "signup",
    "packs",
    "custom_pack",
    "limits",
)
_TOP_LATER = (
    "creators",
    "passthrough",
)
_MOST_TOKENS = 10_000_000


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What callers may ask for. Token figures are per choice.

    targets: who may answer, in the order in which they are asked; never empty. max_output_tokens: the most that can
    come back of any. max_input_tokens: the providers' published limit, if known of all.
    """

    name: str
    title: str
    description: str | None
    speed: int | None
    quality: int | None
    klass: str | None
    targets: tuple[Target, ...]
    max_output_tokens: int
    hold_output_tokens: int
    min_output_tokens: int
    max_input_tokens: int | None
    part_tokens: Mapping[str, int]
    on_leave: str
    price: ModelPrice

    @property
    def on(self) -> bool:
        """Whether anybody can answer."""
        return any(target.upstream.on for target in self.targets)

    @property
    def cost(self) -> ModelPrice | None:
        """What who is named first charges the operator, in nanodollars, where that is known."""
        return self.targets[0].cost

    @property
    def upstream(self) -> UpstreamConfig:
        """Who is asked first."""
        return next((target for target in self.targets if target.upstream.on), self.targets[0]).upstream


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file, immutable; swapped whole when it changes.

    plans_with: the plans that have a model, of models that not all have. typical: what a usual call of a model uses,
    where the operator says it. rules: what the ledger is told of it. schedule: the tables that the file says, table:
    the one in force, by which operations are matched too.
    """

    file: str
    credit: Credit
    database: str
    top_up_url: str | None
    max_body: int
    keep_answers: bool
    upstreams: Mapping[str, UpstreamConfig]
    models: Mapping[str, ModelConfig]
    operations: Mapping[str, OperationConfig]
    buckets: Mapping[str, BucketConfig]
    plans: Mapping[str, PlanConfig]
    default_plan: str | None
    signup: Signup | None
    packs: Mapping[str, PackConfig]
    custom_pack: CustomPack | None
    typical: Mapping[str, Usage]
    plans_with: Mapping[str, frozenset[str | None]]
    rules: Rules
    limits: LimitsConfig
    schedule: Schedule
    table: PriceTable
    warnings: tuple[str, ...]

    def card(self, model: str, operation: str | None = None, attributes: Mapping[str, str] | None = None) -> RateCard:
        """The rate card of one kind of call."""
        return self.table.card(model, operation, attributes)

    def offers(self, model: ModelConfig) -> bool:
        """Whether a model can be called: the prices in force have one for it, and for somebody who can answer."""
        models = self.table.models
        return model.name in models and any(
            target.upstream.on and target.price.model in models for target in model.targets
        )

    def under(self, table: PriceTable) -> Config:
        """The same with another table in force."""
        if table.version == self.table.version:
            return self
        return replace(self, table=table, operations=operations_of(table, self.operations))


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
    upstreams = {name: parse_upstream(name, node) for name, node in named(top["upstreams"]).items()}
    nodes = named(top["models"])
    models = _sold({name: _model(name, node, upstreams, credit.usd, warnings) for name, node in nodes.items()}, nodes)
    surcharges = parse_surcharges(top["surcharges"], credit.usd) if "surcharges" in top else {}
    sold = {name: (model.price, *(target.price for target in model.targets)) for name, model in models.items()}
    prices = {price.model: price for each in sold.values() for price in each}
    classes = {name: model.klass for name, model in models.items()}
    operations, operation_prices = parse_operations(top.get("operations"), credit.usd, sold, classes)
    matching = {name: operation.matching() for name, operation in operations.items()}
    buckets = parse_buckets(top.get("buckets"))
    plans = parse_plans(top.get("plans"), credit.usd, buckets, classes)
    table = price_table(prices, operation_prices, surcharges, matching)
    warnings += unreachable(operations, classes)
    packs = parse_packs(top.get("packs"), buckets)
    warnings += off_price(plans, credit.usd) + packs_off_price(packs, credit.usd)
    warnings += [
        f"upstream {upstream.name} is off: its api_key is empty; its models are not offered"
        for upstream in upstreams.values()
        if not upstream.on
    ]
    return Config(
        file=file,
        credit=credit,
        database=_database(top.get("database"), environment),
        top_up_url=parse_url(top["top_up_url"], ("http", "https", "mailto")) if "top_up_url" in top else None,
        max_body=_size(top["max_body"]) if "max_body" in top else 20_000_000,
        keep_answers=top["keep_answers"].boolean() if "keep_answers" in top else True,
        upstreams=upstreams,
        models=models,
        operations=operations,
        buckets=buckets,
        plans=plans,
        default_plan=_default_plan(top["default_plan"], plans) if "default_plan" in top else None,
        signup=parse_signup(top.get("signup"), credit.usd, buckets),
        packs=packs,
        custom_pack=parse_custom_pack(top.get("custom_pack")),
        typical=parse_typical(named(top["models"]), prices, surcharges),
        plans_with=plans_by_model(plans, models),
        rules=Rules(
            order={name: rank for rank, name in enumerate(buckets)},
            lifetimes={
                name: int(bucket.expires * 1_000_000) for name, bucket in buckets.items() if bucket.expires is not None
            },
            plans={name: plan.given for name, plan in plans.items()},
            pack_after=_pack_after(top.get("pack_after")),
        ),
        limits=parse_limits(top["limits"]) if "limits" in top else LimitsConfig(),
        schedule=Schedule(((0, table),)),
        table=table,
        warnings=tuple(warnings),
    )


def _pack_after(node: Node | None) -> int | None:
    """Read when a month that is over is packed away, in microseconds."""
    if node is None:
        return _PACK_AFTER_DAYS * _DAY
    text = node.text()
    if text == "never":
        return None
    days = re.fullmatch(r"([1-9]\d{0,3})d", text, re.ASCII)
    if days is None:
        raise node.error(f"must be a number of days such as 400d, or never, not `{text[:40]}`")
    return int(days[1]) * _DAY


def _default_plan(node: Node, plans: Mapping[str, PlanConfig]) -> str:
    if not plans:
        raise node.error("there are no plans; write `plans:`, or remove it")
    return node.choice(plans)


def _database(node: Node | None, environment: Mapping[str, str]) -> str:
    chosen = environment.get("FAREBOX_DATABASE_URL")
    url = chosen or (node.text() if node else "sqlite:///farebox.db")
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        return url
    if url.startswith(("postgresql://", "postgres://")):
        return url
    problem = "must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
    raise ConfigError("FAREBOX_DATABASE_URL", 1, problem) if node is None or chosen else node.error(problem)


def _size(node: Node) -> int:
    match = re.fullmatch(r"(\d{1,9})\s*(|k|M)B?", node.text(), re.ASCII)
    if match is None or not int(match[1]):
        raise node.error("must be a size such as 20MB, 500kB or a number of bytes")
    return int(match[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[match[2]]


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
        "cost",
        "typical",
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
    written = fields["max_output_tokens"].integer(1, _MOST_TOKENS) if "max_output_tokens" in fields else None
    price, targets = parse_targets(name, fields, upstreams, usd, warnings)
    targets = limited(targets, written, name, warnings)
    most = max(target.max_output_tokens for target in targets)
    longest = [target.published.max_input_tokens for target in targets]
    least = min(1024 if any(target.published.reasons for target in targets) else 16, most)
    return ModelConfig(
        name=name,
        title=fields["title"].text() if "title" in fields else name,
        description=fields["description"].text() if "description" in fields else None,
        speed=fields["speed"].integer(1, 5) if "speed" in fields else None,
        quality=fields["quality"].integer(1, 5) if "quality" in fields else None,
        klass=fields["class"].text() if "class" in fields else None,
        targets=targets,
        max_output_tokens=most,
        hold_output_tokens=fields["hold_output_tokens"].integer(1, most) if "hold_output_tokens" in fields else most,
        min_output_tokens=fields["min_output_tokens"].integer(1, most) if "min_output_tokens" in fields else least,
        max_input_tokens=None if None in longest else max(filter(None, longest)),
        part_tokens=_part_tokens(fields.get("part_tokens")),
        on_leave=(
            fields["on_leave"].choice(("cancel", "finish"))
            if "on_leave" in fields
            else "finish"
            if any(target.published.hides_reasoning for target in targets)
            else "cancel"
        ),
        price=price,
    )


def _sold(models: Mapping[str, ModelConfig], nodes: Mapping[str, Node]) -> dict[str, ModelConfig]:
    """Price every target, which takes all models; raises ConfigError."""
    firsts = {name: model.targets[0] for name, model in models.items()}
    return {
        name: replace(model, targets=resold(model.targets, firsts, nodes[name].members()["upstream"]))
        for name, model in models.items()
    }


def _part_tokens(node: Node | None) -> dict[str, int]:
    tokens = {"image": 1600, "file": 20000, "audio_second": 50}
    if node:
        tokens |= {name: child.integer(0, _MOST_TOKENS) for name, child in node.fields(tokens).items()}
    return tokens
