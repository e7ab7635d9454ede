"""What whoever did the job was told, in the same form whichever way it was done."""

from __future__ import annotations

from dataclasses import dataclass, field

SET = "set_unread_msg_num"
MARK = "admin_set_msg_read"
COUNT = "get_c2c_unread_msg_num"
RECEIPTS = "get_group_msg_receipt"
ENDPOINTS = (SET, MARK, COUNT, RECEIPTS)


@dataclass(slots=True)
class Results:
    """What was answered.

    Attributes:
        failed: for each endpoint, what was reported as failed: a row's key, a peer, a message; with the reason.
        counts: unread counts by account and peer.
        receipts: (read, unread) by GroupId and MsgSeq; None where the service said that there is no receipt.
        seconds: how long it all took.
    """

    failed: dict[str, dict[tuple[str, str | int], str]] = field(
        default_factory=lambda: {endpoint: {} for endpoint in ENDPOINTS}
    )
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    receipts: dict[str, dict[int, tuple[int, int] | None]] = field(default_factory=dict)
    seconds: float = 0.0

    def fail(self, endpoint: str, key: tuple[str, str | int], reason: str) -> None:
        """Note that something was reported as failed."""
        self.failed[endpoint][key] = reason
