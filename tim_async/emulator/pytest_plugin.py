"""The pytest fixture ``tim_emulator``: a fresh emulator for each test, synchronous, for any async runner or none.

Wherever tim_async is installed, every run of pytest imports this module, so it imports nothing heavy itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tim_async.emulator import Emulator


@pytest.fixture
def tim_emulator_options() -> dict[str, Any]:
    """The keyword arguments of the test's `Emulator`; override this fixture to set them."""
    return {}


@pytest.fixture
def tim_emulator(tim_emulator_options: dict[str, Any]) -> Iterator[Emulator]:
    """A running `Emulator`, in a thread of its own.

    ::

        def test_unread(tim_emulator):
            tim_emulator.state.add_messages("alice", "bob", 3)
            options = tim_emulator.client_options()  # for TIMClient(**options)
    """
    from tim_async.emulator import Emulator

    with Emulator(**tim_emulator_options) as service:
        yield service
