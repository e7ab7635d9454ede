"""The emulator's side of the demo, in a process of its own: what it does there costs the client nothing.

It is told and answers by lines of JSON on its standard streams: what to hold and what to do wrong, then where it is;
and, when asked, what it saw and what it holds in the end.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tim_async.emulator import Emulator, State


def serve() -> None:
    """Serve one demo; ends when it has reported, or as soon as whoever started it is gone."""
    plan = json.loads(sys.stdin.readline())
    with Emulator(limit=plan["limit"]) as service:
        fill(service.state, plan["world"])
        for fault in plan["faults"]:
            service.fault(**fault)
        _say(service.client_options())
        asked = sys.stdin.readline()
        if asked:
            _say({"report": service.report().as_dict(), **final_state(service.state, plan["world"])})


def fill(state: State, world: dict[str, Any]) -> None:
    """Put into a state what `World.as_plain` describes."""
    with state.lock:
        for name, kind, messages, unread in world["groups"]:
            state.add_group(name, kind, messages=messages, members=unread)
            for member, number in unread.items():
                state.set_unread_in_group(name, member, number)
        for name, by_seq in world["receipts"].items():
            for seq, numbers in by_seq:
                if numbers is not None:
                    state.add_receipt(name, seq, read_num=numbers[0], unread_num=numbers[1])
        for member, peer, sent in world["conversations"]:
            for at, count in sent:
                state.add_messages(member, peer, count, at=at)
        for account, peers in world["inboxes"].items():
            for peer, count in peers.items():
                state.add_messages(account, peer, count)


def final_state(state: State, world: dict[str, Any]) -> dict[str, Any]:
    """The unread counts of every group, and what became of every conversation that was to be marked read."""
    with state.lock:
        return {
            "groups": {
                name: {member: state.unread_in_group(name, member) for member in unread}
                for name, _, _, unread in world["groups"]
            },
            "conversations": [
                [member, peer, state.unread(member, peer), state.read_time(member, peer)]
                for member, peer, _ in world["conversations"]
            ],
        }


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
