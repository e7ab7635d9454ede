"""Why a stream cannot be used, or no longer."""

from __future__ import annotations

from tim_async.migrate.errors import MigrateError


class StoreError(MigrateError):
    """The store refuses what is asked of it, or no longer holds the stream; or it is away and nobody wants to wait."""


class StreamMismatch(StoreError):
    """The stream is of another file, other arguments or another app; nothing was changed."""


class StoreAway(StoreError):
    """The store cannot be reached, and the run is being stopped."""
