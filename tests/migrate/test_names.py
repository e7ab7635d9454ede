"""The public names of ``tim_async.migrate`` and ``tim_async.migrate.streams``."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

PACKAGES = ["tim_async.migrate", "tim_async.migrate.streams"]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_public_names(package: str) -> None:
    """Each exists, is listed by dir(), and is no module's name: importing the module would replace it."""
    found = importlib.import_module(package)
    public = vars(found)["__all__"]
    for name in public:
        assert getattr(found, name) is not None
        assert name in dir(found)
        assert inspect.getdoc(getattr(found, name)) or name.isupper(), name
    assert {module.name for module in pkgutil.iter_modules(found.__path__)}.isdisjoint(public)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = found.nothing


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_no_other(package: str) -> None:
    """Neither the client's HTTP library nor the databases."""
    program = f"import sys, {package}; print({{'aiohttp', 'redis', 'sqlite3'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
