"""What a seed stands for: a fleet, a service and paths, drawn before anything runs."""

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
    """One world.

    Attributes:
        seed: what it was drawn from.
        seconds: how long the callers call.
        shape: the kind of fleet.
        limit: what the service allows, calls/s.
        window: the arguments of its `Window`.
        terms: what all processes have in common.
        profiles: the processes at the beginning.
        bounds: what is demanded.
        agreed: the rate that all processes keep to together, calls/s.
        small: whether it is for a short look.
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
        """The service's window."""
        return Window(**self.window)

    def __str__(self) -> str:
        strict = "strict" if self.terms.strict else "learning"
        closed = ", fail_closed" if self.terms.quota.get("fail_closed") else ""
        window = " ".join(f"{name}={value}" for name, value in self.window.items())
        return f"{len(self.profiles)} processes, {self.shape}, {strict}{closed}; {window}"


def drawn(seed: int, seconds: float, *, small: bool = False) -> Plan:
    """Draw a plan.

    Args:
        seed: what it is drawn from.
        seconds: how long the callers call.
        small: few processes and calls, and faults soon: for a short look.
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
    # Some name a smaller rate than the others; some want less for themselves.
    agreed = float(round(limit * dice.uniform(0.5, 0.95))) if dice.random() < 0.2 else float(limit)
    wanting = agreed == limit and shape == "mixed" and dice.random() < 0.4
    profiles = []
    # Some fleets are in the middle of a deployment.
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
    # The share is known beforehand, or follows from how many there were.
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
    # So many at once keep the limit busy, however long they wait for the service and for the store.
    callers = math.ceil(1.5 * limit * (rtt + 3 * store_rtt + 0.1) / size) + 2
    match shape:
        case "equal":
            return (Load(interactive=callers),) * size
        case "lanes":
            # What is asked for interactively is a small part, as where users share the quota with migrations.
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
    # The proof gives the limit over a second and a round trip; the credit wins back a part of the round trip.  A slot
    # also waits until its next call is granted, for the slowest of the messages to the store and back that this takes.
    # Bulk leaves two slots free, or more.
    slots = agreed - (max(2, math.ceil(agreed / 20)) if shape == "lanes" else 0) - 1  # three seconds are few calls
    attainable = slots / (1.001 + rtt + (3 + 2 * to_store.variation) * to_store.mean)
    return Bounds(
        limit=limit,
        agreed=agreed,
        # Permits of calls that were cancelled, or would not wait, are used by nobody.
        goodput={"quiet": 0.0, "mixed": 0.8}.get(shape, 0.9) * attainable,
        strict=terms.strict,
        refused=2.0,
        fair=0.5 if shape == "equal" else 0.0,
        wait=0.5 + 6 * to_store.mean if shape == "lanes" else math.inf,
        elements=3 * limit + 100 + 12 * (len(loads) + 100),
    )
