"""What the store's keys must be like after each run of the script; the one place that knows how it keeps them."""

from __future__ import annotations

import json

from .store import Server

RECORDED_OUT = 1
"""The place of the calls under way in a member's record: the second word."""


def inconsistency(server: Server, keys: list[str]) -> str:
    """What is wrong with the keys of an endpoint; "" for nothing."""
    kept = {}
    for key in keys:
        dumped = json.loads(server.dump(key))
        kept[key.rpartition(":")[2]] = dict(dumped[1]) if dumped and dumped[1] else {}
    state, members, about = kept["state"], kept["members"], kept["about"]
    out = sum(float(record.split()[RECORDED_OUT]) for record in about.values())
    cooling = sum(int(entry.rpartition(":")[2]) for entry in kept["cooling"])
    told = {
        "out": (float(state.get("out", 0)), out),
        "cooling": (float(state.get("cooling", 0)), cooling),
        "members": (len(members), len(about)),
    }
    for name, (said, summed) in told.items():
        if said != summed or said < 0:
            return f"{name} is {said:g}, its parts are {summed:g}"
    if members.keys() != about.keys():
        return f"members without a record: {sorted(members.keys() ^ about.keys())}"
    if strangers := kept["waiting"].keys() - members.keys():
        return f"no members wait: {sorted(strangers)}"
    if negative := [member for member, record in about.items() if float(record.split()[RECORDED_OUT]) < 0]:
        return f"{negative[0]} has fewer than no calls under way"
    return ""
