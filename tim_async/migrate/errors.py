"""The errors that keep a migration from starting or continuing.  A failed call to the service stays a `TIMError`."""

from __future__ import annotations


class MigrateError(Exception):
    """The base class of errors that stop a migration, apart from the service's own."""


class SourceError(MigrateError):
    """The rows cannot be read: no such file, not text, a column missing, a truncated archive; or they have changed."""


class JournalError(MigrateError):
    """The journal cannot be read or written: no space, no permission, or not a journal."""


class JournalMismatch(JournalError):
    """The journal belongs to another file, other arguments or another app; nothing was sent."""


class JournalInUse(JournalError):
    """Another run holds the journal."""


class StoreAway(JournalError):
    """The store is unreachable, and the run does not wait for it."""


class StoreMisconfigured(JournalError):
    """The store cannot be used as configured: a wrong password, a missing right, a replica's URL."""
