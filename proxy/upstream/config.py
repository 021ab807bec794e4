"""`upstreams:` of the config: who answers, and how long that may take."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pricing.document import Node
from proxy.published import provider_of_host, providers

__all__ = ["Timeouts", "UpstreamConfig", "parse_upstream", "parse_url"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an upstream may take, in seconds."""

    connect: float = 5.0
    first_byte: float = 600.0
    between_bytes: float = 120.0
    total: float = 900.0


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """Who answers.

    on: whether it has what it needs; a model on an upstream that is off is not offered. attributes: what prices may
    depend on and every call of it has, whatever the request says. provider: whose published prices its calls cost, as
    the published map names it, where that is known.
    """

    name: str
    kind: str
    base_url: str = ""
    api_key: str = field(default="", repr=False)
    output_limit: str = "max_completion_tokens"
    timeouts: Timeouts = Timeouts()
    forward_headers: tuple[str, ...] = ()
    on: bool = True
    attributes: Mapping[str, str] = field(default_factory=dict)
    provider: str | None = None


def parse_url(node: Node, schemes: tuple[str, ...]) -> str:
    """Read a URL of one of some schemes; raises ConfigError."""
    url = node.text()
    try:
        parts = urlsplit(url)
        good = parts.scheme in schemes and bool(parts.hostname or parts.scheme == "mailto") and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or re.search(r"\s", url):
        raise node.error(f"must be a URL beginning with {' or '.join(s + ':' for s in schemes)}, not `{url[:60]}`")
    return url


def parse_upstream(name: str, node: Node) -> UpstreamConfig:
    """Read one of `upstreams:`; raises ConfigError."""
    kind_node = node.members().get("kind")
    if kind_node is None:
        raise node.error("`kind:` is missing; write `kind: openai` or `kind: demo`")
    if kind_node.text() == "litellm":
        raise kind_node.error("`litellm` is not supported by this release; use `kind: openai`")
    kind = kind_node.choice(("openai", "demo"))
    if kind == "demo":
        fields = node.fields(("kind", "attributes"))
        return UpstreamConfig(name, kind, output_limit="max_completion_tokens", attributes=_attributes(fields))
    fields = node.fields(
        ("kind", "base_url", "api_key", "output_limit", "timeouts", "forward_headers", "provider", "attributes")
    )
    if "base_url" not in fields:
        raise node.error('`base_url:` is missing; add e.g. base_url: "https://api.openai.com/v1"')
    base_url = parse_url(fields["base_url"], ("http", "https")).rstrip("/")
    if "?" in base_url or "#" in base_url:
        raise fields["base_url"].error("must end with the path, without `?` or `#`: endpoints are appended to it")
    api_key = fields["api_key"].text(empty=True) if "api_key" in fields else ""
    if re.search(r"[^\x21-\x7e]", api_key):
        raise fields["api_key"].error("contains spaces or characters that no header can carry; check what was pasted")
    host = urlsplit(base_url).hostname or ""
    native = host == "api.openai.com" or host.endswith(".openai.azure.com")
    return UpstreamConfig(
        name=name,
        kind=kind,
        base_url=base_url,
        api_key=api_key,
        output_limit=(
            fields["output_limit"].choice(("max_tokens", "max_completion_tokens"))
            if "output_limit" in fields
            else "max_completion_tokens"
            if native
            else "max_tokens"
        ),
        timeouts=_timeouts(fields["timeouts"]) if "timeouts" in fields else Timeouts(),
        forward_headers=_headers(fields["forward_headers"]) if "forward_headers" in fields else (),
        # Without `api_key` there is nothing to send, as with a local model; written and empty switches off.
        on="api_key" not in fields or bool(api_key),
        provider=_provider(fields["provider"]) if "provider" in fields else provider_of_host(host),
        attributes=_attributes(fields),
    )


def _attributes(fields: Mapping[str, Node]) -> dict[str, str]:
    if "attributes" not in fields:
        return {}
    found = fields["attributes"].fields(("region", "service_tier"))
    if not found:
        raise fields["attributes"].error("names nothing; known: region, service_tier")
    return {name: child.text() for name, child in found.items()}


def _provider(node: Node) -> str:
    name, known = node.text(), providers()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean `{near[0]}`?" if near else "write one such as openai, anthropic or gemini"
        raise node.error(f"nothing is published of a provider `{name[:40]}`; {hint}")
    return name


def _timeouts(node: Node) -> Timeouts:
    fields = node.fields(("connect", "first_byte", "between_bytes", "total"))
    return Timeouts(**{name: child.seconds() for name, child in fields.items()})


def _headers(node: Node) -> tuple[str, ...]:
    names = []
    for item in node.items():
        name = item.text().lower()
        if not re.fullmatch(r"[a-z0-9!#$%&'*+.^_`|~-]+", name):
            raise item.error(f"`{name[:40]}` is no header name; write one such as `x-request-source`")
        if name in (
            "authorization",
            "cookie",
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "x-api-key",
        ):
            raise item.error(f"`{name}` is never forwarded; remove it")
        if name.startswith("x-farebox-"):
            raise item.error("x-farebox-* headers are never forwarded; remove it")
        names.append(name)
    return tuple(names)
