"""Cursors: opaque to clients, and recognised when they come back."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets

_LONGEST_POSITION = 10


class Cursors:
    """Hands out cursors and takes them back.  They are signed, so that none has to be remembered."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(16)

    def give(self, position: int, *list_: object) -> str:
        """Make the cursor of a position in one list.

        Args:
            position: the position, 0 to 9,999,999,999.
            list_: what identifies the list, as plain values; a cursor of another list is refused.
        """
        content = json.dumps([position, *list_]).encode("ascii")
        return f"{position}-{hmac.new(self._key, content, hashlib.sha256).hexdigest()[:16]}"

    def take(self, cursor: str, *list_: object) -> int | None:
        """The position of a cursor; 0 for ``""``, the first page; None for one that was not given for this list."""
        if not cursor:
            return 0
        digits = cursor.partition("-")[0]
        if not (digits.isascii() and digits.isdigit() and len(digits) <= _LONGEST_POSITION):
            return None
        position = int(digits)
        return position if cursor == self.give(position, *list_) else None
