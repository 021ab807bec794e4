"""`buckets:` of the config: the kinds of grants, in the order in which they burn."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pricing.document import Node
from proxy.choice import named, title_of

__all__ = ["BucketConfig", "parse_buckets"]

_DEFAULT_BUCKETS = ("daily", "subscription", "free", "bonus", "paid")


@dataclass(frozen=True, slots=True)
class BucketConfig:
    """A kind of grant; they burn in the order of the file. expires: default lifetime of grants into it, in seconds."""

    name: str
    title: str
    expires: float | None = None


def parse_buckets(node: Node | None) -> dict[str, BucketConfig]:
    """Read `buckets:`; raises ConfigError."""
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
