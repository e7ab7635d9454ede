"""An emulator of the service's read-state APIs on loopback: real HTTP, real state, real limits, faults on request.

In the loop that is running::

    async with Emulator() as service:
        service.state.add_messages("alice", "bob", 3)
        async with TIMClient(**service.client_options()) as tim:
            assert await tim.get_all_c2c_unread_msg_num("alice") == 3

or, with ``with`` in place of ``async with``, in a thread of its own, for code that runs no loop; the pytest fixture
``tim_emulator`` is that.  What it knows of the service it was told by the vendor's documents.  It shares
nothing with the client, so that a mistake in one is not repeated in the other.

**What it does not reproduce:** **TLS, hosts and regions**; **the order of the service's checks and the wording of
ErrorInfo**; **whatever the documents leave open**, for which it takes the strictest reading that is of use (an integer
MsgReadTime is refused, so are 11 peers and an empty list, and a message number that never was has no receipt, 10062);
**the true shape of the rate window** (choose each in turn); **limits other than calls a second per endpoint**: none on
the app as a whole, on connections or on the plan that was bought, and 70050 after many bad signatures comes only
as a fault; **compressed requests**, which are not JSON here; **delays inside the backend and its replication**: what
was written is read at once; **messages**: they can be counted, dated and read, but have no content, cannot be sent over
HTTP, and age out never; **what the bits of AssistFlags select** (it must be an integer, and every conversation is
listed); **callbacks**: no webhook is called; **every other command**: 60009.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tim_async._lazy import attach as _attach

if TYPE_CHECKING:
    from tim_async.emulator._emulator import DEFAULT_SDK_APP_ID, DEFAULT_SECRET_KEY, Emulator
    from tim_async.emulator._faults import Fault
    from tim_async.emulator._groups import Group, GroupType, MessageReceipt
    from tim_async.emulator._inbox import ContactKind, RecentContact
    from tim_async.emulator._report import EndpointReport, Report
    from tim_async.emulator._state import State, fill_example
    from tim_async.emulator._windows import WindowKind

__all__ = [
    "DEFAULT_SDK_APP_ID",
    "DEFAULT_SECRET_KEY",
    "ContactKind",
    "Emulator",
    "EndpointReport",
    "Fault",
    "Group",
    "GroupType",
    "MessageReceipt",
    "RecentContact",
    "Report",
    "State",
    "WindowKind",
    "fill_example",
]

# Python imports this package on its way to pytest_plugin, in every pytest run of whoever has tim_async installed.
# They should not pay for an HTTP server, so each name is fetched when it is first used.
_MODULES = {
    "ContactKind": "_inbox",
    "DEFAULT_SDK_APP_ID": "_emulator",
    "DEFAULT_SECRET_KEY": "_emulator",
    "Emulator": "_emulator",
    "EndpointReport": "_report",
    "Fault": "_faults",
    "Group": "_groups",
    "GroupType": "_groups",
    "MessageReceipt": "_groups",
    "RecentContact": "_inbox",
    "Report": "_report",
    "State": "_state",
    "WindowKind": "_windows",
    "fill_example": "_state",
}


if not TYPE_CHECKING:  # to a type checker, a name that is not above is a mistake
    __getattr__, __dir__ = _attach(__name__, _MODULES)
