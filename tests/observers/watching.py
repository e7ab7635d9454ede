"""Observers of a program, with a common interface.

Most change the whole process, so `run` installs one in a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import aiohttp

from .walk import texts_as_printed, texts_of, texts_of_failure, texts_of_tasks


class Observer:
    """An observer of a program.

    Attributes:
        proof: a text that an answered call must leave in the observer's data.
        session: makes the caller's session, if the observer needs one.
        on_attempt: the client's hooks.
    """

    proof = "/v4/openim/get_c2c_unread_msg_num"
    session: Callable[[dict[str, Any]], aiohttp.ClientSession] | None = None
    on_attempt: Sequence[Any] = ()

    def around(self) -> AbstractContextManager[Any]:
        """Return the context around the call, such as a span."""
        return contextlib.nullcontext()

    def meanwhile(self) -> None:
        """Observe a call in flight."""

    def failed(self, failure: BaseException) -> None:
        """Observe the call's exception, while it is handled."""

    def texts(self) -> Iterator[str]:
        """Yield the texts produced since the last time."""
        raise NotImplementedError


def sentry(**options: Any) -> Observer:
    """The SDK, with a transport that keeps all events."""
    import sentry_sdk
    from sentry_sdk.envelope import Envelope
    from sentry_sdk.transport import Transport

    sent: list[str] = []

    class Kept(Transport):
        def capture_envelope(self, envelope: Envelope) -> None:
            sent.append(envelope.serialize().decode("latin-1"))

    sentry_sdk.init(dsn="https://public@127.0.0.1/1", transport=Kept, **options)

    class Sentry(Observer):
        proof = "get_c2c_unread_msg_num"

        def around(self) -> AbstractContextManager[Any]:
            return sentry_sdk.start_transaction(op="task", name="inbox")

        def failed(self, failure: BaseException) -> None:
            sentry_sdk.capture_exception(failure)
            logging.getLogger("app").error("the call failed", exc_info=failure)

        def texts(self) -> Iterator[str]:
            sentry_sdk.flush()
            yield from sent
            sent.clear()
            sentry_sdk.get_isolation_scope().clear_breadcrumbs()

    return Sentry()


def sentry_everything() -> Observer:
    """The SDK, with all recording enabled."""
    from sentry_sdk.integrations.asyncio import AsyncioIntegration
    from sentry_sdk.integrations.logging import LoggingIntegration

    logging.getLogger().setLevel(logging.DEBUG)
    return sentry(
        traces_sample_rate=1.0,
        include_local_variables=True,
        attach_stacktrace=True,
        send_default_pii=True,
        max_request_body_size="always",
        max_value_length=10_000,
        trace_propagation_targets=[".*"],
        integrations=[AsyncioIntegration(), LoggingIntegration(level=logging.DEBUG, event_level=logging.WARNING)],
    )


def opentelemetry() -> Observer:
    """The instrumentation of aiohttp's client, with the attributes of both conventions, the old and the new one."""
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http/dup"
    for side in ("REQUEST", "RESPONSE"):
        os.environ[f"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_{side}"] = ".*"
    from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    AioHttpClientInstrumentor().instrument(
        tracer_provider=provider,
        meter_provider=MeterProvider([reader]),
        # Hooks get what a trace config gets.
        request_hook=lambda span, params: span.set_attribute("request", " ".join(texts_of(params))),
        response_hook=lambda span, params: span.set_attribute("response", " ".join(texts_of(params))),
    )
    tracer = provider.get_tracer("app")

    class OpenTelemetry(Observer):
        def around(self) -> AbstractContextManager[Any]:
            return tracer.start_as_current_span("inbox", record_exception=True)

        def failed(self, failure: BaseException) -> None:
            with tracer.start_as_current_span("handling") as span:
                span.record_exception(failure)

        def texts(self) -> Iterator[str]:
            yield from (span.to_json() for span in exporter.get_finished_spans())
            exporter.clear()
            yield str(reader.get_metrics_data())

    return OpenTelemetry()


def telemetry() -> Observer:
    """Both kinds of the library's telemetry, with OpenTelemetry's instrumentation of aiohttp's client."""
    from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

    from tests.telemetry.exporting import Exporting

    exporting = Exporting()
    AioHttpClientInstrumentor().instrument(tracer_provider=exporting.provider, meter_provider=exporting.meters)

    class Telemetry(Observer):
        on_attempt = exporting.hooks

        def around(self) -> AbstractContextManager[Any]:
            return exporting.tracer.start_as_current_span("inbox", record_exception=True)

        def failed(self, failure: BaseException) -> None:
            with exporting.tracer.start_as_current_span("handling") as span:
                span.record_exception(failure)

        def texts(self) -> Iterator[str]:
            yield exporting.text
            yield from (repr(attempt) for attempt in exporting.attempts)
            yield from (str(point) for point in exporting.points())
            yield from (span.to_json() for span in exporting.finished())
            exporting.attempts.clear()

    return Telemetry()


