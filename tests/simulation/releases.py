"""A later release of the product, as far as the store sees it: its script, and what it says more.

It has the same layout, so it shares the quota with this one.  A field more is in everything that the two exchange: in
requests and replies, in the state and in what is known of each member.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

CHANGES = {
    "    'opens',  -- end of the pause\n": "    'opens', 'later',\n",
    "    'granted',  -- permits of its last request\n": "    'granted', 'later',\n",
    # Where this release has written it, it is missing.
    "digits(record[RECORD[i]])": "digits(record[RECORD[i]] or 0)",
    "settle()\nlocal rate = learn_rate()\n": (
        "settle()\nlocal rate = learn_rate()\n"
        "member.later, state.later = (member.later or 0) + request.later, state.later + request.later\n"
    ),
    "local reply = {\n": "local reply = {\n    later = state.later,\n",
}
"""What is different in the script."""


def later(source: str) -> str:
    """The script of the later release.

    Raises:
        ValueError: what is to be changed is not there, or more than once.
    """
    for old, new in CHANGES.items():
        if source.count(old) != 1:
            raise ValueError(f"the script has {old!r} {source.count(old)} times")
        source = source.replace(old, new)
    return source


class Later:
    """The later release's way to ask.

    Args:
        source: the script of this release.
    """

    def __init__(self, source: str) -> None:
        self._script = later(source)
        self._sha = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()

    def command(self, command: tuple[Any, ...]) -> tuple[Any, ...]:
        """What it sends in place of a command of this release."""
        if command[0] not in ("EVAL", "EVALSHA"):
            return command
        *rest, request = command[2:]
        text = json.dumps({**json.loads(request), "later": 1}, separators=(",", ":"))
        return command[0], self._script if command[0] == "EVAL" else self._sha, *rest, text
