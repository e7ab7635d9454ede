"""A little world to try things on: what an emulator started by hand is filled with."""

from __future__ import annotations

from tim_async.emulator._state import State


def fill_example(state: State) -> None:
    """Add three accounts, their conversations, and three groups.

    Accounts ``alice``, ``bob`` and ``carol``; ``alice`` has 3 unread messages from ``bob`` and 2 from ``carol``.
    ``@TGS#public`` holds 120 messages, of which ``carol`` sent 118 to 120 with receipts: ``alice`` and ``bob`` have
    read 118, ``alice`` has read 119, nobody has read 120.  ``@TGS#work`` holds 10; ``@TGS#avchatroom`` is of a type
    that keeps no unread counts.  All three are in each.  So ``alice`` has five recent contacts: ``bob``, ``carol``
    and the groups, of which she pinned ``@TGS#work``.

    Raises:
        ValueError: a group of the example exists.
    """
    people = ("alice", "bob", "carol")
    with state.lock:
        state.add_account(*people)
        state.add_messages("alice", "bob", 3)
        state.add_messages("alice", "carol", 2)
        state.add_group("@TGS#public", "Public", messages=120, members=people)
        state.add_group("@TGS#work", "Work", messages=10, members=people)
        state.add_group("@TGS#avchatroom", "AVChatRoom", messages=5000, members=people)
        for msg_seq, readers in ((118, ("alice", "bob")), (119, ("alice",)), (120, ())):
            state.add_receipt("@TGS#public", msg_seq, readers=readers, sender="carol")
        state.add_recent_contact("alice", "@TGS#work", kind="group", pinned=True)