def logfire() -> Observer:
    """Logfire's instrumentation of aiohttp's client, which records headers and bodies."""
    import logfire as sdk
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    sdk.configure(
        send_to_logfire=False,
        console=False,
        scrubbing=False,  # the tests do not rely on its list of words
        additional_span_processors=[SimpleSpanProcessor(exporter)],
    )
    sdk.instrument_aiohttp_client(capture_all=True)
    logging.basicConfig(handlers=[sdk.LogfireLoggingHandler()], level=logging.DEBUG)

    class Logfire(Observer):
        def around(self) -> AbstractContextManager[Any]:
            return sdk.span("inbox")

        def failed(self, failure: BaseException) -> None:
            sdk.exception("the call failed", failure=failure)
            logging.getLogger("app").error("the call failed", exc_info=failure)

        def texts(self) -> Iterator[str]:
            yield from (span.to_json() for span in exporter.get_finished_spans())
            exporter.clear()

    return Logfire()


def ddtrace() -> Observer:
    """Datadog's instrumentation of aiohttp, with a filter that keeps the spans and sends none."""
    os.environ.update(
        DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
        DD_REMOTE_CONFIGURATION_ENABLED="false",
        DD_TRACE_STARTUP_LOGS="false",
        DD_TRACE_HTTP_CLIENT_TAG_QUERY_STRING="true",
        DD_TRACE_OBFUSCATION_QUERY_STRING_REGEXP="",  # the tests do not rely on its expression
        DD_TRACE_REPORT_HOSTNAME="false",
    )
    import ddtrace as sdk
    from ddtrace.trace import TraceFilter, tracer

    kept: list[str] = []

    class Keep(TraceFilter):
        def process_trace(self, trace: Any) -> None:
            for span in trace:
                kept.append(f"{span.name} {span.resource} {span.get_tags()} {span.get_metrics()} {span!r}")
                kept.append(str(getattr(span, "_events", "")))

    tracer.configure(trace_processors=[Keep()])
    sdk.patch(aiohttp=True, asyncio=True, logging=True)

    class Datadog(Observer):
        def around(self) -> AbstractContextManager[Any]:
            return tracer.trace("inbox")

        def failed(self, failure: BaseException) -> None:
            with tracer.trace("handling") as span:
                span.set_exc_info(type(failure), failure, failure.__traceback__)

        def texts(self) -> Iterator[str]:
            tracer.flush()  # type: ignore[no-untyped-call]
            yield from kept
            kept.clear()

    return Datadog()


def elasticapm() -> Observer:
    """Elastic's agent, with a transport that keeps all events."""
    import elasticapm as sdk
    from elasticapm.transport.base import Transport

    kept: list[str] = []

    class Keep(Transport):
        def queue(self, event_type: Any, data: Any, flush: bool = False) -> None:
            kept.append(json.dumps([event_type, data], default=repr))

        def start_thread(self, pid: int | None = None) -> None:
            """Nothing is sent."""

    globals()["Keep"] = Keep  # the agent imports its transport by name
    client = sdk.Client(
        service_name="app",
        transport_class=f"{__name__}.Keep",
        metrics_interval="0s",
        central_config=False,
        cloud_provider=False,
        collect_local_variables="all",
        capture_body="all",
        local_var_max_length=100_000,
        sanitize_field_names=[],  # the tests do not rely on its list of names
        span_compression_enabled=False,
        exit_span_min_duration="0ms",
        disable_log_record_factory=True,
    )
    sdk.instrument()

    @contextlib.contextmanager
    def transaction() -> Iterator[None]:
        client.begin_transaction("task")
        try:
            yield
        finally:
            client.end_transaction("inbox", "done")  # type: ignore[no-untyped-call]

    class Elastic(Observer):
        def around(self) -> AbstractContextManager[Any]:
            return transaction()

        def failed(self, failure: BaseException) -> None:
            client.capture_exception((type(failure), failure, failure.__traceback__))  # type: ignore[no-untyped-call]

        def texts(self) -> Iterator[str]:
            yield from kept
            kept.clear()

    return Elastic()


