"""The invariants of the store's keys after each run of the script; the only module that knows their layout."""

from __future__ import annotations

import json

from .store import Server

RECORDED_OUT = 1
"""The index of the calls in flight in a member's record: its second word."""


def inconsistency(server: Server, keys: list[str]) -> str:
    """Describe the first inconsistency of an endpoint's keys; "" for none."""
    kept = {}
    for key in keys:
        dumped = json.loads(server.dump(key))
        kept[key.rpartition(":")[2]] = dict(dumped[1]) if dumped and dumped[1] else {}
    state, members, about = kept["state"], kept["members"], kept["about"]
    out = sum(float(record.split()[RECORDED_OUT]) for record in about.values())
    cooling = sum(int(entry.rpartition(":")[2]) for entry in kept["cooling"])
    counters = {
        "out": (float(state.get("out", 0)), out),
        "cooling": (float(state.get("cooling", 0)), cooling),
        "members": (len(members), len(about)),
    }
    for name, (total, summed) in counters.items():
        if total != summed or total < 0:
            return f"{name} is {total:g}, but the sum of its parts is {summed:g}"
    if members.keys() != about.keys():
        return f"members without a record: {sorted(members.keys() ^ about.keys())}"
    if strangers := kept["waiting"].keys() - members.keys():
        return f"waiting without being members: {sorted(strangers)}"
    if negative := [member for member, record in about.items() if float(record.split()[RECORDED_OUT]) < 0]:
        return f"{negative[0]} has a negative number of calls in flight"
    return ""
