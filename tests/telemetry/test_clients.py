"""One telemetry object serves many clients, loops and threads, and a failing hook fails no call."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import sys
import threading
import weakref
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import aiohttp
import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from tests.programs import PIPE, ForkedProgram
from tests.stand_in import APP, KEY, Fate, StandIn, client_of, error, failure_of
from tests.store import Store
from tim_async import Attempt, Lane, QuotaExhausted, TIMClient, TIMError
from tim_async.emulator import Emulator
from tim_async.quota import RedisQuota
from tim_async.telemetry import OpenTelemetry, Prometheus, Telemetry

from .exporting import Exporting

ROOT = Path(__file__).parents[2]
COUNT, SET = "get_c2c_unread_msg_num", "set_unread_msg_num"


async def test_gauges_are_summed_over_the_clients_of_an_app(service: StandIn) -> None:
    """A closed client leaves the gauges, and its attempts stay counted."""
    exporting = Exporting()
    options: dict[str, Any] = {"on_attempt": exporting.hooks, "rates": {SET: 3}}
    service.answer = lambda _: Fate.HOLD
    async with client_of(service, **options) as one:
        async with client_of(service, **options) as two, client_of(service, sdk_app_id=APP + 1, **options) as other:
            calls = [asyncio.ensure_future(tim.set_unread_msg_num("g", "m", 1)) for tim in [one, two, other] * 4]
            await service.until(9)
            for app, number in ((APP, 2), (APP + 1, 1)):
                assert exporting.total("tim.in_flight", app=app, endpoint=SET) == 3 * number
                assert exporting.total("tim.queued", app=app, endpoint=SET) == number
                assert exporting.total("tim.rate", app=app, endpoint=SET) == 3 * number
                assert exporting.total("tim.limit", app=app, endpoint=SET) == 3
        assert exporting.total("tim.in_flight") == exporting.total("tim.rate") == 3
        service.answer = lambda _: error(10010)
        service.let_go.set()
        await asyncio.gather(*calls, return_exceptions=True)
    assert "tim_rate{" not in exporting.text
    assert exporting.total("tim.attempt.duration", app=APP) >= 6
    assert exporting.total("tim.attempt.duration") == len(exporting.attempts) == len(exporting.spans())


async def test_the_rate_of_a_shared_quota_is_not_summed(service: StandIn, store: Store) -> None:
    """It is that of all processes together; calls in flight are summed."""
    exporting = Exporting()
    options: dict[str, Any] = {"on_attempt": exporting.hooks, "rates": {SET: 50}, "quota": RedisQuota(store.url)}
    service.answer = lambda _: Fate.HOLD
    async with client_of(service, **options) as one, client_of(service, **options) as two:
        calls = [asyncio.ensure_future(tim.set_unread_msg_num("g", "m", 1)) for tim in (one, two)]
        await service.until(2)
        assert exporting.total("tim.in_flight") == 2
        for name, value in {"rate": 50, "limit": 50, "shared": 1}.items():
            assert exporting.total(f"tim.{name}", endpoint=SET) == value
        assert exporting.total("tim.processes") == max(tim.stats()[SET].processes for tim in (one, two))
        service.let_go.set()
        await asyncio.gather(*calls, return_exceptions=True)


async def test_a_client_is_kept_alive_by_its_view_but_not_by_telemetry(service: StandIn) -> None:
    exporting = Exporting()
    session = aiohttp.ClientSession()
    client = client_of(service, on_attempt=exporting.hooks, session=session)
    view, gone = client.with_options(timeout=1.0), weakref.ref(client)
    assert await view.get_all_c2c_unread_msg_num("alice") == 7
    del client
    gc.collect()
    assert (gone(), exporting.total("tim.processes")) == (None, 1)
    del view  # neither needs to be closed, since the session is the caller's
    gc.collect()
    assert "tim_processes{" not in exporting.text
    assert exporting.total("tim.attempt.duration") == 1
    await session.close()


def test_scrapes_during_calls_in_two_other_threads() -> None:
    """The calls are to ever new endpoints."""
    exporting = Exporting()
    failures: list[BaseException] = []

    async def calls() -> None:
        async with TIMClient(**service.client_options(), on_attempt=exporting.hooks) as tim:
            for number in range(40):
                await failure_of(tim.call(f"v4/x/y{number}", {}))
                await failure_of(tim.set_unread_msg_num("@TGS#none", "alice", 1))

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as failure:  # noqa: BLE001 - shown below
            failures.append(failure)

    with Emulator() as service:
        threads = [threading.Thread(target=guarded, args=(lambda: asyncio.run(calls()),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            generate_latest(exporting.registry)
            list(exporting.points())
        for thread in threads:
            thread.join()
        report = service.report()
    assert failures == []
    assert exporting.total("tim.attempt.duration") == report.total.calls == 160
    assert exporting.total("tim.attempt.duration", endpoint=SET) == report.endpoints[SET].calls == 80


class Broken(Telemetry):
    """Raises wherever it can."""

    def __init__(self) -> None:
        super().__init__()
        self.around = self.fails

    def fails(self) -> AbstractContextManager[object]:
        raise RuntimeError("around is broken")

    def __call__(self, attempt: Attempt) -> None:
        raise RuntimeError("the hook is broken")

    def failed(self, sdk_app_id: int, endpoint: str, lane: Lane, error: TIMError) -> None:
        raise RuntimeError("failed is broken")


class Leaving(Telemetry):
    """Fails when the request has been sent."""

    def __init__(self) -> None:
        super().__init__()
        self.around = lambda: self

    def __enter__(self) -> None:
        """Succeeds."""

    def __exit__(self, *_: object) -> bool:
        raise RuntimeError("leaving is broken")


async def test_a_failing_hook_fails_no_call_and_no_other_hook(
    service: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    """Each failure is logged."""
    exporting = Exporting()
    service.script.append(error(10002))
    async with client_of(service, on_attempt=[Broken(), Leaving(), *exporting.hooks], rates={COUNT: 2}) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
        with pytest.raises(QuotaExhausted):
            await tim.with_options(max_wait=0).get_all_c2c_unread_msg_num("alice")
    assert exporting.total("tim.attempt.duration") == len(service.seen) == 2
    assert exporting.total("tim.failures", error="QuotaExhausted") == 1
    for text, times in {"around is": 2, "the hook is": 2, "failed is": 1, "leaving is": 2}.items():
        assert caplog.text.count(f"RuntimeError: {text} broken") == times


def test_an_invalid_hook_is_rejected() -> None:
    """Also in a list."""

    async def awaited(attempt: Attempt) -> None:
        """Never runs."""

    class Awaited:
        async def __call__(self, attempt: Attempt) -> None:
            """Never runs."""

    class Late(Telemetry):
        async def failed(self, *about: object) -> None:
            """Never runs."""

    class Unmade(Telemetry):
        def __init__(self) -> None:
            """Does not call that of its base."""

    classes = (Prometheus, OpenTelemetry, Late)
    for wrong in (awaited, [print, awaited], [None], 7, "print", Awaited(), Late(), Unmade(), *classes, [Prometheus]):
        given: Any = wrong
        with pytest.raises(TypeError, match=r"^on_attempt(:| must be) "):
            TIMClient(sdk_app_id=APP, secret_key=KEY, region="singapore", on_attempt=given)


def test_a_registry_takes_one_prometheus() -> None:
    """The default is the global registry."""
    registry = CollectorRegistry()
    Prometheus(registry)
    with pytest.raises(ValueError, match="make one Prometheus"):
        Prometheus(registry)
    before = {*prometheus_client.REGISTRY._collector_to_names}
    Prometheus()
    added = {*prometheus_client.REGISTRY._collector_to_names} - before
    assert len(added) == 6
    for collector in added:
        prometheus_client.REGISTRY.unregister(collector)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("OpenTelemetry", "opentelemetry", "otel"), ("Prometheus", "prometheus_client", "prometheus")],
)
def test_a_missing_package_is_an_import_error_with_its_extra(
    name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tim_async.telemetry` itself needs neither package."""
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"tim_async.telemetry._{name.lower()}")
    monkeypatch.delitem(sys.modules, "tim_async.telemetry")
    telemetry = importlib.import_module("tim_async.telemetry")
    with pytest.raises(ImportError, match=rf"pip install 'tim-async\[{extra}\]'"):
        getattr(telemetry, name)


