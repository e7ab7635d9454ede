"""A later release of the product, as seen by the store: its script, and its additional fields.

It has the same layout, so it shares the quota with this release.  Everything that the two exchange has an additional
field: requests and replies, the state, and the record of each member.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

CHANGES = {
    "    'opens',  -- end of the pause\n": "    'opens', 'later',\n",
    "    'granted',  -- permits of its last request\n": "    'granted', 'later',\n",
    # In records that this release has written, it is missing.
    "digits(record[RECORD[i]])": "digits(record[RECORD[i]] or 0)",
    "settle()\nlocal rate = learn_rate()\n": (
        "settle()\nlocal rate = learn_rate()\n"
        "member.later, state.later = (member.later or 0) + request.later, state.later + request.later\n"
    ),
    "local reply = {\n": "local reply = {\n    later = state.later,\n",
}
"""The changes of the script."""


def later(source: str) -> str:
    """Return the script of the later release.

    Raises:
        ValueError: an original text does not occur exactly once.
    """
    for old, new in CHANGES.items():
        if source.count(old) != 1:
            raise ValueError(f"the script has {old!r} {source.count(old)} times")
        source = source.replace(old, new)
    return source


class Later:
    """The later release's requests.

    Args:
        source: the script of this release.
    """

    def __init__(self, source: str) -> None:
        self._script = later(source)
        self._sha = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()

    def command(self, command: tuple[Any, ...]) -> tuple[Any, ...]:
        """Translate a command of this release into the later release's."""
        if command[0] not in ("EVAL", "EVALSHA"):
            return command
        *rest, request = command[2:]
        text = json.dumps({**json.loads(request), "later": 1}, separators=(",", ":"))
        return command[0], self._script if command[0] == "EVAL" else self._sha, *rest, text
