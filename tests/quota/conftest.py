"""One store for all tests that neither stop nor empty it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.store import Store


@pytest.fixture(scope="session")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A running Valkey shared by many tests, each with a namespace of its own; no test may stop or empty it."""
    with Store(tmp_path_factory.mktemp("lasting") / "valkey") as running:
        yield running
