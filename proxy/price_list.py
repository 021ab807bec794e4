"""The price table as people read it: `farebox check` prints it, the admin API shows it."""

from __future__ import annotations

from typing import Any

from pricing.table import Bound, OperationPrice, Rule, Rules
from proxy.config import Config

__all__ = ["price_list", "prices_object", "rules_object"]


def _rules(rules: Rules) -> dict[str, Any]:
    return {
        meter: chosen[0].price.text if len(chosen) == 1 and not chosen[0].steps else list(map(_rule, chosen))
        for meter, chosen in rules.items()
    }


def _rule(rule: Rule) -> dict[str, Any]:
    shown: dict[str, Any] = {"when": dict(rule.when) or None, "price": rule.price.text}
    return {**shown, "beyond": {str(number): price.text for number, price in rule.steps}} if rule.steps else shown


def rules_object(rules: Rules, least: Bound | None, most: Bound | None) -> dict[str, Any]:
    """Show prices as the operator wrote them: a text a meter, or the list of its rules."""
    shown = _rules(rules)
    for name, bound in (("min", least), ("max", most)):
        if bound is not None:
            shown[name] = bound.text
    return shown


def prices_object(config: Config) -> dict[str, Any]:
    """Show the whole table."""
    return {
        "models": {name: rules_object(m.rules, m.least, m.most) for name, m in config.table.models.items()},
        "operations": {name: _operation(config, name, price) for name, price in config.table.operations.items()},
        "surcharges": _rules(config.table.surcharges),
    }


def _operation(config: Config, name: str, price: OperationPrice) -> dict[str, Any]:
    operation = config.operations[name]
    shown = {
        "title": operation.title,
        "endpoint": operation.endpoint,
        "model": operation.model,
        "class": operation.klass,
        "multiply": price.multiply_text or None,
        "per": "run" if price.per_run else None,
        "typical": list(operation.typical) if operation.typical else None,
        **rules_object(price.rules, price.least, price.most),
    }
    return {member: value for member, value in shown.items() if value is not None}


def price_list(config: Config) -> str:
    """Write the table as text, as users will see it."""
    credit = config.credit
    lines = [f"Prices {config.table.version}, in {credit.plural} (1 {credit.name} = ${credit.usd})", ""]
    for name, model in config.models.items():
        off = "" if model.on else f"  (off: upstream {model.upstream.name} has no api_key)"
        lines.append(f"{model.title} ({name}){off}")
        lines += _prices(rules_object(model.price.rules, model.price.least, model.price.most))
        for target in model.targets:
            if target.price.model not in (name, *config.models):
                lines.append(f"{model.title} ({name}), answered by {target.name}")
                lines += _prices(rules_object(target.price.rules, target.price.least, target.price.most))
            elif target.price.model != name:
                lines += [f"{model.title} ({name}), answered by {target.name}: as {target.price.model}", ""]
    if config.table.surcharges:
        lines += ["Surcharges, on any call"]
        lines += _prices(_rules(config.table.surcharges))
    for name, price in config.table.operations.items():
        shown = _operation(config, name, price)
        lines.append(f"{shown.pop('title')} ({name})")
        lines += _prices(shown)
    return "\n".join(lines)


def _prices(shown: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in shown.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            for rule in value:
                when = ", ".join(f"{k} {v}" for k, v in (rule["when"] or {}).items())
                beyond = "".join(f", beyond {count}: {price}" for count, price in rule.get("beyond", {}).items())
                otherwise = "otherwise" if len(value) > 1 else ""
                lines.append(f"  {name:<22} {rule['price']}{beyond}  ({when or otherwise})".removesuffix("  ()"))
        else:
            lines.append(f"  {name:<22} {'–'.join(value) if isinstance(value, list) else value}")
    return [*lines, ""]
