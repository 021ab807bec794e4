"""`plans:`, `default_plan:` and `signup:` as operators write them, and how they are refused."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ledger.rules import Allowance
from pricing.errors import ConfigError
from proxy.config import Config, parse_config

_NANO = 10**9
_HEAD = """credit: {usd: 0.01}
upstreams: {d: {kind: demo}}
models:
  quick: {class: standard, upstream: d/q, price: {request: 1}}
  smart: {class: advanced, upstream: d/s, price: {request: 1}}
  plain: {upstream: d/p, price: {request: 1}}
"""


def _read(more: str, head: str = _HEAD) -> Config:
    return parse_config(head + more, "config.yaml", {})


def _plan(text: str) -> str:
    return f"plans:\n  a: {{{text}}}\n"


def _sold_off_price(config: Config) -> list[str]:
    return [warning for warning in config.warnings if warning.startswith("plan ")]


def test_the_documented_plans() -> None:
    """The contract's example, member by member."""
    config = _read("""plans:
  free:    {title: Free, allowances: {daily: 50/day}, models: [standard]}
  starter: {title: Starter, price: $20/month, allowances: {daily: 20/day, subscription: 2000/month}}
  super:   {title: Super, price: $180/month, allowances: {subscription: 20000/month}, renews: anniversary,
            overdraft_limit: 100}
  yearly:  {price: $200/year, allowances: {subscription: 2000/month}}
default_plan: free
signup: {bucket: free, credits: 25}
""")
    free, starter, large, yearly = config.plans.values()
    assert (free.title, free.price, free.given.paid, free.models) == ("Free", None, False, frozenset(["quick"]))
    assert free.given.allowances == (Allowance("daily", 50 * _NANO, "day"),)
    assert starter.given.allowances == (
        Allowance("daily", 20 * _NANO, "day"),
        Allowance("subscription", 2000 * _NANO, "month"),
    )
    assert (starter.price, starter.dollars_a_year, starter.given.paid) == ("$20/month", Decimal(240), True)
    assert (starter.models, starter.given.overdraft_limit) == (None, 0)
    assert large.given.overdraft_limit == 100 * _NANO
    assert (yearly.title, yearly.dollars_a_year) == ("Yearly", Decimal(200))
    assert config.default_plan == "free"
    assert config.signup is not None
    assert (config.signup.bucket, config.signup.amount) == ("free", 25 * _NANO)
    # smart and plain are left out by `free` alone; who has no plan is left nothing out.
    assert config.plans_with == {
        "smart": {None, "starter", "super", "yearly"},
        "plain": {None, "starter", "super", "yearly"},
    }


def test_nothing_is_given_unless_written() -> None:
    """Without the keys there are no plans, no default and no gift; an empty plan gives nothing."""
    config = _read("")
    assert (config.plans, config.default_plan, config.signup) == ({}, None, None)
    empty = _read("plans: {none: {}, nil: }\n").plans
    assert [plan.given.allowances for plan in empty.values()] == [(), ()]


