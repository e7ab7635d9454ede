"""The endpoints, one line each: what they are called and what the service says of them."""

from __future__ import annotations

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
SET_UNREAD_MSG_NUM = Endpoint(
    "set_unread_msg_num", "v4/group_open_http_svc/set_unread_msg_num", repeatable=True
)

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
