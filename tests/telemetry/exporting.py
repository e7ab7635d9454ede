"""Both kinds of telemetry for one client, with their exported data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tim_async import Attempt
from tim_async._hooks import Hook
from tim_async.telemetry import OpenTelemetry, Prometheus

Labels = dict[str, str]


class Exporting:
    """OpenTelemetry with exporters in memory, Prometheus with a registry of its own, and a function.

    Attributes:
        hooks: the client's ``on_attempt``.
        attempts: all calls of the function.
        tracer: the program's.
    """

    def __init__(self, *, spans: bool = True) -> None:
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.registry = CollectorRegistry()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.tracer = self.provider.get_tracer("app")
        self.meters = MeterProvider([self._reader])
        self.attempts: list[Attempt] = []
        self.prometheus = Prometheus(self.registry)
        opentelemetry = OpenTelemetry(tracer_provider=self.provider, meter_provider=self.meters, spans=spans)
        self.hooks: list[Hook] = [opentelemetry, self.prometheus, self.attempts.append]

    def spans(self, scope: str = "tim_async") -> list[ReadableSpan]:
        """Return the finished spans of one instrumentation scope, in order."""
        finished = self._spans.get_finished_spans()
        return [s for s in finished if s.instrumentation_scope and s.instrumentation_scope.name == scope]

    def finished(self) -> tuple[ReadableSpan, ...]:
        """Return and clear the finished spans of all scopes."""
        finished = self._spans.get_finished_spans()
        self._spans.clear()
        return finished

    @property
    def text(self) -> str:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry).decode()

    def total(self, name: str, **labels: object) -> float:
        """Return the sum over all series with these labels, or the count of a histogram; both exporters must agree."""
        wanted = {label: str(value) for label, value in labels.items()}
        totals = [
            sum(value for found, value in series if wanted.items() <= found.items())
            for series in (self._scraped(name), self._read(name))
        ]
        assert totals[0] == totals[1], f"{name} {labels}: Prometheus {totals[0]}, OpenTelemetry {totals[1]}"
        return totals[0]

    def _scraped(self, name: str) -> Iterator[tuple[Labels, float]]:
        stem = name.replace(".", "_")
        names = {stem, f"{stem}_total", f"{stem}_seconds_count"}
        for family in text_string_to_metric_families(self.text):
            yield from ((sample.labels, sample.value) for sample in family.samples if sample.name in names)

    def _read(self, name: str) -> Iterator[tuple[Labels, float]]:
        for metric, point in self.points():
            if metric == name:
                found = {label.removeprefix("tim."): str(value) for label, value in point.attributes.items()}
                error = found.pop("error.type", "")
                value = point.count if hasattr(point, "count") else point.value
                yield {"code": "", "error": error, **found}, value

    def points(self) -> Iterator[tuple[str, Any]]:
        """Yield the data points of OpenTelemetry with their metrics' names."""
        data: Any = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    yield from ((metric.name, point) for point in metric.data.data_points)
