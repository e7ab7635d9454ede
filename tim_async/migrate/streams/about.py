"""What a stream is of, and how far it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from tim_async.migrate.events import Counts
from tim_async.migrate.schema import FailureCount


class State(NamedTuple):
    """How far a stream is.

    Attributes:
        complete: whether its load is.
        rows: rows that are to be on it, all in all.
        loaded: rows that have been put on it.
        rejected: rows of the file that cannot be valid.
        superseded: rows of the file that a later one supersedes.
        done: rows that were taken.
        lowered: rows that were taken, and lowered.
        failed: rows that were refused.
        invalid: entries that a worker rejected: rows that cannot be valid, or that load did not put there.
        sending: rows that some worker holds, or held when it died.
        length: rows on it without an outcome.
    """

    complete: int
    rows: int
    loaded: int
    rejected: int
    superseded: int
    done: int
    lowered: int
    failed: int
    invalid: int
    sending: int
    length: int

    @classmethod
    def read(cls, reply: Any) -> State:
        """Read what the scripts answer.

        Raises:
            ValueError, TypeError: it is something else.
        """
        return cls(*(int(number) for number in reply))

    @property
    def settled(self) -> int:
        """Rows with an outcome."""
        return self.done + self.lowered + self.failed + self.invalid

    @property
    def over(self) -> bool:
        """Whether every row has an outcome, and nothing else is on the stream."""
        return bool(self.complete) and self.settled >= self.rows and not self.length

    @property
    def missing(self) -> int:
        """Rows that the store has lost: they were put on the stream, are not there, and have no outcome."""
        return max(0, self.loaded - self.settled - self.length)

    @property
    def counts(self) -> Counts:
        """The rows of the file by state."""
        return Counts(
            pending=max(0, self.rows - self.settled - self.sending),
            sending=self.sending,
            done=self.done,
            lowered=self.lowered,
            failed=self.failed,
            rejected=self.rejected + self.invalid,
            superseded=self.superseded,
        )


@dataclass(frozen=True, slots=True)
class StreamAbout:
    """What a stream is of, as the store has it.

    Attributes:
        id: of this stream alone: one that is begun anew has another.
        kind: the name of the kind of its rows.
        source: what the file is called.
        fingerprint: the file's content.
        arguments: what shapes its rows.
        sdk_app_id: the app; 0 until that is known.
        base_url: where the app is, "" until that is known.
        rows: rows that are to be on it.
        rejected: rows that cannot be valid.
        superseded: rows that a later one supersedes.
        failures: the rejected rows by field.
        position: the line that the load has got to.
        complete: whether the load is complete.
    """

    id: str
    kind: str
    source: str
    fingerprint: str
    arguments: dict[str, Any]
    sdk_app_id: int = 0
    base_url: str = ""
    rows: int = 0
    rejected: int = 0
    superseded: int = 0
    failures: list[FailureCount] = field(default_factory=list)
    position: int = 0
    complete: bool = False

    def to_fields(self) -> list[str]:
        """This, as the fields of a hash."""
        found = {
            "version": "1",
            "id": self.id,
            "kind": self.kind,
            # As JSON in ASCII: the name of a file need not be text.
            "source": json.dumps(self.source),
            "fingerprint": self.fingerprint,
            "arguments": json.dumps(self.arguments, sort_keys=True),
            "sdk_app_id": str(self.sdk_app_id),
            "base_url": self.base_url,
            "rows": str(self.rows),
            "rejected": str(self.rejected),
            "superseded": str(self.superseded),
            "failures": json.dumps([asdict(failure) for failure in self.failures]),
            "position": str(self.position),
            "loaded": "0",
            "complete": str(int(self.complete)),
        }
        return [text for pair in found.items() for text in pair]

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> StreamAbout:
        """Read what `to_fields` wrote.

        Raises:
            ValueError: it is something else.
        """
        if fields.get("version") != "1":
            raise ValueError("it is of another version of this program")
        try:
            return cls(
                id=fields["id"],
                kind=fields["kind"],
                source=str(json.loads(fields["source"])),
                fingerprint=fields["fingerprint"],
                arguments=dict(json.loads(fields["arguments"])),
                sdk_app_id=int(fields["sdk_app_id"]),
                base_url=fields["base_url"],
                rows=int(fields["rows"]),
                rejected=int(fields["rejected"]),
                superseded=int(fields["superseded"]),
                failures=[FailureCount(**failure) for failure in json.loads(fields["failures"])],
                position=int(fields["position"]),
                complete=fields["complete"] == "1",
            )
        except (KeyError, TypeError, ValueError, RecursionError):
            raise ValueError("it does not say what it is of") from None
