"""Faults put into the product's code by hand, to see that they are found.

`apply` comes before anything of the product is imported: it changes the text of a module as that is read, or that of
the script as it is run.
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
    """One fault.

    Attributes:
        module: the module's name; "" for the script.
        old: what is there; it must be there once.
        new: what is there instead.
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

"""Of fleets."""

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
"""Of migrations."""


_in_script: list[Mutant] = []


def apply(name: str | None) -> None:
    """Let the product have a fault, in this process, from its import on; None for none."""
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
    """The script as it is run: with the fault in it, if there is one."""
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
        """Compile the changed text; what is cached is the unchanged one's."""
        source = changed(self.get_data(self.path).decode(), self._mutant)
        return compile(source, self.path, "exec", dont_inherit=True)


def changed(source: str, mutant: Mutant) -> str:
    """The text with the fault in it.

    Raises:
        ValueError: what is to be changed is not there, or more than once.
    """
    if source.count(mutant.old) != 1:
        raise ValueError(f"{mutant.module or 'the script'} has {mutant.old!r} {source.count(mutant.old)} times")
    return source.replace(mutant.old, mutant.new)
