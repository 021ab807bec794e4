"""What a scraper sees of a server: counters, gauges and histograms in Prometheus's text format.

Everything here runs on the one event loop, so a count is a plain addition without a lock; whoever counts on another
thread hands the figure to the loop first. Nothing is worked out before somebody scrapes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["CONTENT_TYPE", "METRICS", "OTHER", "Metric", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

OTHER = "other"
"""The value of every label of a set that came after the most that a metric keeps apart."""

_MOST_SETS = 500
_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0),
)
_BATCH = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as it is documented; bounds: a histogram's upper bounds, each counting what is at or below it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
    bounds: tuple[float, ...] = ()


METRICS: tuple[Metric, ...] = (
    Metric(
        "farebox_calls_total",
        "counter",
        ("model", "upstream", "ended"),
        "Calls that had a hold; ended as in their receipts, or abandoned where the background settles them.",
    ),
    Metric(
        "farebox_call_seconds",
        "histogram",
        ("phase",),
        "Seconds from a call's arrival to its durable hold (admission), its answer's first byte, its end (total).",
        _SECONDS,
    ),
    Metric("farebox_holds_open", "gauge", (), "Holds of calls that this server is answering."),
    Metric("farebox_charged_nanocredits_total", "counter", ("model",), "What calls were charged, in nanocredits."),
    Metric(
        "farebox_estimated_calls_total",
        "counter",
        ("model",),
        "Calls charged by Farebox's own count, because the provider's usage was missing or impossible.",
    ),
    Metric("farebox_refusals_total", "counter", ("code",), "Requests refused, by error code."),
    Metric(
        "farebox_ledger_batch_size",
        "histogram",
        (),
        "Commands that one commit of the ledger carried.",
        _BATCH,
    ),
    Metric("farebox_ledger_queue", "gauge", (), "Commands that wait for the ledger's next commit."),
    Metric("farebox_build_info", "gauge", ("version",), "Always 1; the version that runs is its label."),
)
"""Every metric that a server shows, in this order."""

_Labels = tuple[str, ...]


class _Count:
    """A counter's or gauge's values by label set; most: sets kept apart."""

    __slots__ = ("_most", "_other", "metric", "values")

    def __init__(self, metric: Metric, most: int) -> None:
        self.metric = metric
        self.values: dict[_Labels, int] = {} if metric.labels else {(): 0}
        self._most = most
        self._other = (OTHER,) * len(metric.labels)

    def add(self, labels: _Labels, amount: int = 1) -> None:
        values = self.values
        if labels in values:
            values[labels] += amount
            return
        if len(values) >= self._most:
            labels = self._other
        values[labels] = values.get(labels, 0) + amount

    def samples(self) -> Iterator[str]:
        for labels, value in self.values.items():
            yield f"{self.metric.name}{_braces(self.metric.labels, labels)} {value}"


class _Histogram:
    """A histogram's buckets by label set; the last bucket is for what is above every bound."""

    __slots__ = ("_most", "_other", "metric", "values")

    def __init__(self, metric: Metric, most: int) -> None:
        self.metric = metric
        self.values: dict[_Labels, tuple[list[int], list[float]]] = {}
        self._most = most
        self._other = (OTHER,) * len(metric.labels)
        if not metric.labels:
            self._make(())

    def _make(self, labels: _Labels) -> tuple[list[int], list[float]]:
        kept = self.values[labels] = ([0] * (len(self.metric.bounds) + 1), [0.0])
        return kept

    def observe(self, labels: _Labels, value: float) -> None:
        kept = self.values.get(labels)
        if kept is None:
            if len(self.values) >= self._most:
                labels = self._other
            kept = self.values.get(labels) or self._make(labels)
        kept[0][bisect_left(self.metric.bounds, value)] += 1
        kept[1][0] += value

    def samples(self) -> Iterator[str]:
        metric = self.metric
        names = (*metric.labels, "le")
        for labels, (counts, total) in self.values.items():
            count = 0
            for bound, more in zip((*map(repr, metric.bounds), "+Inf"), counts, strict=True):
                count += more
                yield f"{metric.name}_bucket{_braces(names, (*labels, bound))} {count}"
            yield f"{metric.name}_sum{_braces(metric.labels, labels)} {total[0]!r}"
            yield f"{metric.name}_count{_braces(metric.labels, labels)} {count}"


class Metrics:
    """One server's metrics; version: what runs, most_sets: label sets that a metric keeps apart."""

    def __init__(self, version: str, *, most_sets: int = _MOST_SETS) -> None:
        by_name = {metric.name: metric for metric in METRICS}

        def count(name: str) -> _Count:
            return _Count(by_name[name], most_sets)

        self._calls = count("farebox_calls_total")
        self._seconds = _Histogram(by_name["farebox_call_seconds"], most_sets)
        self._holds = count("farebox_holds_open")
        self._charged = count("farebox_charged_nanocredits_total")
        self._estimated = count("farebox_estimated_calls_total")
        self._refusals = count("farebox_refusals_total")
        self._batches = _Histogram(by_name["farebox_ledger_batch_size"], most_sets)
        self._queue = count("farebox_ledger_queue")
        self._build = count("farebox_build_info")
        self._build.add((version,))
        self._read_queue: Callable[[], int] | None = None

    def watch_queue(self, read: Callable[[], int]) -> None:
        """Ask the ledger how much waits in it whenever somebody scrapes."""
        self._read_queue = read

    def hold_placed(self) -> None:
        """Count a hold that is durable."""
        self._holds.values[()] += 1

    def hold_ended(self) -> None:
        """Count the end of a hold: settled or voided, once each."""
        self._holds.values[()] -= 1

    def call_ended(
        self,
        model: str,
        upstream: str,
        ended: str,
        charged: int,
        estimated: bool,
        admission_s: float,
        first_byte_s: float | None,
        total_s: float,
    ) -> None:
        """Count a call that had a hold; charged: nanocredits, first_byte_s: None where none was sent."""
        self._calls.add((model, upstream, ended))
        if charged:
            self._charged.add((model,), charged)
        if estimated:
            self._estimated.add((model,))
        observe = self._seconds.observe
        observe(("admission",), admission_s)
        if first_byte_s is not None:
            observe(("first_byte",), first_byte_s)
        observe(("total",), total_s)

    def refused(self, code: str | None) -> None:
        """Count a refusal; bad input that has no code of its own is counted as `bad_request`."""
        self._refusals.add((code or "bad_request",))

    def batch(self, size: int) -> None:
        """Count a commit of the ledger and what it carried; call it on the event loop."""
        self._batches.observe((), size)

    def render(self) -> bytes:
        """Write every metric in Prometheus's text exposition format 0.0.4."""
        if self._read_queue is not None:
            self._queue.values[()] = self._read_queue()
        kept: tuple[_Count | _Histogram, ...] = (
            self._calls,
            self._seconds,
            self._holds,
            self._charged,
            self._estimated,
            self._refusals,
            self._batches,
            self._queue,
            self._build,
        )
        lines: list[str] = []
        for one in kept:
            metric = one.metric
            lines.append(f"# HELP {metric.name} {_escaped(metric.help)}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines += one.samples()
        return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _braces(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = (
        '{}="{}"'.format(name, _escaped(value).replace('"', '\\"')) for name, value in zip(names, values, strict=True)
    )
    return "{" + ",".join(pairs) + "}"
