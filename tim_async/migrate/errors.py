"""Why a migration cannot begin, or cannot go on.  What the service says of a call stays a `TIMError`."""

from __future__ import annotations


class MigrateError(Exception):
    """Base class of what stops a migration, apart from the service itself."""


class SourceError(MigrateError):
    """The rows cannot be read: no such file, not text, a column missing, a cut archive; or they have changed since."""


class JournalError(MigrateError):
    """The journal cannot be read or written: no room, no permission, or it is no journal."""


class JournalMismatch(JournalError):
    """The journal is of another file, other arguments or another app; nothing was sent."""


class JournalInUse(JournalError):
    """Another run holds the journal."""


class StoreAway(JournalError):
    """The store cannot be reached, and the run is to end."""


class StoreMisconfigured(JournalError):
    """The store cannot be used as it is named: a wrong password, a missing right, a replica's URL."""
