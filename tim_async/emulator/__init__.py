"""An emulator of the service's read-state APIs on loopback: real HTTP, real state, real limits, faults on request.

In the running event loop::

    async with Emulator() as service:
        service.state.add_messages("alice", "bob", 3)
        async with TIMClient(**service.client_options()) as tim:
            assert await tim.get_all_c2c_unread_msg_num("alice") == 3

or, with ``with`` in place of ``async with``, in a thread of its own, for code that runs no loop; the pytest fixture
``tim_emulator`` does this.  The emulator is written from the vendor's documents and shares nothing with the client, so
that neither repeats a mistake of the other.  Its README lists its options, and recipes for SDKs in other languages.

**Not reproduced:** **hosts and regions**, and **TLS** except with a certificate of yours; **the order of the service's
checks and the wording of ErrorInfo**; **undocumented behaviour**: the emulator takes the strictest useful reading (it
refuses an integer MsgReadTime by default, 11 peers and an empty list, and answers 10062 for a message number that does
not exist) and ignores undocumented request fields, but counts them; **the true shape of the rate window** (test with
each); **limits other than calls a second per endpoint**: none on the app as a whole, on connections or of a plan, and
70050 after many bad signatures comes only as a fault; **compressed requests**, which are not JSON here; **replication
delays**: a write is visible at once; **messages**: they are counted, dated and read, but have no content, cannot be
sent over HTTP and never expire; **the profiles of groups**: texts and custom fields are empty, any group may have 6,000
members, and a member has only its account, role, MsgSeq and MsgFlag; **the bits of AssistFlags** (any integer lists
every conversation); **callbacks**: no webhook is called; **every other command**: 60008, as for a name that does not
exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tim_async._lazy import attach as _attach

if TYPE_CHECKING:
    from tim_async.emulator._apps import App as App
    from tim_async.emulator._emulator import DEFAULT_SDK_APP_ID as DEFAULT_SDK_APP_ID
    from tim_async.emulator._emulator import DEFAULT_SECRET_KEY as DEFAULT_SECRET_KEY
    from tim_async.emulator._emulator import Emulator as Emulator
    from tim_async.emulator._faults import Fault as Fault
    from tim_async.emulator._groups import Group as Group
    from tim_async.emulator._groups import GroupType as GroupType
    from tim_async.emulator._groups import MessageReceipt as MessageReceipt
    from tim_async.emulator._inbox import ContactKind as ContactKind
    from tim_async.emulator._inbox import RecentContact as RecentContact
    from tim_async.emulator._report import EndpointReport as EndpointReport
    from tim_async.emulator._report import Report as Report
    from tim_async.emulator._state import State as State
    from tim_async.emulator._state import fill_example as fill_example
    from tim_async.emulator._windows import WindowKind as WindowKind

# Wherever tim_async is installed, every run of pytest imports this package together with pytest_plugin.  That must not
# load an HTTP server, so each name is imported on first use.
_MODULES = {
    "App": "_apps",
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

__all__ = list(_MODULES)


if not TYPE_CHECKING:  # so that a type checker reports any name that is not imported above
    __getattr__, __dir__ = _attach(__name__, _MODULES)
