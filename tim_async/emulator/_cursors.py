"""Cursors: opaque to clients, and recognised when they return."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets

_LONGEST_POSITION = 10


class Cursors:
    """Cursors of positions in lists.  They are signed, so that none has to be remembered.

    A list is identified by plain values; a cursor of another list is not recognised.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(16)

    def cursor(self, position: int, *list_: object) -> str:
        """Write the cursor of a position, 0 to 9,999,999,999."""
        content = json.dumps([position, *list_]).encode("ascii")
        return f"{position}-{hmac.new(self._key, content, hashlib.sha256).hexdigest()[:16]}"

    def position(self, cursor: str, *list_: object) -> int | None:
        """Read the position of a cursor: 0 for ``""``, the first page; None for a cursor that was never written."""
        if not cursor:
            return 0
        digits = cursor.partition("-")[0]
        if not (digits.isascii() and digits.isdigit() and len(digits) <= _LONGEST_POSITION):
            return None
        return int(digits) if cursor == self.cursor(int(digits), *list_) else None