@pytest.mark.parametrize(
    ("written", "amount", "every"),
    [
        ("50/day", 50 * _NANO, "day"),
        ("0.5 / week", _NANO // 2, "week"),
        ("0.000000001/month", 1, "month"),
        ("1000000000/year", 10**18, "year"),
        ("$5/month", 500 * _NANO, "month"),
        ("$0.01/day", _NANO, "day"),
    ],
)
def test_allowances(written: str, amount: int, every: str) -> None:
    """In credits, or in dollars at what a credit sells for."""
    for renews, calendar in (("anniversary", False), ("calendar", True)):
        plan = _read(_plan(f"allowances: {{daily: {written}}}, renews: {renews}")).plans["a"]
        assert plan.given.allowances == (Allowance("daily", amount, every, calendar),)


def test_models_by_class_and_name() -> None:
    """Both may be named, and more than once."""
    plan = _read(_plan("models: [advanced, plain, smart]")).plans["a"]
    assert plan.models == frozenset(["smart", "plain"])
    assert (plan.has("smart"), plan.has("quick")) == (True, False)


@pytest.mark.parametrize(
    ("written", "path", "fix"),
    [
        ("titel: A", "plans.a", "did you mean `title`?"),
        ("colour: red", "plans.a", "known here: title, price, allowances, models, renews, overdraft_limit"),
        ("price: 20/month", "plans.a.price", "such as $20/month"),
        ("price: $20", "plans.a.price", "such as $20/month"),
        ("price: $20/week", "plans.a.price", "by the month or year"),
        ("price: $-20/month", "plans.a.price", "such as $20/month"),
        ("price: $20.005/month", "plans.a.price", "such as $20/month"),
        ("price: 20", "plans.a.price", "such as $20/month"),
        ("renews: monthly", "plans.a.renews", "anniversary, calendar"),
        ("overdraft_limit: -5", "plans.a.overdraft_limit", ""),
        ("overdraft_limit: lots", "plans.a.overdraft_limit", ""),
        ("overdraft_limit: 0.0000000001", "plans.a.overdraft_limit", "9 decimals"),
        ("allowances: 50/day", "plans.a.allowances", ""),
        ("allowances: {dayly: 50/day}", "plans.a.allowances", "known: daily, subscription, free, bonus, paid"),
        ("allowances: {daily: 50}", "plans.a.allowances.daily", "such as 50/day, not `50`"),
        ("allowances: {daily: 50/hour}", "plans.a.allowances.daily", "by the day, week, month or year"),
        ("allowances: {daily: -50/day}", "plans.a.allowances.daily", "such as 50/day"),
        ("allowances: {daily: 0/day}", "plans.a.allowances.daily", "more than 0"),
        ("allowances: {daily: 1000000001/day}", "plans.a.allowances.daily", "at most 1000000000 credits"),
        ("allowances: {daily: 0.0000000001/day}", "plans.a.allowances.daily", "such as 50/day"),
        ("allowances: {daily: [50/day]}", "plans.a.allowances.daily", ""),
        ("models: standard", "plans.a.models", ""),
        ("models: []", "plans.a.models", "remove it for all models"),
        ("models: [standard, pro]", "plans.a.models", "known: quick, smart, plain, advanced, standard"),
    ],
)
def test_plans_are_refused(written: str, path: str, fix: str) -> None:
    """On their line, under their key, with what to write instead."""
    with pytest.raises(ConfigError) as caught:
        _read(_plan(written))
    said = str(caught.value)
    assert said.startswith(f"config.yaml:8: {path}"), said
    assert fix in said, said


@pytest.mark.parametrize(
    ("more", "line", "fix"),
    [
        ("plans: [a]\n", 7, ""),
        ("plans:\n  a/b: {}\n", 8, "a/b"),
        ("plans:\n  a: {}\n  a: {}\n", 9, "twice"),
        ("plans:\n  a: {}\ndefault_plan: b\n", 9, "a"),
        ("default_plan: free\n", 7, ""),
        ("signup: {}\n", 7, "`bucket:` is missing"),
        ("signup: {bucket: free}\n", 7, "`credits:` is missing; write e.g. {bucket: free, credits: 25}"),
        ("signup:\n  bucket: gratis\n  credits: 25\n", 8, "daily, subscription, free, bonus, paid"),
        ("signup:\n  bucket: free\n  credits: 0\n", 9, ""),
        ("signup:\n  bucket: free\n  credits: -1\n", 9, ""),
        ("signup:\n  bucket: free\n  credits: 1000000001\n", 9, ""),
        ("signup:\n  bucket: free\n  credit: 5\n", 9, "did you mean `credits`?"),
        ("signup: 25\n", 7, ""),
    ],
)
def test_what_is_refused_elsewhere(more: str, line: int, fix: str) -> None:
    """Each on its line."""
    with pytest.raises(ConfigError) as caught:
        _read(more)
    said = str(caught.value)
    assert said.startswith(f"config.yaml:{line}: "), said
    assert fix in said, said


def test_dollars_that_do_not_divide() -> None:
    """An allowance in dollars is refused where no number of nanocredits is worth it."""
    with pytest.raises(ConfigError, match="write it in credits"):
        _read(_plan("allowances: {daily: $1/day}"), _HEAD.replace("0.01", "0.03"))


@pytest.mark.parametrize(
    "written",
    [
        "price: $20/month, allowances: {subscription: 2000/month}",
        # What comes by the day is thrown in.
        "price: $20/month, allowances: {daily: 20/day, subscription: 2000/month}",
        "price: $240/year, allowances: {subscription: 2000/month}",
        "price: $20/month, allowances: {subscription: 1500/month, free: 500/month}",
        "price: $20/month, allowances: {subscription: $20/month}",
        "allowances: {daily: 50/day}",
        "price: $0/month, allowances: {daily: 50/day}",
        "price: $20/month",
    ],
)
def test_what_is_sold_at_the_price_is_not_warned_of(written: str) -> None:
    """Nor is what is given away."""
    assert _sold_off_price(_read(_plan(written))) == []


@pytest.mark.parametrize(
    ("written", "each", "would"),
    [
        ("price: $180/month, allowances: {subscription: 20000/month}", "$0.009000", "$180/month would buy 18000"),
        ("price: $200/year, allowances: {subscription: 2000/month}", "$0.008333", "would buy 1666.666666666"),
        ("price: $40/month, allowances: {daily: 9/day, subscription: 2000/month}", "$0.020000", "would buy 4000"),
    ],
)
def test_what_is_sold_off_the_price_is_warned_of(written: str, each: str, would: str) -> None:
    """With what a credit comes to, what it sells for, and what the price would buy."""
    (said,) = _sold_off_price(_read(_plan(written)))
    assert said.startswith("plan a: "), said
    assert each in said and "$0.01" in said and would in said, said
