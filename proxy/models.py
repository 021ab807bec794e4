"""`models:` of the config: what callers may ask for, who answers, and what is held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from pricing.document import Node
from pricing.table import ModelPrice
from proxy.targets import Remarks, Target, limited, parse_targets, resold
from proxy.upstream.config import UpstreamConfig

__all__ = ["ModelConfig", "ModelsRead", "parse_models"]

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


ModelsRead = dict[int, tuple[Node, ModelConfig]]
"""Models that were read, by the identity of what is written of them."""


def parse_models(
    nodes: Mapping[str, Node],
    upstreams: Mapping[str, UpstreamConfig],
    usd: Decimal,
    remarks: Remarks,
    read: ModelsRead,
) -> dict[str, ModelConfig]:
    """Read `models:`; usd: what a credit sells for. Raises ConfigError.

    read: what was read before, by the node's identity: of a thousand models a change of prices concerns a few.
    """
    for name, node in nodes.items():
        if node.identity not in read:
            # Kept with its node, whose identity another's would be otherwise.
            read[node.identity] = node, _model(name, node, upstreams, usd, remarks)
    models = {name: read[node.identity][1] for name, node in nodes.items()}
    # What somebody who is asked when others fail is sold at takes all models.
    firsts = {name: model.targets[0] for name, model in models.items()}
    return {
        name: replace(model, targets=resold(model.targets, firsts, nodes[name].members()["upstream"]))
        for name, model in models.items()
    }


def _model(
    name: str, node: Node, upstreams: Mapping[str, UpstreamConfig], usd: Decimal, remarks: Remarks
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
    price, targets = parse_targets(name, fields, upstreams, usd, remarks)
    targets = limited(targets, written, name, remarks.warnings)
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


def _part_tokens(node: Node | None) -> dict[str, int]:
    tokens = {"image": 1600, "file": 20000, "audio_second": 50}
    if node:
        tokens |= {name: child.integer(0, _MOST_TOKENS) for name, child in node.fields(tokens).items()}
    return tokens
