"""The states of a shared limiter, and its transitions.

=========  ================  ===================  ===============  ===================  =================
event      HOLDING           ASKING               ALONE            RETURNING            LEAVING
=========  ================  ===================  ===============  ===================  =================
NEED       ASKING, exchange  .                    .                .                    .
DUE        ASKING, exchange  .                    ALONE, exchange  RETURNING, exchange  LEAVING, exchange
GRANTED    .                 HOLDING              HOLDING          HOLDING              .
SETTLING   .                 RETURNING, withdraw  RETURNING        .                    .
LOST       .                 ALONE, withdraw      .                ALONE                CLOSED
CANCELLED  .                 HOLDING              .                .                    .
CLOSE      LEAVING           LEAVING              CLOSED           LEAVING              .
FINISHED   .                 .                    .                .                    CLOSED
=========  ================  ===================  ===============  ===================  =================

A cell names the next state and the action of the transition; in a cell with a dot the event changes nothing, or cannot
occur.  CLOSED has no column: nothing leads out of it.  `SharedLimiter` has one attribute for the state, which only its
method ``_handle`` sets, by this table.

At most one exchange with the store is under way: in ASKING one is, in HOLDING none is, in the other states one may be.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class LimiterState(enum.Enum):
    """The states of a shared limiter."""

    HOLDING = enum.auto()
    """Shared; unused permits may be used; no exchange is under way."""
    ASKING = enum.auto()
    """Shared; an exchange with the store is under way; unused permits may be used meanwhile."""
    ALONE = enum.auto()
    """The store is unreachable; calls use the fallback share, and the store is tried again at every tick."""
    RETURNING = enum.auto()
    """The store replies but does not grant yet, so that all processes can report the calls they made alone."""
    LEAVING = enum.auto()
    """Closed; unused permits can still be returned to the store."""
    CLOSED = enum.auto()
    """The final state."""


class LimiterEvent(enum.Enum):
    """The events of a shared limiter."""

    NEED = enum.auto()
    """A call needs a permit, or the other processes must learn of an event at once."""
    DUE = enum.auto()
    """The timer: calls are to be reported, or an unreachable store is to be tried again."""
    GRANTED = enum.auto()
    """The store replied, and grants permits on request."""
    SETTLING = enum.auto()
    """The store replied, and does not grant yet."""
    LOST = enum.auto()
    """An exchange failed or took too long."""
    CANCELLED = enum.auto()
    """Code outside the limiter cancelled the exchange's task."""
    CLOSE = enum.auto()
    """The client is being closed."""
    FINISHED = enum.auto()
    """The last exchange has ended."""


class Action(enum.Enum):
    """The action of a transition, besides the change of state."""

    EXCHANGE = enum.auto()
    """Start an exchange with the store."""
    WITHDRAW = enum.auto()
    """Change to the fallback share, after a silence in which the calls that the store permitted arrive."""


TRANSITIONS: Mapping[tuple[LimiterState, LimiterEvent], tuple[LimiterState, Action | None]] = {
    (LimiterState.HOLDING, LimiterEvent.NEED): (LimiterState.ASKING, Action.EXCHANGE),
    (LimiterState.HOLDING, LimiterEvent.DUE): (LimiterState.ASKING, Action.EXCHANGE),
    (LimiterState.HOLDING, LimiterEvent.CLOSE): (LimiterState.LEAVING, None),
    (LimiterState.ASKING, LimiterEvent.GRANTED): (LimiterState.HOLDING, None),
    (LimiterState.ASKING, LimiterEvent.SETTLING): (LimiterState.RETURNING, Action.WITHDRAW),
    (LimiterState.ASKING, LimiterEvent.LOST): (LimiterState.ALONE, Action.WITHDRAW),
    (LimiterState.ASKING, LimiterEvent.CANCELLED): (LimiterState.HOLDING, None),
    (LimiterState.ASKING, LimiterEvent.CLOSE): (LimiterState.LEAVING, None),
    (LimiterState.ALONE, LimiterEvent.DUE): (LimiterState.ALONE, Action.EXCHANGE),
    (LimiterState.ALONE, LimiterEvent.GRANTED): (LimiterState.HOLDING, None),
    (LimiterState.ALONE, LimiterEvent.SETTLING): (LimiterState.RETURNING, None),
    (LimiterState.ALONE, LimiterEvent.CLOSE): (LimiterState.CLOSED, None),
    (LimiterState.RETURNING, LimiterEvent.DUE): (LimiterState.RETURNING, Action.EXCHANGE),
    (LimiterState.RETURNING, LimiterEvent.GRANTED): (LimiterState.HOLDING, None),
    (LimiterState.RETURNING, LimiterEvent.LOST): (LimiterState.ALONE, None),
    (LimiterState.RETURNING, LimiterEvent.CLOSE): (LimiterState.LEAVING, None),
    (LimiterState.LEAVING, LimiterEvent.DUE): (LimiterState.LEAVING, Action.EXCHANGE),
    (LimiterState.LEAVING, LimiterEvent.LOST): (LimiterState.CLOSED, None),
    (LimiterState.LEAVING, LimiterEvent.FINISHED): (LimiterState.CLOSED, None),
}
"""The table above; where a pair is missing, the event changes nothing."""