def test_nothing_is_suppressed_without_opentelemetrys_instrumentation(monkeypatch: pytest.MonkeyPatch) -> None:
    """That package is optional."""
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.utils", None)
    assert OpenTelemetry().around is None
    monkeypatch.undo()
    assert OpenTelemetry().around is not None


WORKER = """
import asyncio, json, sys
from prometheus_client import CollectorRegistry
from tim_async import QuotaExhausted, TIMClient
from tim_async.telemetry import Prometheus

async def main():
    async with TIMClient(**json.loads(sys.argv[1]), on_attempt=Prometheus(), rates={"set_unread_msg_num": 5}) as tim:
        users = tim.with_options(max_wait=0)
        ended = await asyncio.gather(
            *(users.set_unread_msg_num("g", "m", 1) for _ in range(20)), return_exceptions=True
        )
        print(sum(isinstance(each, QuotaExhausted) for each in ended))

asyncio.run(main())
"""


@pytest.mark.processes
def test_the_workers_of_a_web_app_are_summed_in_multiprocess_mode(tmp_path: Path) -> None:
    """Histograms and counters."""
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    with Emulator() as service:
        command = ("-c", WORKER, json.dumps(service.client_options()))
        exhausted = 0
        for _ in range(2):
            with ForkedProgram(*command, env=env, cwd=ROOT, stdout=PIPE, stderr=PIPE) as worker:
                output, errors = worker.communicate(timeout=60)
                assert (worker.wait(), errors) == (0, "")
                exhausted += int(output)
        calls = service.report().total.calls
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(tmp_path))  # type: ignore[no-untyped-call]
    found = {
        (sample.name, sample.labels.get("error", "")): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }
    assert found["tim_failures_total", "QuotaExhausted"] == exhausted > 0
    assert found["tim_attempt_wait_seconds_count", ""] == calls == 40 - exhausted
