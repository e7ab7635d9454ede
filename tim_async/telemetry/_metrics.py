"""The metrics, each described once: `OpenTelemetry` and `Prometheus` make theirs from it, and so does the guide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tim_async._stats import EndpointStats

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Boundaries of attempts' durations: those that OpenTelemetry recommends for HTTP clients."""
WAITS = (*SECONDS, 30.0, 60.0, 300.0)
"""Boundaries of waits; bulk calls may wait for minutes."""

ENDPOINT = ("app", "endpoint")
CALL = (*ENDPOINT, "lane")
ATTEMPT = (*CALL, "code", "error")


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: in OpenTelemetry.
        unit: in UCUM, as OpenTelemetry has it.
        meaning: what it says.
        labels: in Prometheus; OpenTelemetry's attributes are derived from them.
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
        boundaries: of the buckets, seconds.
    """

    boundaries: tuple[float, ...]


@dataclass(frozen=True)
class Counter(Metric):
    """What only grows."""


@dataclass(frozen=True)
class Gauge(Metric):
    """What is read from `TIMClient.stats` when somebody asks.

    Attributes:
        read: the values of an endpoint, each with those labels that are not the endpoint's.
    """

    read: Callable[[EndpointStats], dict[tuple[str, ...], float]]


DURATION = Histogram(
    "tim.attempt.duration", "s", "From sending a request to the end of its answer, or to its failure.", ATTEMPT, SECONDS
)
WAIT = Histogram("tim.attempt.wait", "s", "Wait of an attempt for its permit.", CALL, WAITS)
RETRIES = Counter("tim.retries", "{attempt}", "Attempts after the first of a call.", CALL)
REFUSALS = Counter("tim.refusals", "{attempt}", "Attempts that the service refused for exceeding the rate.", CALL)
FAILURES = Counter(
    "tim.failures",
    "{call}",
    "Errors that calls and look-ups raised, after all retries; QuotaExhausted among them.",
    (*CALL, "error"),
)
COUNTERS = (RETRIES, REFUSALS, FAILURES)
GAUGES = (
    Gauge(
        "tim.queued",
        "{attempt}",
        "Attempts that wait for a permit now.",
        CALL,
        lambda stats: {("interactive",): stats.queue.interactive, ("bulk",): stats.queue.bulk},
    ),
    Gauge("tim.in_flight", "{attempt}", "Attempts under way now.", ENDPOINT, lambda stats: {(): stats.in_flight}),
    Gauge(
        "tim.rate",
        "{call}/s",
        "Calls/s that are sent at most, as learned from refusals; with a shared quota, by all processes together.",
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
        "Clients that share the quota, as far as its store has said.",
        ENDPOINT,
        lambda stats: {(): stats.processes},
    ),
)
METRICS: tuple[Metric, ...] = (DURATION, WAIT, *COUNTERS, *GAUGES)
