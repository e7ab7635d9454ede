"""The states of a shared limiter, and what takes it from one to the next.

=========  =============  ===================  ===============  ===============  =============
event      HOLDING        ASKING               ALONE            RETURNING        LEAVING
=========  =============  ===================  ===============  ===============  =============
NEED       ASKING, talk   .                    .                .                .
DUE        ASKING, talk   .                    ALONE, talk      RETURNING, talk  LEAVING, talk
GRANTED    .              HOLDING              HOLDING          HOLDING          .
SETTLING   .              RETURNING, withdraw  RETURNING        .                .
LOST       .              ALONE, withdraw      .                ALONE            CLOSED
CANCELLED  .              HOLDING              .                .                .
CLOSE      LEAVING        LEAVING              CLOSED           LEAVING          .
FINISHED   .              .                    .                .                CLOSED
=========  =============  ===================  ===============  ===============  =============

A cell names the next state and the action on the way there; in a cell with a dot the event changes nothing, or cannot
occur.  CLOSED has no column: nothing leads out of it.  `SharedLimiter` has one attribute for the state, which only its
method ``_on`` sets, by this table.

The store is told and asked by one exchange at a time: in ASKING one is under way, in HOLDING none is, in the others
one may be.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class State(enum.Enum):
    """How a shared limiter stands with the store."""

    HOLDING = enum.auto()
    """Shared; permits in hand may be used; nothing is being asked."""
    ASKING = enum.auto()
    """Shared; an exchange with the store is under way, permits in hand may be used meanwhile."""
    ALONE = enum.auto()
    """The store is unreachable; calls use the fallback share, and the store is tried again at every tick."""
    RETURNING = enum.auto()
    """The store replies but does not grant yet, so that all processes can report the calls they made alone."""
    LEAVING = enum.auto()
    """Closed; the store can still be told which permits were not used."""
    CLOSED = enum.auto()
    """The end."""


class Event(enum.Enum):
    """What can happen to a shared limiter."""

    NEED = enum.auto()
    """A call needs a permit, or the other processes should learn something at once."""
    DUE = enum.auto()
    """By the clock: permit outcomes are to be reported, or an unreachable store is to be tried again."""
    GRANTED = enum.auto()
    """The store replied, and grants permits to those that ask."""
    SETTLING = enum.auto()
    """The store replied, and does not grant yet."""
    LOST = enum.auto()
    """An exchange failed or took too long."""
    CANCELLED = enum.auto()
    """Something else cancelled the exchange's task."""
    CLOSE = enum.auto()
    """The client is being closed."""
    FINISHED = enum.auto()
    """The last exchange has ended."""


class Action(enum.Enum):
    """What a transition does, besides changing the state."""

    TALK = enum.auto()
    """Start an exchange with the store."""
    WITHDRAW = enum.auto()
    """Change to the fallback share, after a pause in which the calls that the store let go arrive."""


TRANSITIONS: Mapping[tuple[State, Event], tuple[State, Action | None]] = {
    (State.HOLDING, Event.NEED): (State.ASKING, Action.TALK),
    (State.HOLDING, Event.DUE): (State.ASKING, Action.TALK),
    (State.HOLDING, Event.CLOSE): (State.LEAVING, None),
    (State.ASKING, Event.GRANTED): (State.HOLDING, None),
    (State.ASKING, Event.SETTLING): (State.RETURNING, Action.WITHDRAW),
    (State.ASKING, Event.LOST): (State.ALONE, Action.WITHDRAW),
    (State.ASKING, Event.CANCELLED): (State.HOLDING, None),
    (State.ASKING, Event.CLOSE): (State.LEAVING, None),
    (State.ALONE, Event.DUE): (State.ALONE, Action.TALK),
    (State.ALONE, Event.GRANTED): (State.HOLDING, None),
    (State.ALONE, Event.SETTLING): (State.RETURNING, None),
    (State.ALONE, Event.CLOSE): (State.CLOSED, None),
    (State.RETURNING, Event.DUE): (State.RETURNING, Action.TALK),
    (State.RETURNING, Event.GRANTED): (State.HOLDING, None),
    (State.RETURNING, Event.LOST): (State.ALONE, None),
    (State.RETURNING, Event.CLOSE): (State.LEAVING, None),
    (State.LEAVING, Event.DUE): (State.LEAVING, Action.TALK),
    (State.LEAVING, Event.LOST): (State.CLOSED, None),
    (State.LEAVING, Event.FINISHED): (State.CLOSED, None),
}
"""The table above; where a pair is missing, the event changes nothing."""
