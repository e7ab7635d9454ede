"""Look-ups of one thing each, which merge themselves into calls of many."""

from __future__ import annotations

from .dispatch import Dispatcher, Options


class Lookup:
    """The look-ups of one client: ``tim.lookup``."""

    def __init__(self, dispatcher: Dispatcher, options: Options) -> None:
        self._dispatcher = dispatcher
        self._options = options
