"""Spans follow the conventions for HTTP clients, are children of the caller's, and are made once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.trace import SpanKind, StatusCode

from tests.observers.places import Refusing
from tests.stand_in import APP, OTHER, Fate, StandIn, client_of, error, failure_of, page

from .exporting import Exporting

COUNT = "get_c2c_unread_msg_num"
COMMAND = f"v4/openim/{COUNT}"


async def test_each_attempt_is_a_child_span_of_the_callers(service: StandIn) -> None:
    """With its times, and the attributes of the conventions."""
    exporting = Exporting()
    service.script.extend([page(502), error(10002), Fate.DROP])
    async with client_of(service, on_attempt=exporting.hooks) as tim:
        with exporting.tracer.start_as_current_span("inbox") as inbox:
            await tim.get_all_c2c_unread_msg_num("alice")
        await tim.call(OTHER, {"GroupIdList": ["@TGS#1"]})
    *tries, other = exporting.spans()
    assert len(tries) == len(exporting.attempts) - 1 == 4
    assert {span.parent.span_id for span in tries if span.parent} == {inbox.get_span_context().span_id}
    assert (other.parent, other.name) == (None, f"POST /{OTHER}")
    common = {
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": service.port,
        "url.full": f"{service.url}/{COMMAND}",
        "tim.app": APP,
        "tim.endpoint": COUNT,
        "tim.command": COMMAND,
        "tim.lane": "interactive",
    }
    special: list[dict[str, Any]] = [
        {"http.response.status_code": 502, "error.type": "BadResponse"},
        {"http.response.status_code": 200, "error.type": "ServerBusy", "tim.code": 10002},
        {"error.type": "ConnectionLost"},
        {"http.response.status_code": 200, "tim.code": 0},
    ]
    for number, (span, attempt, its) in enumerate(zip(tries, exporting.attempts, special, strict=False), 1):
        resend = {"http.request.resend_count": number - 1} if number > 1 else {}
        expected = {**common, **its, **resend, "tim.attempt": number, "tim.wait": attempt.waited}
        assert dict(span.attributes or {}) == expected
        assert (span.name, span.kind) == (f"POST /{COMMAND}", SpanKind.CLIENT)
        assert span.status.status_code is (StatusCode.ERROR if attempt.error else StatusCode.UNSET)
        assert span.status.description is None
        assert span.start_time is not None
        assert span.end_time is not None
        assert abs(span.start_time - attempt.started * 1e9) < 1000
        assert abs(span.end_time - span.start_time - attempt.took * 1e9) < 1000
    assert [span.start_time for span in tries] == sorted(span.start_time or 0 for span in tries)


async def test_attempts_without_an_answer_have_spans(service: StandIn) -> None:
    """A failed connection, a timeout and a cancelled call."""
    exporting = Exporting()
    async with Refusing() as nobody, client_of(service, base_url=nobody.url, on_attempt=exporting.hooks) as tim:
        await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    async with client_of(service, on_attempt=exporting.hooks) as tim:
        await tim.call(OTHER, {})  # connects, so that the timeout below does not include it
        service.answer = lambda _: Fate.HOLD
        await failure_of(tim.with_options(timeout=0.2).call(OTHER, {}))
        await service.until(2)
        call = asyncio.ensure_future(tim.get_all_c2c_unread_msg_num("alice"))
        await service.until(3)
        call.cancel()
        await asyncio.wait([call])
    errors = [(span.attributes or {}).get("error.type") for span in exporting.spans()]
    assert errors == [*["ConnectFailed"] * 8, None, "RequestTimeout", "CancelledError"]
    for failure, attempts, calls in (("ConnectFailed", 8, 1), ("RequestTimeout", 1, 1), ("CancelledError", 1, 0)):
        assert exporting.total("tim.attempt.duration", error=failure) == attempts
        assert exporting.total("tim.failures", error=failure) == calls
    service.violations.clear()


@pytest.fixture
def instrumented() -> Iterator[Exporting]:
    """OpenTelemetry's instrumentation of aiohttp's client, with the same exporters."""
    exporting = Exporting()
    instrumentation = AioHttpClientInstrumentor()
    instrumentation.instrument(tracer_provider=exporting.provider, meter_provider=exporting.meters)
    yield exporting
    instrumentation.uninstrument()


THEIRS = "opentelemetry.instrumentation.aiohttp_client"


async def test_the_instrumentation_of_aiohttp_does_not_record_a_request_again(
    instrumented: Exporting, service: StandIn
) -> None:
    """Neither as a span nor as a metric; other requests, also of the same task, are recorded."""
    service.script.extend([error(10002), Fate.DROP])
    with instrumented.tracer.start_as_current_span("inbox"):
        async with client_of(service, on_attempt=instrumented.hooks) as tim:
            await tim.get_all_c2c_unread_msg_num("alice")
        assert len(instrumented.spans()) == len(service.seen) == 3
        assert instrumented.spans(THEIRS) == []
        assert "http.client.duration" not in dict(instrumented.points())
        async with client_of(service, on_attempt=[instrumented.prometheus]) as tim:
            await tim.get_all_c2c_unread_msg_num("alice")
    assert (len(instrumented.spans()), len(instrumented.spans(THEIRS))) == (3, 1)


async def test_metrics_alone_leave_the_instrumentation_of_aiohttp_on(service: StandIn, instrumented: Exporting) -> None:
    """As with ``spans=False``."""
    metrics = Exporting(spans=False)
    async with client_of(service, on_attempt=metrics.hooks) as tim:
        await tim.get_all_c2c_unread_msg_num("alice")
    assert (metrics.spans(), len(instrumented.spans(THEIRS))) == ([], 1)
    assert metrics.total("tim.attempt.duration", code=0) == 1
