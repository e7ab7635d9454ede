"""The definitions of the metrics, from which `OpenTelemetry`, `Prometheus` and the guide are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tim_async._stats import EndpointStats

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Bucket boundaries for the durations of attempts, in seconds: OpenTelemetry's recommendation for HTTP clients."""
WAITS = (*SECONDS, 30.0, 60.0, 300.0)
"""Bucket boundaries for waits, in seconds; bulk calls may wait for minutes."""

ENDPOINT = ("app", "endpoint")
CALL = (*ENDPOINT, "lane")
ATTEMPT = (*CALL, "code", "error")


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: its name in OpenTelemetry.
        unit: its unit in UCUM, as in OpenTelemetry.
        meaning: its description.
        labels: its labels in Prometheus, from which OpenTelemetry's attributes are derived.
    """

    name: str
    unit: str
    meaning: str
    labels: tuple[str, ...]

    @property
    def prometheus(self) -> str:
        """The name in Prometheus, without the suffix ``_total`` of a counter."""
        return self.name.replace(".", "_") + ("_seconds" if self.unit == "s" else "")


@dataclass(frozen=True)
class Histogram(Metric):
    """A distribution of seconds.

    Attributes:
        boundaries: the upper boundaries of its buckets, in seconds.
    """

    boundaries: tuple[float, ...]


@dataclass(frozen=True)
class Gauge(Metric):
    """A value that is read from `TIMClient.stats` on collection.

    Attributes:
        read: returns the values of an endpoint by their labels after `ENDPOINT`.
    """

    read: Callable[[EndpointStats], dict[tuple[str, ...], float]]


DURATION = Histogram(
    "tim.attempt.duration",
    "s",
    "Time from sending a request to the end of its answer, or its failure.",
    ATTEMPT,
    SECONDS,
)
WAIT = Histogram("tim.attempt.wait", "s", "Wait of an attempt for its permit.", CALL, WAITS)
RETRIES = Metric("tim.retries", "{attempt}", "Attempts after the first of a call.", CALL)
REFUSALS = Metric("tim.refusals", "{attempt}", "Attempts that the service refused for exceeding the rate.", CALL)
FAILURES = Metric(
    "tim.failures",
    "{call}",
    "Errors that calls and look-ups raised, after all retries; QuotaExhausted among them.",
    (*CALL, "error"),
)
COUNTERS = (RETRIES, REFUSALS, FAILURES)
"""The metrics that are sums, which only grow."""
GAUGES = (
    Gauge(
        "tim.queued",
        "{attempt}",
        "Attempts waiting for a permit now.",
        CALL,
        lambda stats: {("interactive",): stats.queue.interactive, ("bulk",): stats.queue.bulk},
    ),
    Gauge("tim.in_flight", "{attempt}", "Attempts under way now.", ENDPOINT, lambda stats: {(): stats.in_flight}),
    Gauge(
        "tim.rate",
        "{call}/s",
        "Maximum calls/s, as learned from refusals; with a shared quota, of all processes together.",
        ENDPOINT,
        lambda stats: {(): stats.rate},
    ),
    Gauge("tim.limit", "{call}/s", "Calls/s that the service allows.", ENDPOINT, lambda stats: {(): stats.limit}),
    Gauge(
        "tim.shared",
        "1",
        "1 while the quota is shared; 0 without one, and while its store is unreachable.",
        ENDPOINT,
        lambda stats: {(): int(stats.shared)},
    ),
    Gauge(
        "tim.processes",
        "{process}",
        "Clients that share the quota, as last reported by its store.",
        ENDPOINT,
        lambda stats: {(): stats.processes},
    ),
)
METRICS: tuple[Metric, ...] = (DURATION, WAIT, *COUNTERS, *GAUGES)
