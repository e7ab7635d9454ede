"""Prometheus: histograms and counters of events, and gauges that are read on collection."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

from tim_async._hooks import Attempt, Telemetry
from tim_async._lanes import Lane
from tim_async.errors import QuotaExhausted, TIMError

from ._metrics import COUNTERS, DURATION, GAUGES, WAIT, Histogram, Metric

try:
    import prometheus_client
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector, CollectorRegistry
except ImportError:
    raise ImportError("Prometheus needs prometheus-client: pip install 'tim-async[prometheus]'") from None


class _Series(NamedTuple):
    """The series of the calls of one endpoint in one lane."""

    wait: prometheus_client.Histogram
    retries: prometheus_client.Counter
    refusals: prometheus_client.Counter


class Prometheus(Telemetry, Collector):
    """Metrics for Prometheus: ``TIMClient(on_attempt=Prometheus())``.

    Make one for each registry, and give it to all clients of the process, in any number of event loops.  Needs the
    extra ``prometheus``: ``pip install 'tim-async[prometheus]'``.

    In prometheus_client's multiprocess mode, the histograms and counters of all workers are summed.  The gauges are
    left out, like all custom collectors.

    Args:
        registry: the registry of the metrics; None for ``prometheus_client.REGISTRY``.

    Raises:
        ValueError: the registry has these metrics already.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__()
        registry = prometheus_client.REGISTRY if registry is None else registry
        try:
            self._duration = _histogram(DURATION, registry)
            self._wait = _histogram(WAIT, registry)
            self._retries, self._refusals, self._failures = (_counter(each, registry) for each in COUNTERS)
            registry.register(self)
        except ValueError as error:
            text = "the registry has tim_async's metrics already; make one Prometheus() and give it to every client"
            raise ValueError(text) from error
        # Finding a child by its labels takes several times as long as updating it.
        self._duration_of = functools.cache(self._find_duration)
        self._series_of = functools.cache(self._find_series)

    def __call__(self, attempt: Attempt) -> None:
        """Record an attempt."""
        app, endpoint, lane, error = attempt.sdk_app_id, attempt.endpoint, attempt.lane, attempt.error
        self._duration_of(app, endpoint, lane, attempt.code, error).observe(attempt.took)
        series = self._series_of(app, endpoint, lane)
        series.wait.observe(attempt.waited)
        if attempt.number > 1:
            series.retries.inc()
        if error == "RateLimited":
            series.refusals.inc()

    def failed(self, sdk_app_id: int, endpoint: str, lane: Lane, error: TIMError) -> None:
        """Record an error."""
        self._failures.labels(str(sdk_app_id), endpoint, lane.name.lower(), type(error).__name__).inc()

    def _find_duration(
        self, app: int, endpoint: str, lane: Lane, code: int | None, error: str | None
    ) -> prometheus_client.Histogram:
        labels = (str(app), endpoint, lane.name.lower(), "" if code is None else str(code), error or "")
        return self._duration.labels(*labels)

    def _find_series(self, app: int, endpoint: str, lane: Lane) -> _Series:
        """Make all series of an endpoint in a lane; they begin at 0, because a rate needs the step to 1."""
        labels = (str(app), endpoint, lane.name.lower())
        self._failures.labels(*labels, QuotaExhausted.__name__)
        return _Series._make(metric.labels(*labels) for metric in (self._wait, self._retries, self._refusals))

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Read the gauges; the registry calls this."""
        found = self.stats()
        for gauge in GAUGES:
            family = GaugeMetricFamily(gauge.prometheus, gauge.meaning, labels=gauge.labels)
            for (app, endpoint), stats in found.items():
                for more, value in gauge.read(stats).items():
                    family.add_metric((str(app), endpoint, *more), value)
            yield family

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return the gauges without values; the registry calls this."""
        return [GaugeMetricFamily(gauge.prometheus, gauge.meaning, labels=gauge.labels) for gauge in GAUGES]


def _histogram(metric: Histogram, registry: CollectorRegistry) -> prometheus_client.Histogram:
    name, boundaries = metric.prometheus, metric.boundaries
    return prometheus_client.Histogram(name, metric.meaning, metric.labels, registry=registry, buckets=boundaries)


def _counter(metric: Metric, registry: CollectorRegistry) -> prometheus_client.Counter:
    return prometheus_client.Counter(metric.prometheus, metric.meaning, metric.labels, registry=registry)
