"""Starting what is measured, each on its core, and reading from /proc what it costs. Linux only."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from types import FrameType

__all__ = [
    "Cores",
    "Load",
    "Machine",
    "Program",
    "bounded",
    "build",
    "environment",
    "first_answer",
    "free_port",
    "load",
    "started",
]

REPOSITORY = Path(__file__).resolve().parent.parent
_STOP_SECONDS = 15
_START_SECONDS = 60
_LOAD_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the server runs and where everything else does; None where there is only one core."""

    server: int | None
    others: int | None

    @classmethod
    def of_this_machine(cls) -> Cores:
        """Take the first core for the server and the second for the rest, of those that this process may use."""
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[0], usable[1]) if len(usable) > 1 else cls(None, None)


@dataclass(frozen=True, slots=True)
class Machine:
    """What to know before believing a figure: how fast the disk flushes 4 kB, and how busy the machine was before."""

    durable_write_ms: float
    load_average: float

    @classmethod
    def now(cls, folder: Path, writes: int = 100) -> Machine:
        """Try the disk that `folder` is on."""
        path = folder / "durable"
        taken = []
        with path.open("wb", buffering=0) as file:
            for _ in range(writes):
                began = time.perf_counter()
                file.write(b"\0" * 4096)
                os.fdatasync(file.fileno())
                taken.append((time.perf_counter() - began) * 1000)
        path.unlink()
        return cls(median(taken), os.getloadavg()[0])

    def __str__(self) -> str:
        return (
            f"a flushed 4 kB write takes {self.durable_write_ms:.2f} ms; load average before: {self.load_average:.2f}"
        )


class Program:
    """A process that was started here; its cost counts all its threads."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path, began: float) -> None:
        self.name = name
        self.log = log
        self.began = began
        self._process = process

    def cpu_ns(self) -> int:
        """Nanoseconds on a CPU so far, of every living thread."""
        total = 0
        for thread in Path(f"/proc/{self._process.pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                total += int((thread / "schedstat").read_text().split()[0])
        return total

    def memory_mb(self) -> tuple[float, float]:
        """Resident and proportional memory in MB."""
        fields: dict[str, int] = {}
        for line in Path(f"/proc/{self._process.pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, value, *_ = line.split()
            fields[name] = int(value)
        return fields["Rss:"] * 1024 / 1e6, fields["Pss:"] * 1024 / 1e6

    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """Ask it to end, and end it if it does not."""
        if self.alive():
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def failure(self, what: str) -> RuntimeError:
        return RuntimeError(f"{self.name}: {what}; its log ends with:\n{self.log.read_text(errors='replace')[-2000:]}")


@contextmanager
def _pinned(core: int | None) -> Iterator[None]:
    """Keep to one core; a process started meanwhile inherits it, with every thread that it starts."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def started(name: str, command: Sequence[str], folder: Path, core: int | None) -> Iterator[Program]:
    """Run a program in `folder`, pinned to a core, for as long as the context lasts."""
    log = folder / f"{name}.log"
    with log.open("wb") as output, _pinned(core):
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    program = Program(name, process, log, began)
    try:
        yield program
    finally:
        program.stop()


@contextmanager
def bounded(seconds: int) -> Iterator[None]:
    """Leave, through every `finally`, when time is up or somebody asks us to end."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(f"out of time after {seconds} s" if number == signal.SIGALRM else "ended from outside")

    signal.signal(signal.SIGALRM, leave)
    signal.signal(signal.SIGTERM, leave)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def environment() -> dict[str, str]:
    """This process's environment with the repository importable, and without settings that would lead elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FAREBOX_", "PYTHON"))}
    return {**kept, "PYTHONPATH": str(REPOSITORY)}


def build(folder: Path) -> None:
    """Compile the upstream and the load generator into `folder`."""
    for name in ("mock", "load"):
        source = REPOSITORY / "bench" / f"{name}.c"
        subprocess.run(["gcc", "-O2", "-o", str(folder / name), str(source)], check=True, timeout=60)


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def first_answer(program: Program, port: int, body: bytes, headers: Mapping[str, str]) -> float:
    """Ask until the program answers 200; returns the seconds since it was started."""
    status = 0
    while time.perf_counter() - program.began < _START_SECONDS:
        if not program.alive():
            raise program.failure("ended")
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        with suppress(OSError, HTTPException):
            connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json", **headers})
            response = connection.getresponse()
            response.read()
            status = response.status
        connection.close()
        if status == 200:
            return time.perf_counter() - program.began
        if status:
            raise program.failure(f"answered {status}")
        time.sleep(0.005)
    raise program.failure("no answer")


@dataclass(frozen=True, slots=True)
class Load:
    """What one round of load showed: CPU microseconds a request of the program asked, and what its callers saw."""

    cpu_us: float
    rate: float
    p50_ms: float
    p99_ms: float


def load(
    program: Program,
    port: int,
    body: Path,
    *,
    callers: int,
    requests: int,
    needle: str,
    headers: Mapping[str, str],
    core: int | None,
    every: int | None = None,
) -> Load:
    """Let callers send requests one after another; raises RuntimeError if any answer is bad or lacks `needle`.

    every: the ######## in a header stands for a number that is one more after so many requests.
    """
    command = [str(body.parent / "load"), "-p", str(port), "-b", str(body), "-c", str(callers), "-n", str(requests)]
    command += ["-k", needle, "-t", str(_LOAD_SECONDS)]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    if every is not None:
        command += ["-r", str(every)]
    before = program.cpu_ns()
    with _pinned(core):
        result = subprocess.run(command, capture_output=True, text=True, timeout=_LOAD_SECONDS + 10)
    spent = program.cpu_ns() - before
    if result.returncode:
        raise program.failure(f"load failed: {result.stdout}{result.stderr}")
    seen = json.loads(result.stdout)
    return Load(spent / requests / 1000, seen["rate"], seen["p50_ms"], seen["p99_ms"])
