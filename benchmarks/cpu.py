"""Process CPU of a call, compared with a bare `session.post`, read and `json.loads` of the same work.

Nothing waits: the rates are far above the speed of one process, and the endpoint answers at once.  Each measurement
runs in a fresh interpreter, with the server in another process, and only the ratio within a pair is quoted: on a shared
machine, CPU seconds differ by a third from one minute to the next.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import aiohttp
import yarl

from benchmarks import calls
from benchmarks.policies import client, post, url, wide_session
from benchmarks.remote import fresh, server
from benchmarks.server import Config
from benchmarks.tables import table

NAME = "set_unread_msg_num"
TASKS = 32
WARM_UP = 500
"""Calls before the measurement: they open connections, fill caches and let the interpreter specialise the code."""

Once = Callable[[int], Awaitable[object]]


async def _many(once: Once, count: int) -> None:
    """Make `count` calls in `TASKS` tasks."""
    serials = iter(range(count))

    async def work() -> None:
        for serial in serials:
            await once(serial)

    await asyncio.gather(*(work() for _ in range(TASKS)))


async def _cpu_per_call(once: Once, count: int) -> float:
    await _many(once, WARM_UP)
    start = time.process_time()
    await _many(once, count)
    return (time.process_time() - start) / count


async def _bare(base_url: str, count: int) -> float:
    """Call as most programs would: a URL as text, `json=`, read, `json.loads`."""
    async with wide_session() as session:
        return await _cpu_per_call(lambda n: post(session, base_url, NAME, calls.body(NAME, n)), count)


async def _lean(base_url: str, count: int) -> float:
    """Call with aiohttp's least work: a URL that needs no quoting, a body of bytes."""
    headers = {"Content-Type": "application/json"}
    async with wide_session() as session:

        async def once(serial: int) -> None:
            target = yarl.URL(url(base_url, NAME), encoded=True)
            data = json.dumps(calls.body(NAME, serial)).encode()
            async with session.post(target, data=data, headers=headers) as response:
                json.loads(await response.read())

        return await _cpu_per_call(once, count)


async def _tim_async(base_url: str, count: int, hook: Callable[[Any], object] | None = None) -> float:
    async with client(base_url, 1e6, on_attempt=hook) as tim:
        return await _cpu_per_call(lambda n: tim.set_unread_msg_num("group", f"member{n}", 1), count)


async def _function(base_url: str, count: int) -> float:
    """Call with a hook that does nothing: the cost of the record alone."""
    return await _tim_async(base_url, count, lambda _: None)


async def _prometheus(base_url: str, count: int) -> float:
    from tim_async.telemetry import Prometheus

    return await _tim_async(base_url, count, Prometheus())


async def _opentelemetry(base_url: str, count: int, ratio: float | None) -> float:
    """Call with OpenTelemetry's SDK; a share of the spans is sampled, batched and discarded; None for metrics alone."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

    from tim_async.telemetry import OpenTelemetry

    class NullExporter(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002 - they are discarded
            return SpanExportResult.SUCCESS

    provider = TracerProvider(sampler=TraceIdRatioBased(ratio or 0.0))
    provider.add_span_processor(BatchSpanProcessor(NullExporter()))
    meters = MeterProvider([InMemoryMetricReader()])
    hook = OpenTelemetry(tracer_provider=provider, meter_provider=meters, spans=ratio is not None)
    return await _tim_async(base_url, count, hook)


KINDS: dict[str, Callable[[str, int], Awaitable[float]]] = {
    "bare post": _bare,
    "lean post": _lean,
    "tim_async": _tim_async,
    "tim_async, a function": _function,
    "tim_async, Prometheus": _prometheus,
    "tim_async, OpenTelemetry, metrics": functools.partial(_opentelemetry, ratio=None),
    "tim_async, OpenTelemetry, 1 % of spans": functools.partial(_opentelemetry, ratio=0.01),
    "tim_async, OpenTelemetry, all spans": functools.partial(_opentelemetry, ratio=1.0),
}


async def measured(kind: str, base_url: str, count: int) -> float:
    """Return the CPU seconds of a call."""
    return await KINDS[kind](base_url, count)


def measure(*, pairs: int = 5, calls: int = 5000, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure every kind in turn, `pairs` times; return medians, and medians of the ratios within a turn."""
    kinds = list(KINDS)
    runs: list[dict[str, float]] = []
    with server(Config(window="none", record=False)) as remote:
        for number in range(pairs):
            say(f"cpu: turn {number + 1} of {pairs}")
            # The order alternates, so that no kind always runs first.
            turn = kinds if number % 2 == 0 else kinds[::-1]
            runs.append({kind: fresh(measured, kind=kind, base_url=remote.base_url, count=calls) for kind in turn})
    return {
        "calls": calls,
        "tasks": TASKS,
        "pairs": pairs,
        "aiohttp": aiohttp.__version__,
        "kinds": {
            kind: {
                "microseconds": median(run[kind] for run in runs) * 1e6,
                "to_bare": median(run[kind] / run["bare post"] for run in runs),
                "to_lean": median(run[kind] / run["lean post"] for run in runs),
            }
            for kind in kinds
        },
        "runs": runs,
    }


def tables(result: dict[str, Any]) -> list[str]:
    """Format the result as one table."""
    rows = [
        [kind, f"{figures['microseconds']:.0f}", f"{figures['to_bare']:.2f}", f"{figures['to_lean']:.2f}"]
        for kind, figures in result["kinds"].items()
    ]
    title = (
        f"CPU: process CPU of a call, {result['tasks']} tasks, {result['calls']:,} calls "
        f"(medians of {result['pairs']} paired runs)"
    )
    return [table(title, ["what", "µs a call", "to bare post", "to lean post"], rows)]


NOTES = [
    "bare post: session.post(url, json=…), read, json.loads; lean post: an encoded yarl.URL, a body of bytes",
    "to …: the median of the ratios within each turn",
]
