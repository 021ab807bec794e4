"""The price table as people read it: `farebox check` prints it, the admin API shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pricing.table import Bound, Factor, ModelPrice, OperationPrice, PriceTable, Rule, Rules
from proxy.choice import OperationConfig, operations_of
from proxy.config import Config, ModelConfig
from proxy.jsonapi import timestamp

__all__ = ["model_object", "price_list", "prices_object", "rules_object"]


def _rules(rules: Rules) -> dict[str, Any]:
    return {
        meter: chosen[0].price.text if len(chosen) == 1 and not chosen[0].steps else list(map(_rule, chosen))
        for meter, chosen in rules.items()
    }


def _rule(rule: Rule) -> dict[str, Any]:
    shown: dict[str, Any] = {"when": dict(rule.when) or None, "price": rule.price.text}
    return {**shown, "beyond": {str(number): price.text for number, price in rule.steps}} if rule.steps else shown


def rules_object(
    rules: Rules, least: Bound | None, most: Bound | None, factors: Iterable[Factor] = ()
) -> dict[str, Any]:
    """Show prices as the operator wrote them: a text a meter, or the list of its rules."""
    shown = _rules(rules)
    for name, bound in (("min", least), ("max", most)):
        if bound is not None:
            shown[name] = bound.text
    for factor in factors:
        shown.setdefault("factors", []).append({"when": dict(factor.when), "multiply": factor.text})
    return shown


def model_object(model: ModelConfig, price: ModelPrice) -> dict[str, Any]:
    """Show a model to whoever may choose it."""
    return {
        "id": model.name,
        "title": model.title,
        "description": model.description,
        "class": model.klass,
        "speed": model.speed,
        "quality": model.quality,
        "max_output_tokens": model.max_output_tokens,
        "price": rules_object(price.rules, price.least, price.most, price.factors),
    }


def prices_object(table: PriceTable, known: Mapping[str, OperationConfig]) -> dict[str, Any]:
    """Show a whole table; known: operations by name, for their titles."""
    operations = operations_of(table, known)
    return {
        "models": {name: rules_object(m.rules, m.least, m.most, m.factors) for name, m in table.models.items()},
        "operations": {name: _operation(operations[name], price) for name, price in table.operations.items()},
        "surcharges": _rules(table.surcharges),
    }


def _operation(operation: OperationConfig, price: OperationPrice) -> dict[str, Any]:
    shown = {
        "title": operation.title,
        "endpoint": operation.endpoint,
        "model": operation.model,
        "class": operation.klass,
        "multiply": price.multiply_text or None,
        "per": "run" if price.per_run else None,
        "typical": [bound.text for bound in operation.typical] if operation.typical else None,
        **rules_object(price.rules, price.least, price.most),
    }
    return {member: value for member, value in shown.items() if value is not None}


def price_list(config: Config, now: int) -> str:
    """Write the table in force as text, as users will see it, and what changes later; now: microseconds."""
    credit = config.credit
    lines = [f"Prices {config.table.version}, in {credit.plural} (1 {credit.name} = ${credit.usd})", ""]
    for name, model in config.models.items():
        off = "" if model.on else f"  (off: upstream {model.upstream.name} has no api_key)"
        lines.append(f"{model.title} ({name}){off}")
        own = config.table.models[name]
        lines += _prices(rules_object(own.rules, own.least, own.most, own.factors))
        for target in model.targets:
            sold = config.table.models[target.price.model]
            if sold.model not in config.models:
                lines.append(f"{model.title} ({name}), answered by {target.name}")
                lines += _prices(rules_object(sold.rules, sold.least, sold.most, sold.factors))
            elif sold.model != name:
                lines += [f"{model.title} ({name}), answered by {target.name}: as {sold.model}", ""]
    if config.table.surcharges:
        lines += ["Surcharges, on any call"]
        lines += _prices(_rules(config.table.surcharges))
    for name, price in config.table.operations.items():
        shown = _operation(config.operations[name], price)
        lines.append(f"{shown.pop('title')} ({name})")
        lines += _prices(shown)
    for begins, said in config.schedule.changes(now, None, credit.plural):
        lines += [f"From {timestamp(begins)} on", *(f"  {each}" for each in said), ""]
    return "\n".join(lines)


def _prices(shown: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in shown.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            for rule in value:
                when = ", ".join(f"{k} {v}" for k, v in (rule["when"] or {}).items())
                if "multiply" in rule:
                    lines.append(f"  {'all prices':<22} × {rule['multiply']}  ({when})")
                    continue
                beyond = "".join(f", beyond {count}: {price}" for count, price in rule.get("beyond", {}).items())
                otherwise = "otherwise" if len(value) > 1 else ""
                lines.append(f"  {name:<22} {rule['price']}{beyond}  ({when or otherwise})".removesuffix("  ()"))
        else:
            lines.append(f"  {name:<22} {'–'.join(value) if isinstance(value, list) else value}")
    return [*lines, ""]
