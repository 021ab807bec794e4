"""The public price list, as JSON Schema."""

from __future__ import annotations

from proxy.openapi_schemas import (
    AMOUNT,
    TEXT,
    TIME,
    Schema,
    answered,
    list_of,
    map_of,
    model_members,
    one_of,
    or_null,
    ref,
)

__all__ = ["price_schemas"]


def price_schemas() -> dict[str, Schema]:
    """List the schemas of the public price list, by name."""
    credit = answered(
        None,
        "What a credit is called, and what it sells for in dollars; show: how pages write amounts.",
        name=TEXT,
        plural=TEXT,
        usd=TEXT,
        show=one_of("credits", "usd"),
    )
    typical = answered(
        None,
        "What a usual call uses, and what it costs now; null where the prices in force do not cover it.",
        usage=map_of(TEXT),
        cost=or_null(AMOUNT),
    )
    coming = answered(None, "What comes into force later.", effective_from=TIME, version=TEXT)
    custom = answered(None, "The amounts that a customer may choose, in dollars.", min=TEXT, max=TEXT)
    return {
        "PublicPrices": answered(
            "prices",
            "What is offered, and what it costs now.",
            version=TEXT,
            effective_at=or_null(TIME),
            credit=credit,
            models=list_of(ref("OfferedModel")),
            operations=list_of(ref("OfferedOperation")),
            surcharges=map_of(ref("MeterPrice")),
            plans=list_of(ref("OfferedPlan")),
            packs=list_of(ref("OfferedPack")),
            custom_pack={"anyOf": [custom, {"type": "null"}]},
            top_up_url=or_null(TEXT),
            upcoming=list_of(coming),
        ),
        "OfferedModel": answered(
            None,
            "A model that can be called; plans: those that open it.",
            **model_members(),
            typical=typical,
            plans=list_of(TEXT),
        ),
        "OfferedOperation": answered(
            None,
            "What a call may be; low, high: what one usually costs, or at least and at most.",
            id=TEXT,
            title=TEXT,
            class_=or_null(TEXT),
            endpoint=or_null(TEXT),
            model=or_null(TEXT),
            low=or_null(AMOUNT),
            high=or_null(AMOUNT),
            per=one_of("call", "run"),
            multiply=or_null(TEXT),
            price={"anyOf": [ref("PriceList"), {"type": "null"}]},
        ),
        "OfferedPlan": answered(
            None,
            "A plan; models: null for all.",
            id=TEXT,
            title=TEXT,
            price=or_null(TEXT),
            allowances=list_of(
                answered(
                    None,
                    "What renews.",
                    bucket=TEXT,
                    credits=AMOUNT,
                    per=one_of("day", "week", "month", "year"),
                )
            ),
            models={"anyOf": [list_of(TEXT), {"type": "null"}]},
            renews=one_of("anniversary", "calendar"),
            overdraft_limit=AMOUNT,
        ),
        "OfferedPack": answered(
            None,
            "Credits at a price; bonus: how many of them are above what the price buys otherwise.",
            id=TEXT,
            title=TEXT,
            price=TEXT,
            credits=AMOUNT,
            bonus=or_null(AMOUNT),
        ),
    }
