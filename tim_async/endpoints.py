"""The endpoints, one line each: what they are called and what the service says of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_RATE = 200.0
"""Calls a second that the service allows on each endpoint unless more was bought."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One command of the service.

    Attributes:
        name: the method's name, by which rates are configured and errors speak.
        command: the path below the host, e.g. ``v4/openim/admin_set_msg_read``.
        repeatable: whether repeating a call whose fate is unknown does no harm.
        pinned_time: a field that makes the call repeatable: absent on the first attempt (the server's now),
            it holds the first attempt's time, as a string of seconds, on every later one.
        items: the most items of one call, by the vendor's word or by ours; None where there is nothing to chunk.
    """

    name: str
    command: str
    repeatable: bool = False
    pinned_time: str | None = None
    items: int | None = None


# https://www.tencentcloud.com/document/product/1047/34909
SET_UNREAD_MSG_NUM = Endpoint("set_unread_msg_num", "v4/group_open_http_svc/set_unread_msg_num", repeatable=True)

# https://trtc.io/document/38996
# Repeated 20 s later it would also mark what arrived in those 20 s; with the first attempt's time it does not.
ADMIN_SET_MSG_READ = Endpoint(
    "admin_set_msg_read", "v4/openim/admin_set_msg_read", repeatable=True, pinned_time="MsgReadTime"
)

# https://www.tencentcloud.com/document/product/1047/41046
GET_C2C_UNREAD_MSG_NUM = Endpoint(
    "get_c2c_unread_msg_num", "v4/openim/get_c2c_unread_msg_num", repeatable=True, items=10
)

# https://www.tencentcloud.com/document/product/1047/49439
# No maximum is documented; 50 is where the sibling write call stops.
GET_GROUP_MSG_RECEIPT = Endpoint(
    "get_group_msg_receipt", "v4/group_open_http_svc/get_group_msg_receipt", repeatable=True, items=50
)

ENDPOINTS: tuple[Endpoint, ...] = (
    SET_UNREAD_MSG_NUM,
    ADMIN_SET_MSG_READ,
    GET_C2C_UNREAD_MSG_NUM,
    GET_GROUP_MSG_RECEIPT,
)
"""The endpoints that have a method of their own."""

# https://www.tencentcloud.com/document/product/1047/34961
# What a migration asks before it sends; anybody else calls it by its command.
GET_GROUP_INFO = Endpoint("get_group_info", "v4/group_open_http_svc/get_group_info", repeatable=True, items=50)

_COMMAND = re.compile(r"v[0-9]+(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+")


def endpoint_of(command: str, repeatable: bool) -> Endpoint:
    """The endpoint of a command given as a path, whether or not it is in the table.

    Raises:
        TypeError, ValueError: not a path like ``v4/openim/…``.
    """
    if not isinstance(command, str):
        raise TypeError(f"command must be a str, not {type(command).__name__}")
    command = command.strip("/")
    if not _COMMAND.fullmatch(command):
        raise ValueError(f"command must be a path like 'v4/openim/sendmsg', not {command!r}")
    for endpoint in ENDPOINTS:
        if endpoint.command == command:
            return endpoint
    return Endpoint(command, command, repeatable=repeatable)


def rates_by_command(rates: Mapping[str, float]) -> dict[str, float]:
    """Turn a client's ``rates``, by method name or command, into calls/s by command.

    Raises:
        TypeError, ValueError: an unknown name, or a rate that is no number of at least 1.
    """
    commands = {endpoint.name: endpoint.command for endpoint in (*ENDPOINTS, GET_GROUP_INFO)}
    checked: dict[str, float] = {}
    for name, rate in rates.items():
        if isinstance(rate, bool) or not isinstance(rate, int | float):
            raise TypeError(f"the rate of {name} must be a number of calls/s, not {type(rate).__name__}")
        if not 1 <= rate < math.inf:
            raise ValueError(f"the rate of {name} must be at least 1 call/s and finite, not {rate}")
        if name not in commands and not _COMMAND.fullmatch(name):
            raise ValueError(f"no endpoint {name!r}; one of {', '.join(commands)}, or a command like 'v4/openim/…'")
        checked[commands.get(name, name)] = float(rate)
    return checked
