"""An upstream to script, servers to call."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.proxy.running import Caller, Server
from tests.proxy.upstream import Upstream

_CONFIG = """
top_up_url: https://example.com/credits
max_body: 1MB
upstreams:
  main:
    kind: openai
    base_url: "{url}"
    api_key: operators-secret
    output_limit: max_completion_tokens
    forward_headers: [x-trace]
  elder: {{kind: openai, base_url: "{url}", output_limit: max_tokens}}
  hasty: {{kind: openai, base_url: "{url}", timeouts: {{first_byte: 300ms, between_bytes: 300ms, total: 1s}}}}
  tardy: {{kind: openai, base_url: "{url}", timeouts: {{first_byte: 300ms, between_bytes: 300ms, total: 9s}}}}
  gone:  {{kind: openai, base_url: "http://127.0.0.1:{closed}/v1"}}
  off:   {{kind: openai, base_url: "{url}", api_key: "${{UNSET:-}}"}}
models:
  words:
    title: Words
    description: For tests
    class: standard
    speed: 4
    quality: 2
    upstream: main/words-1
    max_output_tokens: 1000
    price: {{input_tokens: 1 / 1k, output_tokens: 3 / 1k}}
  parts:
    upstream: main/parts-1
    max_output_tokens: 1000
    price: {{input_tokens: 1 / 1k, cached_input_tokens: 0.25 / 1k, output_tokens: 3 / 1k, reasoning_tokens: 5 / 1k}}
  both:
    upstream: main/both-1
    max_output_tokens: 1000
    price: {{request: 1, input_tokens: 1 / 1k, output_tokens: 3 / 1k}}
  finish:
    upstream: main/finish-1
    max_output_tokens: 1000
    on_leave: finish
    price: {{request: 1, input_tokens: 1 / 1k, output_tokens: 3 / 1k}}
  each:  {{upstream: main/each-1, max_output_tokens: 1000, price: {{request: 1}}}}
  gift:  {{upstream: main/gift-1, max_output_tokens: 1000, price: {{input_tokens: 0 / 1k, output_tokens: 0 / 1k}}}}
  elder: {{upstream: elder/elder-1, max_output_tokens: 1000, price: {{input_tokens: 1 / 1k, output_tokens: 3 / 1k}}}}
  hasty: {{upstream: hasty/hasty-1, max_output_tokens: 1000, price: {{input_tokens: 1 / 1k, output_tokens: 3 / 1k}}}}
  tardy: {{upstream: tardy/tardy-1, max_output_tokens: 1000, price: {{input_tokens: 1 / 1k, output_tokens: 3 / 1k}}}}
  gone:  {{upstream: gone/gone-1, max_output_tokens: 1000, price: {{input_tokens: 1 / 1k, output_tokens: 3 / 1k}}}}
  off:   {{upstream: off/off-1, max_output_tokens: 1000, price: {{input_tokens: 1 / 1k, output_tokens: 3 / 1k}}}}
"""


@pytest.fixture(scope="session")
def closed_port() -> Iterator[int]:
    """A port that refuses connections: it is bound, so that nobody else takes it, and nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture(scope="session")
def running_upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def upstream(running_upstream: Upstream) -> Upstream:
    """The provider behind every model; it has received nothing yet."""
    running_upstream.forget()
    return running_upstream


@pytest.fixture(scope="session")
def config_text(running_upstream: Upstream, closed_port: int) -> str:
    return _CONFIG.format(url=running_upstream.url, closed=closed_port)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, config_text: str) -> Iterator[Server]:
    """A running server for the tests of one module, each with an account of its own."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "config.yaml").write_text(config_text)
    server = Server(folder).start()
    yield server
    try:
        assert server.stop() == 0
    finally:
        server.close()
    assert not [line for line in server.lines if "Traceback" in line], "".join(server.lines)
    server.audit()


@pytest.fixture
def caller(shared: Server, upstream: Upstream) -> Caller:
    """A new account with 1000 credits on the shared server."""
    return shared.caller()


@pytest.fixture
def server(tmp_path: Path, config_text: str) -> Iterator[Callable[..., Server]]:
    """Makes servers of this test's own, in its own folder; the test starts them."""
    made: list[Server] = []
    (tmp_path / "config.yaml").write_text(config_text)

    def make(*command: str, folder: Path = tmp_path, **variables: str) -> Server:
        made.append(Server(folder, command or ("serve",), **variables))
        return made[-1]

    yield make
    for each in made:
        each.close()
