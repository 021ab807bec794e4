"""`plans:`, `default_plan:` and `signup:` of the config: what an account is given, and which models it may call."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from ledger.calendar import EVERY
from ledger.rules import Allowance, Plan
from pricing.amounts import MAX_CREDITS, NANO, format_credits, parse_credits
from pricing.document import Node
from pricing.errors import InvalidAmount
from proxy.choice import named, title_of
from proxy.errors import ApiError

__all__ = ["PlanConfig", "Signup", "not_in_plan", "off_price", "parse_plans", "parse_signup", "plans_by_model"]

_MOST_ALLOWANCES = 16
_PLAN = ("title", "price", "allowances", "models", "renews", "overdraft_limit")
_ALLOWANCE = re.compile(rf"(\$?)(\d{{1,19}}(?:\.\d{{1,9}})?)\s*/\s*({'|'.join(EVERY)})", re.ASCII)
_PRICE = re.compile(r"\$(\d{1,9}(?:\.\d{1,2})?)\s*/\s*(month|year)", re.ASCII)
_A_YEAR = {"day": Decimal("365.2425"), "week": Decimal("52.1775"), "month": Decimal(12), "year": Decimal(1)}


@dataclass(frozen=True, slots=True)
class PlanConfig:
    """A plan as users choose it. price: as written, and dollars a year; models: names, None for all."""

    name: str
    title: str
    price: str | None
    dollars_a_year: Decimal
    models: frozenset[str] | None
    given: Plan

    def has(self, model: str) -> bool:
        """Whether its accounts may call a model."""
        return self.models is None or model in self.models


@dataclass(frozen=True, slots=True)
class Signup:
    """What a new user's account is given once; nanocredits."""

    bucket: str
    amount: int


def parse_plans(
    node: Node | None, usd: Decimal, buckets: Iterable[str], classes: Mapping[str, str | None]
) -> dict[str, PlanConfig]:
    """Read `plans:`; classes: by model. Raises ConfigError."""
    return {
        name: _plan(name, child, usd, list(buckets), classes) for name, child in (named(node) if node else {}).items()
    }


def _plan(name: str, node: Node, usd: Decimal, buckets: list[str], classes: Mapping[str, str | None]) -> PlanConfig:
    fields = {} if node.is_null else node.fields(_PLAN)
    price, dollars = None, Decimal(0)
    if "price" in fields:
        match = _PRICE.fullmatch(fields["price"].text())
        if match is None:
            raise fields["price"].error("must be dollars by the month or year, such as $20/month")
        price, dollars = fields["price"].text(), Decimal(match[1]) * _A_YEAR[match[2]]
    calendar = "renews" in fields and fields["renews"].choice(("anniversary", "calendar")) == "calendar"
    allowances: list[Allowance] = []
    given = fields["allowances"].members() if "allowances" in fields else {}
    if len(given) > _MOST_ALLOWANCES:
        raise fields["allowances"].error(f"a plan has {_MOST_ALLOWANCES} allowances at most")
    for bucket, child in given.items():
        if bucket not in buckets:
            raise child.key_error(f"there is no bucket `{bucket[:40]}`; known: {', '.join(buckets)}")
        amount, every = _allowance(child, usd)
        allowances.append(Allowance(bucket, amount, every, calendar))
    overdraft = 0
    if "overdraft_limit" in fields:
        try:
            overdraft = parse_credits(fields["overdraft_limit"].text(), zero=True)
        except InvalidAmount as error:
            raise fields["overdraft_limit"].error(str(error)) from None
    return PlanConfig(
        name=name,
        title=fields["title"].text() if "title" in fields else title_of(name),
        price=price,
        dollars_a_year=dollars,
        models=_models(fields["models"], classes) if "models" in fields else None,
        given=Plan(name, tuple(allowances), overdraft, paid=dollars > 0),
    )


