"""The service for a migration: it stores the members' counts and answers look-ups of groups."""

from __future__ import annotations

from typing import Any

from tests.simulation import service
from tests.simulation.service import Flight, failure, success
from tests.simulation.world import World
from tim_async._wire import Response
from tim_async.emulator._windows import Window

from .plan import GROUPS, REFUSED, Group

NO_ACCOUNT = 10019
NO_GROUP = 10010
LOOKUP = "groups"
"""The account that stands for a look-up of groups."""


class Service(service.Service):
    """One app of the service.

    Attributes:
        values: the count of each member, by account.
    """

    def __init__(self, world: World, window: Window, watcher: Any) -> None:
        super().__init__(world, window, watcher)
        self.values: dict[str, int] = {}

    def account_of(self, request: dict[str, Any]) -> str:
        """Return the member in a request, or ``LOOKUP``."""
        return LOOKUP if "GroupIdList" in request else f"{request['GroupId']}/{request['Member_Account']}"

    def arrive(self, flight: Flight, back: float) -> None:
        """Handle the arrival of a request, which is executed even if the answer is lost."""
        if not flight.arrived and flight.account != LOOKUP and not _is_refused(flight.request):
            self.values[flight.account] = flight.request["UnreadMsgNum"]
        super().arrive(flight, back)

    def reply(self, code: int, flight: Flight) -> Response:
        """Make the answer to a request."""
        request = flight.request
        if code:
            return failure(code)
        if flight.account == LOOKUP:
            return success(GroupInfo=[_group(group_id) for group_id in request["GroupIdList"]])
        return failure(NO_ACCOUNT) if _is_refused(request) else success()

    def delivered(self, flight: Flight, reply: Response) -> None:
        """Handle the delivery of an answer."""
        self.watcher.delivered(flight.host, flight.account, reply)


def _is_refused(request: dict[str, Any]) -> bool:
    return str(request["Member_Account"]).startswith(REFUSED)


def _group(group_id: str) -> dict[str, Any]:
    kind = GROUPS[group_id.rstrip("0123456789")]
    if kind is Group.ABSENT:
        return {"GroupId": group_id, "ErrorCode": NO_GROUP, "ErrorInfo": "no such group"}
    found = {"GroupId": group_id, "ErrorCode": 0, "Type": "AVChatRoom" if kind is Group.DEAF else "Public"}
    return {**found, "NextMsgSeq": 11} if kind is Group.SMALL else found
