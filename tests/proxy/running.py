"""Servers as real processes, and callers of theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import httpx
from openai import AsyncOpenAI, OpenAI

from tests.postgres import own_database
from tests.proxy.chats import MESSAGES

__all__ = ["ADMIN_KEY", "Caller", "Server", "clean_environment", "farebox", "until"]

ADMIN_KEY = "admin-key-of-the-tests"
_PATIENCE_SECONDS = 30.0


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without anything that Farebox would read, and `variables`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FAREBOX_", "OPENAI_"))}
    return {**kept, **variables}


def database_of(folder: Path) -> dict[str, str]:
    """What says which database a folder's servers use: a file in it, or one of a PostgreSQL server's own.

    FAREBOX_TEST_POSTGRES: that server's URL, with which all black-box tests can be run on it.
    """
    server = os.environ.get("FAREBOX_TEST_POSTGRES")
    return {} if server is None else {"FAREBOX_DATABASE_URL": own_database(server, str(folder))}


def farebox(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "proxy", *arguments],
        cwd=folder,
        env=clean_environment(**{**database_of(folder), **variables}),
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )


def until(condition: Callable[[], bool], seconds: float = 1.0) -> bool:
    """Ask until the answer is yes, for at most so long."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
    return True


class Server:
    """One server process after another on the same folder."""

    def __init__(self, folder: Path, command: tuple[str, ...] = ("serve",), **variables: str) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.base = ""
        self._command = command
        self._variables = {"FAREBOX_ADMIN_KEY": ADMIN_KEY, **database_of(folder), **variables}
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.http = httpx.Client(timeout=_PATIENCE_SECONDS, limits=httpx.Limits(max_keepalive_connections=4))

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def launch(self, *arguments: str) -> threading.Event:
        """Start it; returns at once, with what is set when it listens, or has ended."""
        ready = threading.Event()
        with (self.folder / "stdout.txt").open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "proxy", *self._command, "--port", "0", *arguments],
                cwd=self.folder,
                env=clean_environment(**self._variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
            )
        self._reader = threading.Thread(target=self._read, args=(self._process, ready), name="server's stderr")
        self._reader.start()
        return ready

    def start(self, *arguments: str) -> Server:
        """Start it; returns when it listens."""
        assert self.launch(*arguments).wait(_PATIENCE_SECONDS)
        assert self._process is not None
        assert self._process.poll() is None, "".join(self.lines)
        return self

    def _read(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.lines.append(line)
            if line.startswith("Farebox listens on "):
                self.base = line.split()[-1]
                ready.set()
        process.wait()
        ready.set()

    @property
    def output(self) -> str:
        """What was written to stdout."""
        return (self.folder / "stdout.txt").read_text()

    def signal(self, number: int = SIGTERM) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 15.0) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""
        assert self._process is not None and self._reader is not None
        code = self._process.wait(seconds)
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._process = None
        return code

    def stop(self, number: int = SIGTERM) -> int:
        self.signal(number)
        return self.wait()

    def close(self) -> None:
        self.http.close()
        if self._process is not None:
            self.stop(SIGKILL)

    # -- administration

    def admin(self, method: str, path: str, fields: Mapping[str, Any] | None = None) -> httpx.Response:
        return self.http.request(
            method, f"{self.base}/admin/v1{path}", json=fields, headers={"authorization": f"Bearer {ADMIN_KEY}"}
        )

    def done(self, method: str, path: str, fields: Mapping[str, Any] | None = None) -> Any:
        """As `admin`; asserts that it was done and returns the object."""
        answered = self.admin(method, path, fields)
        assert answered.status_code < 300, answered.text
        return answered.json()

    def caller(self, credits: str | None = "1000") -> Caller:
        """A new account with a key, and with credits unless None."""
        account = self.done("POST", "/accounts", {"name": "Somebody"})["id"]
        if credits is not None:
            self.done("POST", f"/accounts/{account}/grants", {"bucket": "paid", "credits": credits})
        return Caller(self, account, self.done("POST", f"/accounts/{account}/keys", {})["key"])

    def audit(self) -> dict[str, Any]:
        """What `farebox audit` finds; asserts that it found nothing broken, and that every receipt recomputes."""
        ran = farebox(self.folder, "audit", "--json")
        document: dict[str, Any] = json.loads(ran.stdout)
        assert ran.returncode == 0 and document["clean"] is True, document
        recomputed = farebox(self.folder, "recompute")
        assert recomputed.returncode == 0, recomputed.stdout
        return document


@dataclass(frozen=True)
class Caller:
    """An account with a key."""

    server: Server
    account: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    @property
    def url(self) -> str:
        return self.server.base + "/v1/chat/completions"

    @cached_property
    def openai(self) -> OpenAI:
        """OpenAI's own client; it does not retry."""
        return OpenAI(api_key=self.key, base_url=self.server.base + "/v1", max_retries=0, http_client=self.server.http)

    def openai_async(self) -> AsyncOpenAI:
        """To be closed by the test."""
        return AsyncOpenAI(api_key=self.key, base_url=self.server.base + "/v1", max_retries=0)

    def post(self, body: bytes, **headers: str) -> httpx.Response:
        """Make a call from these bytes."""
        sent = {"content-type": "application/json", **self.headers}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.server.http.post(self.url, content=body, headers=sent)

    def chat(self, model: str = "words", **members: Any) -> httpx.Response:
        return self.post(json.dumps({"model": model, "messages": MESSAGES, **members}).encode())

    def get(self, path: str) -> httpx.Response:
        return self.server.http.get(self.server.base + path, headers=self.headers)

    def balance(self) -> dict[str, Any]:
        answered = self.get("/v1/credits")
        assert answered.status_code == 200, answered.text
        document: dict[str, Any] = answered.json()
        return document

    @property
    def available(self) -> str:
        return str(self.balance()["available"])

    def receipt(self, call: str | httpx.Response) -> dict[str, Any]:
        request = call if isinstance(call, str) else call.headers["x-request-id"]
        answered = self.get(f"/v1/credits/receipts/{request}")
        assert answered.status_code == 200, answered.text
        document: dict[str, Any] = answered.json()
        return document

    def nothing_held(self, seconds: float = 1.0) -> bool:
        """Whether within so long no call holds anything."""
        return until(lambda: self.balance()["held"] == "0", seconds)
