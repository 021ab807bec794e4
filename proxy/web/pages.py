"""Pages that anybody may read: rendered here whole, without scripts; and the files that they are drawn with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from fractions import Fraction
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from proxy.keeper import Keeper
from proxy.public_prices import Offered, offered, public_prices, published
from proxy.services import Services
from proxy.web.words import Words, quantity

__all__ = ["prices_page", "routes"]

_SAFE = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_STATIC = {"farebox.css": "text/css", "farebox.svg": "image/svg+xml"}
_KEPT = {"cache-control": "public, max-age=86400"}


def routes(services: Services, keeper: Keeper | None) -> list[Route]:
    """The pages' routes; they take no key."""
    static = {name: _static(name) for name in _STATIC}
    environment = Environment(
        loader=PackageLoader("proxy.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    # Browsers may keep what is drawn with for a day: another file has another address.
    versions = {name: hashlib.sha256(body).hexdigest()[:12] for name, body in static.items()}
    environment.globals["static"] = lambda name: f"static/{name}?v={versions[name]}"
    template = environment.get_template("prices.html")
    current = offered(
        services,
        keeper,
        lambda offer: published(template.render(prices_page(offer)).encode(), "text/html; charset=utf-8", _SAFE),
    )

    async def prices(request: Request) -> Response:
        return current().answer(request)

    return [
        Route("/prices", prices, methods=["GET"], include_in_schema=False),
        *(
            Route(f"/static/{name}", _sending(body, _STATIC[name]), methods=["GET"], include_in_schema=False)
            for name, body in static.items()
        ),
    ]


def _static(name: str) -> bytes:
    return files("proxy.web").joinpath("static", name).read_bytes()


def _sending(body: bytes, media_type: str) -> Callable[[Request], Any]:
    file = published(body, media_type, {**_SAFE, **_KEPT})

    async def send(request: Request) -> Response:
        return file.answer(request)

    return send


def prices_page(offer: Offered) -> dict[str, Any]:
    """Say what `GET /v1/prices` says in words, for the template; raises UnpricedModel."""
    config, shown = offer.config, public_prices(offer)
    table, words = config.table, Words(config.credit)
    titles = {model["id"]: model["title"] for model in shown["models"]}
    plans = {plan["id"]: plan["title"] for plan in shown["plans"]}
    for model in shown["models"]:
        price = table.models[model["id"]]
        model["prices"] = words.prices(price.rules, price.least, price.most, price.factors)
        typical = model["typical"]
        model["cost"] = None if typical["cost"] is None else words.amount(Fraction(typical["cost"]))
        model["usual"] = ", ".join(quantity(meter, text) for meter, text in typical["usage"].items())
        model["plans"] = None if len(model["plans"]) == len(plans) else [plans[name] for name in model["plans"]]
    for operation in shown["operations"]:
        low, high = (None if operation[end] is None else Fraction(operation[end]) for end in ("low", "high"))
        between = words.between(low, high)
        operation["costs"] = [between] if between else words.prices(table.operations[operation["id"]].rules)
        if not between and operation["multiply"] is not None:
            operation["costs"].insert(0, f"{operation['multiply']} × the model's price")
        operation["model"] = titles.get(operation["model"])
    for plan in shown["plans"]:
        plan["price"] = plan["price"] and plan["price"].replace("/", " a ")
        plan["allowances"] = [
            f"{words.amount(Fraction(each['credits']))} a {each['per']} ({config.buckets[each['bucket']].title})"
            for each in plan["allowances"]
        ]
        plan["models"] = None if plan["models"] is None else [titles[name] for name in plan["models"]]
        below = Fraction(plan["overdraft_limit"])
        plan["below"] = words.amount(below) if below else None
    for pack in shown["packs"]:
        pack["holds"] = words.amount(Fraction(pack["credits"]))
        pack["more"] = None if pack["bonus"] is None else words.amount(Fraction(pack["bonus"]))
    return {
        **shown,
        "surcharges": words.prices(table.surcharges),
        "one_credit": None
        if config.credit.show == "usd"
        else f"1 {config.credit.name} sells for ${config.credit.usd:f}",
        "since": _said(shown["effective_at"]),
        "later": [{**each, "from": _said(each["effective_from"])} for each in shown["upcoming"]],
    }


def _said(time: str | None) -> str | None:
    """Write a time for people, to the minute."""
    return None if time is None else f"{time[:10]} {time[11:16]} UTC"
