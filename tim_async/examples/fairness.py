"""Fairness between the users of a web app: one user cannot exhaust the app's rate.

The service's limit applies to the app as a whole, so a single user can exhaust it: with one long list, many short ones
or many concurrent requests.  `FairShare` assigns each request a lane by its user's calls in flight:

* **one call at a time** is interactive;
* **further calls are bulk**: they get only the permits that no interactive call wants, and are still sent at full speed
  while there are enough for all;
* **a list of more than one call** raises `QuotaExhausted` while its user has `LONGEST` calls in flight.

Calls are counted by user (or group) within one process; nothing is stored.  The id is trusted: authenticate the user
first, or one user can call under many ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tim_async import Lane, QuotaExhausted, TIMClient

LONGEST = 10
"""Calls of the longest list that one request may ask for: 100 peers, or 500 messages."""

PEERS = 10
"""Peers in one call."""

SEQS = 50
"""Messages in one call."""


class FairShare:
    """Each user's share of one endpoint.

    Args:
        tim: the client for interactive calls.
        per_call: items in one call, at least 1.
    """

    def __init__(self, tim: TIMClient, per_call: int = 1) -> None:
        self._interactive = tim
        self._bulk = tim.with_options(lane=Lane.BULK)
        # The last call of a list waits for the list's other calls and for all interactive ones.
        self._list = tim.with_options(lane=Lane.BULK, max_wait=1.0)
        self._per_call = per_call
        self._in_flight: Counter[str] = Counter()

    @contextmanager
    def client(self, who: str, items: int | None = None) -> Iterator[TIMClient]:
        """Choose the client for one request, which counts as in flight until the block ends.

        Args:
            who: the id of the user or the group that the request counts for.
            items: the number of items in the request; None for a whole call.

        Raises:
            QuotaExhausted: a list of more than one call, while ``who`` has `LONGEST` calls in flight.
        """
        items = self._per_call if items is None else items
        before = self._in_flight.get(who, 0)
        if items > self._per_call and before >= LONGEST * self._per_call:
            raise QuotaExhausted(f"{LONGEST} calls of one user are in flight", retry_after=1.0)
        self._in_flight[who] = before + items
        try:
            if items > self._per_call:
                yield self._list
            else:
                yield self._interactive if before + items <= self._per_call else self._bulk
        finally:
            self._in_flight[who] -= items
            if not self._in_flight[who]:
                del self._in_flight[who]


class FairShares:
    """The shares of one app, by endpoint.

    Attributes:
        unread: shares of ``get_c2c_unread_msg_num`` by user; items are peers.
        read: shares of ``admin_set_msg_read`` by user.
        receipts: shares of ``get_group_msg_receipt`` by group; items are messages.
    """

    def __init__(self, tim: TIMClient) -> None:
        self.unread: FairShare = FairShare(tim, PEERS)
        self.read: FairShare = FairShare(tim)
        self.receipts: FairShare = FairShare(tim, SEQS)
