"""Metrics and traces of a client: hooks for ``TIMClient(on_attempt=…)``.

::

    prometheus = Prometheus()  # one for all clients of the process
    tim = TIMClient.from_env(on_attempt=prometheus)  # or [OpenTelemetry(), prometheus]

`OpenTelemetry` needs the extra ``otel``, `Prometheus` the extra ``prometheus``.  Both derive from `Telemetry`, as may
a hook for another system.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tim_async._hooks import Telemetry as Telemetry
from tim_async._lazy import attach as _attach

if TYPE_CHECKING:
    from ._opentelemetry import OpenTelemetry as OpenTelemetry
    from ._prometheus import Prometheus as Prometheus

_HOME = {"OpenTelemetry": "_opentelemetry", "Prometheus": "_prometheus"}

__all__ = ["OpenTelemetry", "Prometheus", "Telemetry"]


if not TYPE_CHECKING:  # to a type checker, a name that is not above is a mistake
    __getattr__, __dir__ = _attach(__name__, _HOME)
