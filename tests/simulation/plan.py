"""The plan of a seed: a fleet, a service and paths, drawn before the run."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

from tim_async.emulator._windows import Window

from .network import Path, drawn_path
from .process import Load, Profile, Terms
from .watch import Bounds

SHAPES = ("equal", "equal", "lanes", "mixed", "mixed", "quiet")


@dataclass(frozen=True)
class Plan:
    """The plan of one world.

    Attributes:
        seed: its seed.
        seconds: the time for which callers call.
        shape: the kind of fleet.
        limit: the service's limit, calls/s.
        window: the arguments of its `Window`.
        terms: the options common to all processes.
        profiles: the processes at the beginning.
        bounds: the bounds of the invariants.
        agreed: the rate that all processes keep together, calls/s.
        small: whether it is for a short run.
    """

    seed: int
    seconds: float
    shape: str
    limit: int
    window: dict[str, Any]
    terms: Terms
    profiles: tuple[Profile, ...]
    bounds: Bounds
    agreed: float
    small: bool = False

    def make_window(self) -> Window:
        """Make the service's window."""
        return Window(**self.window)

    def __str__(self) -> str:
        strict = "strict" if self.terms.strict else "learning"
        closed = ", fail_closed" if self.terms.quota.get("fail_closed") else ""
        window = " ".join(f"{name}={value}" for name, value in self.window.items())
        return f"{len(self.profiles)} processes, {self.shape}, {strict}{closed}; {window}"


def drawn(seed: int, seconds: float, *, small: bool = False) -> Plan:
    """Draw a plan.

    Args:
        seed: the seed.
        seconds: the time for which callers call.
        small: few processes and calls, and early faults, for a short run.
    """
    dice = random.Random(f"{seed} plan")
    limit = dice.choice((20, 20, 30, 30, 40, 50, 60, 80, 100, 200))
    strict = dice.random() < 0.4
    shape = dice.choice(SHAPES)
    size = dice.randrange(30, 120) if dice.random() < 0.08 else dice.randrange(2, 13)
    limit = min(limit, 80) if size > 12 else limit
    if small:
        size, limit = min(size, 6), dice.choice((20, 20, 30))
    window = _window(dice, limit)
    closed = dice.random() < (0.5 if strict else 0.3)
    terms = Terms(strict, _quota_options(dice, closed, size))
    to_service = drawn_path(dice, (0.0025, 0.01, 0.025, 0.05))
    to_store = drawn_path(dice, (0.0002, 0.0005, 0.001, 0.005, 0.02))
    loads = _loads(dice, shape, size, limit, 2 * to_service.mean, 2 * to_store.mean)
    # Some processes name a smaller rate than the others; some limit only themselves.
    agreed = float(round(limit * dice.uniform(0.5, 0.95))) if dice.random() < 0.2 else float(limit)
    wanting = agreed == limit and shape == "mixed" and dice.random() < 0.4
    profiles = []
    # Some fleets are in a deployment.
    releases = random.Random(f"{seed} releases")
    mixed = releases.random() < 0.3
    for number, load in enumerate(loads):
        last = number == len(loads) - 1
        rate = round(limit * 0.3) if wanting and last else agreed if last or dice.random() < 0.2 else limit
        own = dice.uniform(0.8, 1.2) if shape != "equal" else 1.0
        profiles.append(
            Profile(
                load=load,
                rate=float(rate),
                own_rate=wanting and last,
                later=mixed and releases.random() < 0.5,
                to_service=_scaled(to_service, own),
                to_store=_scaled(to_store, own),
                offset=dice.uniform(0.0, 1e6),
                speed=1.0 + dice.uniform(-1e-4, 1e-4),
            )
        )
    return Plan(
        seed=seed,
        seconds=seconds,
        shape=shape,
        limit=limit,
        window=window,
        terms=terms,
        profiles=tuple(profiles),
        bounds=_bounds(shape, limit, agreed, terms, to_service, to_store, loads),
        agreed=agreed,
        small=small,
    )


def _quota_options(dice: random.Random, closed: bool, size: int) -> dict[str, Any]:
    timeout = dice.choice((None, None, 0.25))
    if closed:
        return {"fail_closed": True, "timeout": timeout}
    # The fallback share is an option, or derived from the number of members.
    return {"fallback_share": dice.choice((None, 1.0 / (size + 4))), "timeout": timeout}


def _scaled(path: Path, factor: float) -> Path:
    return Path(path.mean * factor, path.variation, path.spikes, path.spike)


def _window(dice: random.Random, limit: int) -> dict[str, Any]:
    kind = dice.choice(("sliding", "sliding", "calendar", "bucket"))
    window: dict[str, Any] = {"kind": kind, "limit": limit}
    if kind == "bucket":
        window["capacity"] = max(1, round(limit * dice.choice((1.0, 1.0, 0.5))))
    if kind == "sliding":
        window["count_refused"] = dice.random() < 0.4
    return window


def _loads(dice: random.Random, shape: str, size: int, limit: int, rtt: float, store_rtt: float) -> tuple[Load, ...]:
    # With so many concurrent callers, the limit is reached despite the latency of the service and the store.
    callers = math.ceil(1.5 * limit * (rtt + 3 * store_rtt + 0.1) / size) + 2
    match shape:
        case "equal":
            return (Load(interactive=callers),) * size
        case "lanes":
            # Interactive calls are a small part, as when users share the quota with migrations.
            visitors = max(0.3, 0.15 * limit / size)
            return (Load(bulk=callers, visitors=visitors),) * size
        case "quiet":
            return (Load(visitors=0.5 * limit / size, lookups=0.1 * limit / size),) * size
    loads = [
        Load(
            interactive=callers if dice.random() < 0.5 else 0,
            bulk=2 * callers if dice.random() < 0.5 else 0,
            visitors=dice.choice((0.0, 0.1, 0.3)) * limit / size,
            lookups=dice.choice((0.0, 0.0, 0.2)) * limit / size,
            cancel=dice.choice((0.0, 0.3, 1.0)),
            max_wait=dice.choice((None, 0.0, 0.05, 0.5, 2.0)),
        )
        for _ in range(size)
    ]
    loads[0] = Load(interactive=callers * min(size, 12), cancel=0.3)
    return tuple(loads)


def _bounds(
    shape: str,
    limit: int,
    agreed: float,
    terms: Terms,
    to_service: Path,
    to_store: Path,
    loads: tuple[Load, ...],
) -> Bounds:
    rtt = 2 * (to_service.mean + to_service.spikes * to_service.spike)
    # Slots alone allow the limit in a second and a round trip; the credit wins back a part of the round trip.  A slot
    # also stays empty until its next call is granted, for the slowest message to the store and back.  Bulk leaves two
    # or more slots free.
    slots = agreed - (max(2, math.ceil(agreed / 20)) if shape == "lanes" else 0) - 1  # three seconds are few calls
    attainable = slots / (1.001 + rtt + (3 + 2 * to_store.variation) * to_store.mean)
    return Bounds(
        limit=limit,
        agreed=agreed,
        # Permits of cancelled calls, or of calls past their max_wait, are wasted.
        goodput={"quiet": 0.0, "mixed": 0.8}.get(shape, 0.9) * attainable,
        strict=terms.strict,
        refused=2.0,
        fair=0.5 if shape == "equal" else 0.0,
        wait=0.5 + 6 * to_store.mean if shape == "lanes" else math.inf,
        elements=3 * limit + 100 + 12 * (len(loads) + 100),
    )
