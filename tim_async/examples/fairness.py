"""Keep one user of a web app from taking the calls of all others.

The service's limit belongs to the app as a whole, so a single user can exhaust it: with one long list, with many short
ones, or with many requests at once.  `FairShare` assigns each request a lane by what its user has under way:

* up to **one call at a time** is interactive, as for everybody else;
* **all beyond that is bulk**: it takes only the permits that no interactive call wants, and is still sent at full speed
  while there are enough for all;
* **a list of more than one call** raises `QuotaExhausted` while its user has `LONGEST` calls under way.

It counts by user (or group) and within one process, and stores nothing.  It trusts the id it is given: authenticate
before, or one user can ask under many ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tim_async import Lane, QuotaExhausted, TIMClient

LONGEST = 10
"""Calls for the longest list that one request may ask for: 100 peers, or 500 messages."""

PEERS = 10
"""Peers that one call carries."""

SEQS = 50
"""Messages that one call carries."""


class FairShare:
    """The shares of the users of one endpoint.

    Args:
        tim: the client for interactive calls.
        per_call: items that one call carries, at least 1.
    """

    def __init__(self, tim: TIMClient, per_call: int = 1) -> None:
        self._interactive = tim
        self._bulk = tim.with_options(lane=Lane.BULK)
        # The last call of a list waits for the others, and for the users who go first.
        self._list = tim.with_options(lane=Lane.BULK, max_wait=1.0)
        self._per_call = per_call
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def client(self, who: str, items: int | None = None) -> Iterator[TIMClient]:
        """Choose the client for one request; the request is under way until the block ends.

        Args:
            who: the user or the group it counts for.
            items: items it asks for; None for a whole call.

        Raises:
            QuotaExhausted: a list of more than one call, while ``who`` has `LONGEST` calls under way.
        """
        items = self._per_call if items is None else items
        before = self._under_way.get(who, 0)
        if items > self._per_call and before >= LONGEST * self._per_call:
            raise QuotaExhausted(f"{LONGEST} calls of one user are under way", retry_after=1.0)
        self._under_way[who] = before + items
        try:
            if items > self._per_call:
                yield self._list
            else:
                yield self._interactive if before + items <= self._per_call else self._bulk
        finally:
            self._under_way[who] -= items
            if not self._under_way[who]:
                del self._under_way[who]


class FairShares:
    """The shares of each endpoint of one app.

    Attributes:
        unread: of ``get_c2c_unread_msg_num``, by user; items are peers.
        read: of ``admin_set_msg_read``, by user.
        receipts: of ``get_group_msg_receipt``, by group; items are messages.
    """

    def __init__(self, tim: TIMClient) -> None:
        self.unread: FairShare = FairShare(tim, PEERS)
        self.read: FairShare = FairShare(tim)
        self.receipts: FairShare = FairShare(tim, SEQS)
