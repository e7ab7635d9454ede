"""The look-up of groups, before rows are sent to them: some would silently ignore an unread count.

In ChatRoom/Meeting and AVChatRoom groups ``set_unread_msg_num`` succeeds and does nothing; and a count above a group's
number of messages is lowered to it.  The answer to the call shows neither, ``get_group_info`` shows both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tim_async.endpoints import GET_GROUP_INFO, GROUPS
from tim_async.errors import APIError, AuthError, BadResponse, PermissionDenied, Reaction, classify

from ._breaker import CircuitBreaker
from ._supervision import together

if TYPE_CHECKING:
    from tim_async.client import TIMClient

_IGNORING_TYPES = frozenset({"ChatRoom", "Meeting", "AVChatRoom"})
_CACHE_SIZE = 10_000
"""Groups kept in the cache; one that was evicted costs a fiftieth of a call."""
_UNREADABLE_ANSWERS = 5
"""Consecutive answers without a list of groups after which the look-up gives up."""
_REST_CODES = range(60_000, 70_000)
"""Codes of the REST interface, not of a group: no such command, a wrong query."""


@dataclass(frozen=True, slots=True)
class GroupFound:
    """The result of a group's look-up.

    Attributes:
        code: the service's code when there is no such group, or it is not accessible; None otherwise.
        reason: why no row can be sent to it; "" when rows can be sent.
        messages: its number of messages; None when unknown.
    """

    code: int | None = None
    reason: str = ""
    messages: int | None = None


class Groups:
    """Looks up groups, 50 a call, and caches the latest.

    Args:
        client: makes the calls.
        breaker: waits out the service's outages.
    """

    def __init__(self, client: TIMClient, breaker: CircuitBreaker) -> None:
        self._client = client
        self._breaker = breaker
        self._known: OrderedDict[str, GroupFound] = OrderedDict()
        self._unreadable = 0

    async def look_up(self, group_ids: Iterable[str]) -> dict[str, GroupFound]:
        """Look up groups.

        https://www.tencentcloud.com/document/product/1047/34961

        Args:
            group_ids: any number; repeats are folded.

        Raises:
            AuthError, PermissionDenied, InvalidRequest: the look-up is refused, whatever the group.
            BadResponse: the answers are unreadable, and a retry would not help.
            Stopped, OutageTooLong: see `CircuitBreaker`.
        """
        wanted = dict.fromkeys(group_ids)
        new = [group_id for group_id in wanted if group_id not in self._known]
        chunks = [new[start : start + GROUPS] for start in range(0, len(new), GROUPS)]
        parts = await together(*(self._ask(chunk) for chunk in chunks))
        found = {group_id: group for part in parts for group_id, group in part.items()}
        known = {group_id: found.get(group_id) or self._known[group_id] for group_id in wanted}
        for group_id, group in known.items():
            self._known[group_id] = group
            self._known.move_to_end(group_id)
        while len(self._known) > _CACHE_SIZE:
            self._known.popitem(last=False)
        return known

    async def _ask(self, group_ids: list[str]) -> dict[str, GroupFound]:
        try:
            return await self._breaker.call(lambda: self._call(group_ids))
        except (AuthError, PermissionDenied):
            raise
        except APIError as error:
            if error.code in _REST_CODES:
                raise
            if len(group_ids) == 1:
                return {group_ids[0]: GroupFound(error.code, f"get_group_info: {error.info or 'refused'}")}
        # One id that the service refuses must not fail the others.
        half = len(group_ids) // 2
        return {**await self._ask(group_ids[:half]), **await self._ask(group_ids[half:])}

    async def _call(self, group_ids: list[str]) -> dict[str, GroupFound]:
        body = {
            "GroupIdList": group_ids,
            "ResponseFilter": {"GroupBaseInfoFilter": ["Type", "NextMsgSeq"]},
        }
        answer = await self._client.call(GET_GROUP_INFO.command, body, repeatable=True)
        rows = answer.get("GroupInfo")
        if not isinstance(rows, list):
            self._unreadable += 1
            raise BadResponse(
                "get_group_info: GroupInfo is missing from the answer",
                reaction=Reaction.RETRY if self._unreadable < _UNREADABLE_ANSWERS else Reaction.GIVE_UP,
            )
        self._unreadable = 0
        named = (row for row in rows if isinstance(row, dict) and isinstance(row.get("GroupId"), str))
        found = {row["GroupId"]: _read(row) for row in named}
        return {group_id: found.get(group_id, _UNKNOWN) for group_id in group_ids}


_UNKNOWN = GroupFound(reason="the service did not say what type of group it is")
_UNREADABLE = GroupFound(reason="get_group_info: the answer for this group has an unreadable ErrorCode")


def _read(row: Mapping[str, Any]) -> GroupFound:
    """Read one group of an answer.

    Raises:
        APIError: a transient error, with which the whole call fails.
    """
    code = row.get("ErrorCode", 0)
    if type(code) is not int or not -(2**31) <= code < 2**31:
        return _UNREADABLE
    if code != 0:
        info = row.get("ErrorInfo")
        error = classify(code, info if isinstance(info, str) and info else "no such group")
        if error.reaction is not Reaction.GIVE_UP:
            error.attempts = 1
            raise error
        return GroupFound(code, error.info)
    group_type = row.get("Type")
    if not isinstance(group_type, str) or not group_type:
        return _UNKNOWN
    if group_type in _IGNORING_TYPES:
        return GroupFound(reason=f"the group is of type {group_type}, where the service ignores unread counts")
    following = row.get("NextMsgSeq")
    messages = following - 1 if type(following) is int and following >= 1 else None
    return GroupFound(messages=messages)
