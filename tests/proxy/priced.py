"""A config with operations, bounds and surcharges; what its calls cost; and how a test edits it under a server.

Prices as in `chats`: an input token 0.001, an output token 0.003 credits, so the provider's usual 20 and 7 tokens make
lines of 0.02 and 0.021. The operations are matched in the order of the file: chats with `words` by `words_chat`, all
others of its class by `standard_ai`, and so on; `plain` has no class and matches none.
"""

from __future__ import annotations

import os
from typing import Any

from tests.proxy.running import Server, until

__all__ = ["PRICES", "edited", "in_force", "priced", "put"]

PRICES = "{input_tokens: 1 / 1k, output_tokens: 3 / 1k}"

_CONFIG = """
top_up_url: https://example.com/credits
upstreams:
  main: {{kind: openai, base_url: "{url}", api_key: operators-secret}}
models:
  words: {{class: standard, upstream: main/words-1, max_output_tokens: 1000, price: {prices}}}
  other: {{class: standard, upstream: main/other-1, max_output_tokens: 1000, price: {prices}}}
  deep:  {{class: advanced, upstream: main/deep-1, max_output_tokens: 1000, price: {prices}}}
  plain: {{upstream: main/plain-1, max_output_tokens: 1000, price: {prices}}}
  least:
    upstream: main/least-1
    max_output_tokens: 1000
    price: {{input_tokens: 1 / 1k, output_tokens: 3 / 1k, min: 0.05, max: 0.06}}
surcharges: {{web_search: 15}}
operations:
  words_chat:  {{title: Chat, model: words, class: standard, min: 0.05}}
  standard_ai: {{endpoint: /v1/chat/completions, class: standard, max: 0.03}}
  unreached:   {{endpoint: /v1/chat/completions, class: standard, min: 9}}
  advanced_ai: {{class: advanced, min: 0.01, max: 10}}
  prototype:   {{multiply: 0.6}}
  dear_output: {{price: {{output_tokens: 10 / 1k}}}}
  wide:        {{max: 1}}
"""


def priced(url: str, prices: str = PRICES, more: str = "") -> str:
    """Write the config; prices: of the models but `least`, more: further lines."""
    return _CONFIG.format(url=url, prices=prices) + more


def put(server: Server, text: str) -> None:
    """Replace the server's config at once, as careful editors do."""
    part = server.folder / "config.part"
    part.write_text(text)
    os.replace(part, server.folder / "config.yaml")


def in_force(server: Server) -> dict[str, Any]:
    """What the server says of its prices."""
    document: dict[str, Any] = server.done("GET", "/prices")
    return document


def edited(server: Server, text: str) -> str:
    """Replace the config and have it reloaded; returns the version in force."""
    put(server, text)
    version = server.done("POST", "/prices/reload")["version"]
    assert until(lambda: in_force(server)["version"] == version)
    return str(version)
