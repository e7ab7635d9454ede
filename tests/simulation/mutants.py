"""Mutants: hand-made faults in the product's code, to check that the simulation finds them.

Call `apply` before anything of the product is imported: it changes the source of a module at import, or that of the
script when it runs.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """One mutant.

    Attributes:
        module: the module's name; "" for the script.
        old: the original text, which must occur exactly once.
        new: the faulty text.
    """

    module: str
    old: str
    new: str


MUTANTS: dict[str, Mutant] = {
    "slot freed early": Mutant(
        "",
        "local free = freed[2] - ago\n",
        "local free = freed[2] - ago - 300 * MS\n",
    ),
    "report lost": Mutant(
        "tim_async._limiter.permits",
        "        if reported:\n",
        "        if reported and number % 4:\n",
    ),
    "pause ignored": Mutant(
        "tim_async._limiter.queue",
        "        if now < self._paused_until:\n",
        "        if now < self._paused_until - 60.0:\n",
    ),
    "pause not told": Mutant(
        "tim_async._limiter.queue",
        "        self._limiter.paused(seconds)\n",
        "",
    ),
    "credit doubled": Mutant(
        "tim_async._limiter.learning",
        "        self._guaranteed = max(0.0, 0.9 * self._smallest - self.SLACK)\n",
        "        self._guaranteed = 2.0 * max(0.0, 0.9 * self._smallest - self.SLACK)\n",
    ),
    "queue jumped": Mutant(
        "tim_async._limiter.queue",
        "            if delay == 0.0:\n                waiting, _ = waiters.popitem(last=False)\n",
        "            if delay == 0.0:\n                waiting, _ = waiters.popitem(last=True)\n",
    ),
}

"""The mutants for fleets."""

OF_MIGRATIONS: dict[str, Mutant] = {
    "claim confirmed before it is written": Mutant(
        "tim_async.migrate._journal_writer",
        "                        json.dumps([claim.row.line for claim in new]),\n",
        "                        json.dumps([claim.row.line for claim in new[1:]]),\n",
    ),
    "claim written and not synchronized": Mutant(
        "tim_async.migrate._journal_writer",
        'self._db.execute("PRAGMA synchronous = FULL")',
        'self._db.execute("PRAGMA synchronous = NORMAL")',
    ),
    "outcome dropped at the end": Mutant(
        "tim_async.migrate._sending",
        "            if self._outcomes:\n                await self._exchange(0)\n",
        "            if self._outcomes and not self._in_flight:\n                await self._exchange(0)\n",
    ),
    "claim forgotten on resuming": Mutant(
        "tim_async.migrate._journal_writer",
        'self._claimed_before = {line for (line,) in fetch(db, "SELECT line FROM claim")}',
        "self._claimed_before = set()",
    ),
    "lease not renewed": Mutant(
        "tim_async.migrate._redis",
        "            ids = [held.id for held in self._held.values()]\n",
        "            ids: list[str] = []\n",
    ),
}
"""The mutants for migrations."""


_in_script: list[Mutant] = []


def apply(name: str | None) -> None:
    """Apply a mutant, by its name, to imports in this process; None for none."""
    if name is None:
        return
    if any(loaded.startswith("tim_async") for loaded in sys.modules):
        raise RuntimeError("the product has been imported already")
    mutant = {**MUTANTS, **OF_MIGRATIONS}[name]
    if mutant.module:
        sys.meta_path.insert(0, _Finder(mutant))
    else:
        _in_script.append(mutant)


def as_run(script: str) -> str:
    """Return the script to run, with the mutant if it is one of the script."""
    for mutant in _in_script:
        script = changed(script, mutant)
    return script


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        assert spec is not None
        assert spec.origin is not None
        return spec_from_loader(fullname, _Loader(fullname, spec.origin, self._mutant), origin=spec.origin)


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, mutant: Mutant) -> None:
        super().__init__(fullname, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> Any:
        """Compile the changed source; the bytecode cache has the unchanged one."""
        source = changed(self.get_data(self.path).decode(), self._mutant)
        return compile(source, self.path, "exec", dont_inherit=True)


def changed(source: str, mutant: Mutant) -> str:
    """Return the source with the mutant.

    Raises:
        ValueError: the original text does not occur exactly once.
    """
    if source.count(mutant.old) != 1:
        raise ValueError(f"{mutant.module or 'the script'} has {mutant.old!r} {source.count(mutant.old)} times")
    return source.replace(mutant.old, mutant.new)
