"""Faults put into the product's code by hand, to see that they are found.

`apply` comes before anything of the product is imported: it changes the text of a module, or of the script, as that is
read.
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
        module: the module's name; the script is read by ``tim_async.quota``.
        old: what is there; it must be there once.
        new: what is there instead.
        script: whether it is in ``quota.lua`` and not in the module.
    """

    module: str
    old: str
    new: str
    script: bool = False


MUTANTS: dict[str, Mutant] = {}


def apply(name: str | None) -> None:
    """Let the product have a fault, in this process, from its import on; None for none."""
    if name is not None:
        if any(loaded.startswith("tim_async") for loaded in sys.modules):
            raise RuntimeError("the product has been imported already")
        sys.meta_path.insert(0, _Finder(MUTANTS[name]))


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
        source = self.get_data(self.path).decode()
        if not self._mutant.script:
            source = changed(source, self._mutant)
        return compile(source, self.path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        if self._mutant.script:
            text = changed(module._source(), self._mutant)
            module._source = lambda: text  # type: ignore[attr-defined]


def changed(source: str, mutant: Mutant) -> str:
    """The text with the fault in it.

    Raises:
        ValueError: what is to be changed is not there, or more than once.
    """
    if source.count(mutant.old) != 1:
        raise ValueError(f"{mutant.module} has {mutant.old!r} {source.count(mutant.old)} times")
    return source.replace(mutant.old, mutant.new)
