"""The operator's `config.yaml`: read whole or refused with file, line and fix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ledger.rules import Rules
from pricing.document import Document, Node
from pricing.errors import ConfigError
from pricing.table import PriceTable, RateCard
from pricing.usage import Usage
from proxy.buckets import BucketConfig, parse_buckets
from proxy.choice import OperationConfig, named, operations_of, unreachable
from proxy.credit import Credit, parse_credit
from proxy.limits import LimitsConfig, parse_limits
from proxy.models import ModelConfig
from proxy.packs import CustomPack, PackConfig, packs_off_price, parse_custom_pack, parse_packs
from proxy.plans import PlanConfig, Signup, off_price, parse_plans, parse_signup, plans_by_model
from proxy.schedule import Schedule
from proxy.sold import Sold, parse_sold
from proxy.targets import Remarks
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
    "price_changes",
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
    sold: Mapping[str, Sold]
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
        own = self.sold.get(table.version)
        if own is None:
            return replace(self, table=table, operations=operations_of(table, self.operations))
        return replace(self, table=table, operations=own.operations, models=own.models)


def load_config(path: Path, environment: Mapping[str, str]) -> Config:
    """Read a config file; raises ConfigError with file, line and fix."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(str(path), 1, "no such file; name one with --config, or run `farebox demo`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), 1, f"cannot be read as UTF-8 text: {error}") from None
    return parse_config(text, str(path), environment)


def parse_config(text: str, file: str, environment: Mapping[str, str], *, strict: bool = True) -> Config:
    """Read the text of a config file; raises ConfigError.

    strict: refuse prices that are probably slips, and that nobody says are meant; else they are warned of.
    """
    root = Document(file, text, environment).root()
    top = root.fields(_TOP, _TOP_LATER)
    for name in ("upstreams", "models"):
        if name not in top:
            raise root.error(f"`{name}:` is missing; add it")
    warnings: list[str] = []
    credit = parse_credit(top["credit"]) if "credit" in top else Credit()
    upstreams = {name: parse_upstream(name, node) for name, node in named(top["upstreams"]).items()}
    remarks = Remarks(warnings, [])
    sold = parse_sold(top, upstreams, credit.usd, remarks)
    first = sold[0][1]
    models, operations = first.models, first.operations
    if strict and remarks.doubts:
        raise remarks.doubts[0]
    warnings += [error.problem for error in remarks.doubts]
    classes = {name: model.klass for name, model in models.items()}
    buckets = parse_buckets(top.get("buckets"))
    plans = parse_plans(top.get("plans"), credit.usd, buckets, classes)
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
        typical=parse_typical(named(top["models"]), first.prices, first.surcharges),
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
        schedule=Schedule(tuple((begins, each.table) for begins, each in sold)),
        sold={each.table.version: each for _, each in sold},
        table=first.table,
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
