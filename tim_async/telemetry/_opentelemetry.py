"""OpenTelemetry: a span for each attempt, histograms and counters of events, and gauges that are read on collection."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

from tim_async._hooks import Attempt, Telemetry
from tim_async._lanes import Lane
from tim_async.errors import TIMError

from ._metrics import COUNTERS, DURATION, GAUGES, WAIT, Gauge, Histogram, Metric

try:
    from opentelemetry import metrics, trace
except ImportError:
    raise ImportError("OpenTelemetry needs opentelemetry-api: pip install 'tim-async[otel]'") from None

Attributes = dict[str, str | int | float]

_PORTS = {"http": 80, "https": 443}


class OpenTelemetry(Telemetry):
    """Spans and metrics for OpenTelemetry: ``TIMClient(on_attempt=OpenTelemetry())``.

    A span for each attempt, below the caller's current span, follows the semantic conventions for HTTP clients; a call
    of a merged look-up is below the span of its first caller.  The guide lists the metrics.  Needs the extra ``otel``:
    ``pip install 'tim-async[otel]'``, and an SDK to export anything.

    Make one for each process, and give it to all clients, in any number of event loops.

    OpenTelemetry's instrumentation of aiohttp would record the same requests again; it is suppressed for the requests
    of clients with this hook, unless ``spans=False``.

    Args:
        tracer_provider: the provider of the tracer; None for the global one.
        meter_provider: the provider of the meter; None for the global one.
        spans: whether to make spans; False for metrics alone.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        spans: bool = True,
    ) -> None:
        from tim_async import __version__

        super().__init__()
        self._tracer: trace.Tracer | None = None
        if spans:
            self._tracer = trace.get_tracer("tim_async", __version__, tracer_provider)
            self.around: Callable[[], AbstractContextManager[object]] | None = _suppression()
        meter = metrics.get_meter("tim_async", __version__, meter_provider)
        self._duration, self._wait = _histogram(DURATION, meter), _histogram(WAIT, meter)
        self._retries, self._refusals, self._failures = (_counter(each, meter) for each in COUNTERS)
        for gauge in GAUGES:
            read = functools.partial(self._read, gauge)
            meter.create_observable_gauge(gauge.name, [read], gauge.unit, gauge.meaning)

    def __call__(self, attempt: Attempt) -> None:
        """Record an attempt."""
        about: Attributes = _call(attempt.sdk_app_id, attempt.endpoint, attempt.lane)
        self._wait.record(attempt.waited, about)
        if attempt.number > 1:
            self._retries.add(1, about)
        if attempt.error == "RateLimited":
            self._refusals.add(1, about)
        if attempt.code is not None:
            about["tim.code"] = attempt.code
        if attempt.error is not None:
            about["error.type"] = attempt.error
        self._duration.record(attempt.took, about)
        if self._tracer is not None:
            self._span(self._tracer, attempt, about)

    def failed(self, sdk_app_id: int, endpoint: str, lane: Lane, error: TIMError) -> None:
        """Record an error."""
        self._failures.add(1, {**_call(sdk_app_id, endpoint, lane), "error.type": type(error).__name__})

    @staticmethod
    def _span(tracer: trace.Tracer, attempt: Attempt, about: Attributes) -> None:
        """Make the span of an attempt that has ended."""
        path, command, address, port = _place(attempt.url)
        attributes: Attributes = {
            **about,
            "http.request.method": "POST",
            "server.address": address,
            "server.port": port,
            "url.full": attempt.url,
            "tim.command": command,
            "tim.attempt": attempt.number,
            "tim.wait": attempt.waited,
        }
        if attempt.number > 1:
            attributes["http.request.resend_count"] = attempt.number - 1
        if attempt.status is not None:
            attributes["http.response.status_code"] = attempt.status
        started = int(attempt.started * 1e9)
        span = tracer.start_span(f"POST {path}", kind=trace.SpanKind.CLIENT, attributes=attributes, start_time=started)
        if attempt.error is not None:
            span.set_status(trace.StatusCode.ERROR)
        span.end(started + int(attempt.took * 1e9))

    def _read(self, gauge: Gauge, _: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        for (app, endpoint), stats in self.stats().items():
            for values, value in gauge.read(stats).items():
                about: Attributes = {"tim.app": app, "tim.endpoint": endpoint}
                about.update(zip((f"tim.{name}" for name in gauge.labels[2:]), values, strict=True))
                yield metrics.Observation(value, about)


def _call(app: int, endpoint: str, lane: Lane) -> Attributes:
    return {"tim.app": app, "tim.endpoint": endpoint, "tim.lane": lane.name.lower()}


@functools.lru_cache(64)
def _place(url: str) -> tuple[str, str, str, int]:
    """Return the path of a request's URL, its command, the host and the port."""
    parts = urlsplit(url)
    command = parts.path[parts.path.rfind("/v4/") + 1 :]  # a gateway's base URL may have a path, too
    return parts.path, command, parts.hostname or "", parts.port or _PORTS[parts.scheme]


def _suppression() -> Callable[[], AbstractContextManager[object]] | None:
    """Return the context manager that suppresses other instrumentation of HTTP clients; None if none is installed."""
    try:
        from opentelemetry.instrumentation.utils import suppress_http_instrumentation
    except ImportError:
        return None
    return suppress_http_instrumentation


def _histogram(metric: Histogram, meter: metrics.Meter) -> metrics.Histogram:
    return meter.create_histogram(
        metric.name, metric.unit, metric.meaning, explicit_bucket_boundaries_advisory=metric.boundaries
    )


def _counter(metric: Metric, meter: metrics.Meter) -> metrics.Counter:
    return meter.create_counter(metric.name, metric.unit, metric.meaning)
