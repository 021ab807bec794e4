"""What a scraper reads is what happened, in the format that Prometheus expects, however many names there are."""

from __future__ import annotations

import re

import pytest

from proxy.telemetry.metrics import CONTENT_TYPE, METRICS, Metrics

_SAMPLE = re.compile(r'([a-z_]+)(\{(?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)+\})? (-?[0-9.e+-]+|\+Inf)')


def read(metrics: Metrics) -> dict[str, float]:
    """Read every sample, and fail on a line that is none."""
    samples: dict[str, float] = {}
    text = metrics.render().decode()
    assert text.endswith("\n")
    for line in text.splitlines():
        if not line.startswith("# "):
            match = _SAMPLE.fullmatch(line)
            assert match is not None, line
            assert match[1] + (match[2] or "") not in samples, line
            samples[match[1] + (match[2] or "")] = float(match[3])
    return samples


def call(metrics: Metrics, model: str = "fast", **changed: object) -> None:
    told = {"model": model, "upstream": "openai", "ended": "answered", "charged": 5, "estimated": False}
    times = {"admission_s": 0.002, "first_byte_s": 0.3, "total_s": 1.5}
    metrics.call_ended(**{**told, **times, **changed})  # type: ignore[arg-type]  # each of its own type


def test_calls() -> None:
    """A call counts by model, upstream and ending, with its charge to the nanocredit."""
    metrics = Metrics("1.2.3")
    call(metrics, charged=9007199254740993)
    call(metrics)
    call(metrics, model="smart", ended="client_left", estimated=True, charged=0, first_byte_s=None)
    samples = read(metrics)
    assert samples['farebox_calls_total{model="fast",upstream="openai",ended="answered"}'] == 2
    assert samples['farebox_calls_total{model="smart",upstream="openai",ended="client_left"}'] == 1
    assert 'farebox_charged_nanocredits_total{model="fast"} 9007199254740998\n' in metrics.render().decode()
    assert 'farebox_charged_nanocredits_total{model="smart"}' not in samples
    assert samples['farebox_estimated_calls_total{model="smart"}'] == 1
    assert samples['farebox_call_seconds_count{phase="first_byte"}'] == 2
    assert samples['farebox_call_seconds_count{phase="total"}'] == 3
    assert samples['farebox_build_info{version="1.2.3"}'] == 1


def test_histogram() -> None:
    """A bucket holds what is at or below its bound, and the ones above hold it too."""
    metrics = Metrics("1")
    for size in (1, 2, 3, 513):
        metrics.batch(size)
    samples = read(metrics)
    assert samples['farebox_ledger_batch_size_bucket{le="1.0"}'] == 1
    assert samples['farebox_ledger_batch_size_bucket{le="2.0"}'] == 2
    assert samples['farebox_ledger_batch_size_bucket{le="4.0"}'] == 3
    assert samples['farebox_ledger_batch_size_bucket{le="512.0"}'] == 3
    assert samples['farebox_ledger_batch_size_bucket{le="+Inf"}'] == 4
    assert samples["farebox_ledger_batch_size_count"] == 4
    assert samples["farebox_ledger_batch_size_sum"] == 519


def test_gauges() -> None:
    """Gauges begin at 0; open holds go up and down, and the queue is asked for its length at each scrape."""
    metrics = Metrics("1")
    waiting = [7]
    assert read(metrics)["farebox_holds_open"] == read(metrics)["farebox_ledger_queue"] == 0
    metrics.watch_queue(lambda: waiting[0])
    metrics.hold_placed()
    metrics.hold_placed()
    metrics.hold_ended()
    assert read(metrics)["farebox_holds_open"] == 1
    assert read(metrics)["farebox_ledger_queue"] == 7
    waiting[0] = 0
    assert read(metrics)["farebox_ledger_queue"] == 0


def test_refusals() -> None:
    """Refusals count by code; one without a code of its own is bad input."""
    metrics = Metrics("1")
    for code in ("insufficient_credits", None, "insufficient_credits"):
        metrics.refused(code)
    samples = read(metrics)
    assert samples['farebox_refusals_total{code="insufficient_credits"}'] == 2
    assert samples['farebox_refusals_total{code="bad_request"}'] == 1


def test_bounded_labels() -> None:
    """Beyond the most sets a metric keeps, new ones are counted together as `other`; those known before go on."""
    metrics = Metrics("1", most_sets=3)
    for name in ("a", "b", "c", "d", "e", "a"):
        call(metrics, model=name)
    samples = read(metrics)
    assert samples['farebox_calls_total{model="a",upstream="openai",ended="answered"}'] == 2
    assert samples['farebox_calls_total{model="other",upstream="other",ended="other"}'] == 2
    assert samples['farebox_charged_nanocredits_total{model="other"}'] == 10
    assert len([name for name in samples if name.startswith("farebox_calls_total")]) == 4


def test_bounded_histogram() -> None:
    """A histogram's label sets are bounded too."""
    metrics = Metrics("1", most_sets=2)
    call(metrics)
    call(metrics)
    samples = read(metrics)
    assert samples['farebox_call_seconds_count{phase="other"}'] == 2
    assert samples['farebox_call_seconds_count{phase="first_byte"}'] == 2


@pytest.mark.parametrize(
    ("name", "written"), [('say "hi"', r"say \"hi\""), ("a\\b", r"a\\b"), ("a\nb", r"a\nb"), ("é\udc80", "é?")]
)
def test_escaping(name: str, written: str) -> None:
    """A name with quotes, backslashes or line ends stays one label on one line."""
    metrics = Metrics("1")
    call(metrics, model=name)
    assert f'farebox_charged_nanocredits_total{{model="{written}"}} 5\n' in metrics.render().decode()
    read(metrics)


def test_described() -> None:
    """Every metric is described before its samples, in the order of the list, and nothing else is shown."""
    metrics = Metrics("1")
    call(metrics, estimated=True)
    metrics.refused("overloaded")
    text = metrics.render().decode()
    assert re.findall(r"# HELP (\w+) .", text) == [metric.name for metric in METRICS]
    assert re.findall(r"# TYPE (\w+) (\w+)\n", text) == [(metric.name, metric.kind) for metric in METRICS]
    for block, metric in zip(re.split(r"(?m)^# HELP ", text)[1:], METRICS, strict=True):
        names = {line.split("{")[0].split(" ")[0] for line in block.splitlines()[2:]}
        suffixes = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        assert names == {metric.name + suffix for suffix in suffixes}
    assert "version=0.0.4" in CONTENT_TYPE