def _allowance(node: Node, usd: Decimal) -> tuple[int, str]:
    """Read such as `50/day` or `$5/month`; returns nanocredits and the period."""
    text = node.text()
    match = _ALLOWANCE.fullmatch(text)
    if match is None:
        raise node.error(
            f"must be credits by the {', '.join(EVERY[:-1])} or {EVERY[-1]}, such as 50/day, not `{text[:40]}`"
        )
    amount = Decimal(match[2]) * NANO / (usd if match[1] else 1)
    if amount != amount.to_integral_value():
        raise node.error("comes to more than 9 decimals of a credit; write it in credits")
    if not 0 < amount <= MAX_CREDITS * NANO:
        raise node.error(f"must be more than 0 and at most {MAX_CREDITS} credits")
    return int(amount), match[3]


def _models(node: Node, classes: Mapping[str, str | None]) -> frozenset[str]:
    """Read a list of models and classes, as the models that it comes to."""
    chosen: set[str] = set()
    for item in node.items():
        text = item.text()
        found = {model for model, klass in classes.items() if text in (model, klass)}
        if not found:
            known = ", ".join([*classes, *sorted({klass for klass in classes.values() if klass})])
            raise item.error(f"`{text[:40]}` is no model and no class; known: {known}")
        chosen |= found
    if not chosen:
        raise node.error("is empty; name models or classes, or remove it for all models")
    return frozenset(chosen)


def parse_signup(node: Node | None, usd: Decimal, buckets: Iterable[str]) -> Signup | None:
    """Read `signup:`; raises ConfigError."""
    if node is None:
        return None
    fields = node.fields(("bucket", "credits"))
    for name in ("bucket", "credits"):
        if name not in fields:
            raise node.error(f"`{name}:` is missing; write e.g. {{bucket: free, credits: 25}}")
    try:
        amount = parse_credits(fields["credits"].text())
    except InvalidAmount as error:
        raise fields["credits"].error(str(error)) from None
    return Signup(fields["bucket"].choice(buckets), amount)


def plans_by_model(plans: Mapping[str, PlanConfig], models: Iterable[str]) -> dict[str, frozenset[str | None]]:
    """The plans that have each model, as far as any plan leaves it out; who has no plan is left nothing out."""
    return {
        model: frozenset([None, *(name for name, plan in plans.items() if plan.has(model))])
        for model in models
        if not all(plan.has(model) for plan in plans.values())
    }


def not_in_plan(model: str, plan: str | None, plans: Mapping[str, PlanConfig]) -> ApiError:
    """Say that an account's plan does not have a model, and which plan does."""
    having = [other for other in plans.values() if other.has(model)]
    mine = plans[plan].title if plan is not None and plan in plans else plan
    known = f"the plan {having[0].title} has it" if having else "no plan has it"
    return ApiError(
        403,
        "model_not_in_plan",
        f"The model `{model}` is not in your plan {mine}; {known}",
        param="model",
        extra={"plan": plan, "plans": [other.name for other in having]},
    )


def off_price(plans: Mapping[str, PlanConfig], usd: Decimal) -> list[str]:
    """Say which plans sell credits for something else than what a credit sells for.

    What a plan's longest period gives counts; what it adds by the day is thrown in.
    """
    said = []
    for plan in plans.values():
        longest = min((_A_YEAR[allowance.every] for allowance in plan.given.allowances), default=None)
        if longest is None or not plan.dollars_a_year:
            continue
        every = next(every for every, times in _A_YEAR.items() if times == longest)
        given = sum(a.amount for a in plan.given.allowances if _A_YEAR[a.every] == longest)
        a_year = Decimal(given) * longest / NANO
        if a_year * usd != plan.dollars_a_year:
            each = plan.dollars_a_year / a_year
            said.append(
                f"plan {plan.name}: its credits come to ${each:.6f} each, and a credit sells for ${usd:f};"
                f" {plan.price} would buy {format_credits(int(plan.dollars_a_year / usd / longest * NANO))} a {every}"
            )
    return said