def vcr() -> Observer:
    """Cassettes as a test suite records them, with both serializers."""
    import vcr as package  # type: ignore[import-untyped]  # it brings no types
    import yaml  # type: ignore[import-untyped]  # it brings no types
    from vcr.serializers import jsonserializer, yamlserializer  # type: ignore[import-untyped]

    class Both:
        @staticmethod
        def serialize(cassette: dict[str, Any]) -> str:
            return f"{yamlserializer.serialize(cassette)}...\n{jsonserializer.serialize(cassette)}"

    folder = Path(tempfile.mkdtemp())
    recorder = package.VCR(
        serializer="both",
        record_mode=package.mode.ALL,
        decode_compressed_response=True,
        cassette_library_dir=folder,
    )
    recorder.register_serializer("both", Both)
    numbers = iter(range(1_000_000))

    class Cassettes(Observer):
        def around(self) -> AbstractContextManager[Any]:
            cassette: AbstractContextManager[Any] = recorder.use_cassette(f"{next(numbers)}")
            return cassette

        def texts(self) -> Iterator[str]:
            for file in folder.iterdir():
                text = file.read_text()
                yield text
                # YAML may break a long text in two.
                yield repr(yaml.safe_load(text.partition("\n...\n")[0]))
                file.unlink()

    return Cassettes()


class Recording:
    """A trace config, a middleware and a request class, which record all their arguments."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def trace_config(self) -> aiohttp.TraceConfig:
        """Make a trace config with a handler for every signal."""
        config = aiohttp.TraceConfig()
        signals = [name for name in dir(config) if name.startswith("on_")]
        for name in signals:
            getattr(config, name).append(self._handler(name))
        return config

    def _handler(self, name: str) -> Any:
        async def handle(session: aiohttp.ClientSession, context: Any, params: Any) -> None:
            self.keep(name, params)

        return handle

    def keep(self, name: str, value: object) -> None:
        self.kept += [f"{name}: {text}" for text in texts_of(value)]

    async def middleware(self, request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
        """Record a request before and after it is handled."""
        self.keep("middleware before", request)
        try:
            response: aiohttp.ClientResponse = await handler(request)
        except BaseException as failure:
            self.keep("middleware failure", failure)
            raise
        finally:
            self.keep("middleware after", request)
        self.keep("middleware response", response)
        return response

    def request_class(self) -> type[aiohttp.ClientRequest]:
        """Make a request class that records its arguments, and itself when it is sent."""
        recording = self

        class Request(aiohttp.ClientRequest):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                recording.keep("request class", [args, {k: v for k, v in options.items() if k != "session"}])

            async def send(self, conn: Any) -> aiohttp.ClientResponse:
                try:
                    response = await super().send(conn)
                except BaseException as failure:
                    recording.keep("request class", failure)
                    raise
                recording.keep("sent", self)
                return response

        return Request


def trace_config() -> Observer:
    """The caller's session with a trace config, a middleware and a request class."""
    recording = Recording()

    class Traced(Observer):
        proof = "on_request_end: "

        @staticmethod
        def session(options: dict[str, Any]) -> aiohttp.ClientSession:
            return aiohttp.ClientSession(
                trace_configs=[recording.trace_config()],
                middlewares=[recording.middleware],
                request_class=recording.request_class(),
                headers={"X-Caller": "1"},
                raise_for_status=True,
                **options,
            )

        def meanwhile(self) -> None:
            recording.kept += texts_of_tasks()

        def failed(self, failure: BaseException) -> None:
            recording.keep("raised", failure)

        def texts(self) -> Iterator[str]:
            yield from recording.kept
            recording.kept.clear()

    return Traced()


def printing() -> Observer:
    """Logs at DEBUG, tracebacks printed with all variables, and the event loop's debug mode."""
    stream = io.StringIO()
    logging.basicConfig(stream=stream, level=logging.DEBUG)
    kept: list[str] = []

    class WithVariables(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(repr(vars(record)))
            if record.exc_info is not None and record.exc_info[1] is not None:
                kept.extend(texts_as_printed(record.exc_info[1]))
                kept.extend(texts_of_failure(record.exc_info[1]))

    logging.getLogger().addHandler(WithVariables())

    class Printing(Observer):
        proof = "Executing <"

        def around(self) -> AbstractContextManager[Any]:
            loop = asyncio.get_running_loop()
            loop.set_debug(True)
            loop.slow_callback_duration = 0.0  # have every callback logged, with its repr
            return contextlib.nullcontext()

        def meanwhile(self) -> None:
            kept.extend(texts_of_tasks())

        def failed(self, failure: BaseException) -> None:
            logging.getLogger("app").error("the call failed", exc_info=failure)

        def texts(self) -> Iterator[str]:
            yield stream.getvalue()
            yield from kept
            kept.clear()
            stream.seek(0)
            stream.truncate()

    return Printing()


OBSERVERS: dict[str, Callable[[], Observer]] = {
    "sentry": sentry,
    "sentry with everything": sentry_everything,
    "opentelemetry": opentelemetry,
    "telemetry": telemetry,
    "logfire": logfire,
    "ddtrace": ddtrace,
    "elastic-apm": elasticapm,
    "vcr": vcr,
    "trace config": trace_config,
    "printing": printing,
}
