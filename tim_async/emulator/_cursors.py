"""The cursors of pages, opaque to clients."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets

_MAX_DIGITS = 10


class Cursors:
    """Cursors of positions in lists.  They are signed, so that none has to be stored.

    A list is identified by plain values; the cursor of one list is invalid in another.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(16)

    def cursor(self, position: int, *list_: object) -> str:
        """Make the cursor of a position, 0 to 9,999,999,999."""
        content = json.dumps([position, *list_]).encode("ascii")
        return f"{position}-{hmac.new(self._key, content, hashlib.sha256).hexdigest()[:16]}"

    def position(self, cursor: str, *list_: object) -> int | None:
        """Return the position of a cursor: 0 for ``""``, the first page; None for an invalid cursor."""
        if not cursor:
            return 0
        digits = cursor.partition("-")[0]
        if not (digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS):
            return None
        return int(digits) if cursor == self.cursor(int(digits), *list_) else None
