"""A strict, scripted stand-in for the service, on loopback, written from the documents without the library's code.

It writes HTTP by hand, so that it can also write it badly; records every request; and collects each deviation of a
request from the documents in `StandIn.violations`.
"""

from __future__ import annotations

import asyncio
import enum
import json
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.peer import Peer, Talk
from tests.peer import Seen as Seen  # noqa: PLC0414 - tests take it from here
from tim_async import (
    C2CUnread,
    Contact,
    GroupMsgReceiptDetail,
    GroupMsgReceipts,
    Receipt,
    RecentContactList,
    RecentContactPage,
    RetryPolicy,
    TIMClient,
    TIMError,
)

APP = 1400000000
KEY = "5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e"
"""The vendor's public example of a key."""

AT_ONCE = RetryPolicy(wait=(0.0, 0.0), wait_rate_limited=(0.0, 0.0))
"""The default retry policy without its waits."""

JSON = (("Content-Type", "application/json"),)
QUERY = ("sdkappid", "identifier", "usersig", "random", "contenttype")
# Every field of each request: its type, and whether it is required.
FIELDS: dict[str, dict[str, tuple[type, bool]]] = {
    "/v4/group_open_http_svc/set_unread_msg_num": {
        "GroupId": (str, True),
        "Member_Account": (str, True),
        "UnreadMsgNum": (int, True),
    },
    "/v4/openim/admin_set_msg_read": {
        "Report_Account": (str, True),
        "Peer_Account": (str, True),
        "MsgReadTime": (str, False),
    },
    "/v4/openim/get_c2c_unread_msg_num": {"To_Account": (str, True), "Peer_Account": (list, False)},
    "/v4/group_open_http_svc/get_group_msg_receipt": {"GroupId": (str, True), "MsgSeqList": (list, True)},
    "/v4/group_open_http_svc/get_group_msg_receipt_detail": {
        "GroupId": (str, True),
        "MsgSeq": (int, True),
        "Filter": (int, True),
        "Cursor": (str, True),
        "Count": (int, True),
    },
    "/v4/recentcontact/get_list": {
        "From_Account": (str, True),
        "TimeStamp": (int, True),
        "StartIndex": (int, True),
        "TopTimeStamp": (int, True),
        "TopStartIndex": (int, True),
        "AssistFlags": (int, True),
    },
}


class Reply(NamedTuple):
    """A well-formed HTTP response."""

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = JSON
    close: bool = False


class Raw(NamedTuple):
    """Raw bytes to send before the connection is closed."""

    data: bytes


class Fate(enum.Enum):
    """The fates of a request without an answer."""

    DROP_UNREAD = "the connection is closed before the request is read"
    DROP = "the connection is closed after the request was read"
    HOLD = "no answer until `let_go` is set"


Action = Reply | Raw | Fate
Answer = Callable[[Seen], Action]


def ok(**fields: Any) -> Reply:
    return Reply(json.dumps({"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0, **fields}).encode())


def error(code: int, info: str = "") -> Reply:
    return Reply(json.dumps({"ActionStatus": "FAIL", "ErrorInfo": info, "ErrorCode": code}).encode())


def page(status: int) -> Reply:
    html = b"<html><head><title>Bad Gateway</title></head><body>nginx</body></html>"
    return Reply(html, status, (("Content-Type", "text/html"),))


EMPTY = Reply(b"")
TRUNCATED = Raw(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"ErrorCode":')
NOT_HTTP = Raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
NOT_GZIP = Raw(b'HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 15\r\n\r\n{"ErrorCode":0}')


def count_of(peer: str) -> int:
    """Return the number of unread messages from a peer: any stable number."""
    return sum(peer.encode()) % 97


def sensible(seen: Seen) -> Action:
    """Answer as the healthy service does."""
    body = seen.json
    if seen.path.endswith("/get_c2c_unread_msg_num"):
        if "Peer_Account" not in body:
            return ok(AllC2CUnreadMsgNum=7)
        known = [peer for peer in body["Peer_Account"] if not peer.startswith("unknown")]
        unknown = [peer for peer in body["Peer_Account"] if peer.startswith("unknown")]
        answer: dict[str, Any] = {
            # The order is not documented, so reverse it.
            "C2CUnreadMsgNumList": [{"Peer_Account": p, "C2CUnreadMsgNum": count_of(p)} for p in reversed(known)]
        }
        if unknown:
            answer["ErrorList"] = [{"Peer_Account": peer, "ErrorCode": 70107} for peer in unknown]
        return ok(**answer)
    if seen.path.endswith("/get_group_msg_receipt"):
        seqs = [item["MsgSeq"] for item in body["MsgSeqList"]]
        rows = [
            {"Code": 10062, "MsgSeq": seq} if seq % 100 == 99 else
            {"Code": 0, "MsgSeq": seq, "ReadNum": seq % 5, "UnreadNum": seq % 3}
            for seq in reversed(seqs)
        ]  # fmt: skip
        return ok(GroupMsgReceiptList=rows)
    if seen.path.endswith("/get_group_msg_receipt_detail"):
        return ok(Cursor="", IsFinish=1, ReadList=[{"Read_Account": "bob"}], UnreadList=[{"Unread_Account": "carol"}])
    if seen.path.endswith("/recentcontact/get_list"):
        return ok(CompleteFlag=1, SessionItem=[{"Type": 1, "To_Account": "bob", "MsgTime": 1700000000, "TopFlag": 1}])
    return ok()


class StandIn(Peer):
    """The server.  ``script`` has the actions for the next requests; ``answer`` chooses the action for all others."""

    def __init__(self, *actions: Action, answer: Answer = sensible, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(self._serve, tls)
        self.script: deque[Action] = deque(actions)
        self.answer = answer
        self.seen: list[Seen] = []
        self.violations: list[str] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.let_go = asyncio.Event()
        self._came = asyncio.Event()
        self._randoms: set[str] = set()

    async def until(self, number: int) -> None:
        """Wait until ``number`` requests have arrived."""
        while len(self.seen) < number:
            self._came.clear()
            await self._came.wait()

    @property
    def usersigs(self) -> set[str]:
        return {seen.usersig for seen in self.seen if seen.path}

    @property
    def bodies(self) -> list[Any]:
        return [seen.json for seen in self.seen if seen.path]

    async def _serve(self, talk: Talk) -> None:
        while await self._exchange(talk):
            pass

    async def _exchange(self, talk: Talk) -> bool:
        first = await talk.begun()
        action: Action | None = self.script.popleft() if self.script else None
        if action is Fate.DROP_UNREAD:
            self._saw(Seen(connection=talk.number))
            return False
        seen = await talk.request(first)
        self.violations += violations(seen)
        if seen.query.get("random", "") in self._randoms:
            self.violations.append(f"random {seen.query['random']} came twice")
        self._randoms.add(seen.query.get("random", ""))
        self._saw(seen)
        return await self._act(self.answer(seen) if action is None else action, seen, talk)

    def _saw(self, seen: Seen) -> None:
        self.seen.append(seen)
        self._came.set()

    async def _act(self, action: Action, seen: Seen, talk: Talk) -> bool:
        if action is Fate.HOLD:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            try:
                await self.let_go.wait()
            finally:
                self.in_flight -= 1
            action = self.answer(seen)
            if action is Fate.HOLD:
                action = sensible(seen)
        if isinstance(action, Fate):
            return False
        if isinstance(action, Raw):
            await talk.send(action.data)
            talk.end_sending()
            if not self._tls:
                await talk.finish()
            return False
        lines = [f"HTTP/1.1 {action.status} Whatever", f"Content-Length: {len(action.body)}"]
        lines += [f"{name}: {value}" for name, value in action.headers]
        if action.close:
            lines.append("Connection: close")
        await talk.send("\r\n".join([*lines, "", ""]).encode() + action.body)
        if action.close:
            await talk.finish()
        return not action.close


def violations(seen: Seen) -> list[str]:
    """Return each deviation of a request from the documents."""
    found = []
    names = [part.partition("=")[0] for part in seen.raw_query.split("&")]
    if sorted(names) != sorted(QUERY):
        found.append(f"query {names}")
    else:
        query = seen.query
        if not re.fullmatch(r"0|[1-9][0-9]{0,9}", query["random"]) or int(query["random"]) > 0xFFFFFFFF:
            found.append(f"random {query['random']}")
        if query["contenttype"] != "json":
            found.append(f"contenttype {query['contenttype']}")
        if not query["sdkappid"].isdigit():
            found.append(f"sdkappid {query['sdkappid']}")
    if seen.method != "POST":
        found.append(f"method {seen.method}")
    if not re.fullmatch(r"[!-~]*", seen.raw_query) or re.search(r"[\"<>#]", seen.raw_query):
        found.append("the query is not percent-encoded")
    if seen.headers.get("content-type", "").partition(";")[0] != "application/json":
        found.append(f"content type {seen.headers.get('content-type')}")
    try:
        body = json.loads(seen.body.decode("utf-8"))
    except ValueError:
        return [*found, "the body is not JSON"]
    if not isinstance(body, dict):
        return [*found, "the body is no object"]
    return found + _ill_fields(seen.path, body)


def _ill_fields(path: str, body: dict[str, Any]) -> list[str]:
    fields = FIELDS.get(path)
    if fields is None:
        return []
    found = [f"unknown field {name}" for name in body if name not in fields]
    for name, (kind, required) in fields.items():
        if name not in body:
            found += [f"{name} is missing"] if required else []
        elif type(body[name]) is not kind or (body[name] in ("", []) and name != "Cursor"):
            found.append(f"{name} is {body[name]!r}")
    peers = body.get("Peer_Account")
    if isinstance(peers, list) and (
        len(peers) > 10 or len(set(peers)) != len(peers) or not all(type(peer) is str and peer for peer in peers)
    ):
        found.append(f"Peer_Account is {peers!r}")
    for item in body.get("MsgSeqList", ()):
        if type(item) is not dict or [*item] != ["MsgSeq"] or type(item["MsgSeq"]) is not int or item["MsgSeq"] < 0:
            found.append(f"an item of MsgSeqList is {item!r}")
    if body.get("Filter") not in (None, 0, 1) or not 1 <= body.get("Count", 1) <= 200:
        found.append(f"Filter is {body.get('Filter')!r}, Count {body.get('Count')!r}")
    if isinstance(body.get("MsgReadTime"), str) and not re.fullmatch(r"0|[1-9][0-9]*", body["MsgReadTime"]):
        found.append(f"MsgReadTime is {body['MsgReadTime']!r}")
    return found


@dataclass(frozen=True)
class Method:
    """One method of the client, with the request that it must send and the result that it must return.

    ``name`` is by default the last part of the path; ``endpoint``, the endpoint's name in errors, is by default the
    same.
    """

    path: str
    run: Callable[[TIMClient], Awaitable[Any]]
    body: dict[str, Any]
    result: Any = None
    name: str = ""
    endpoint: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.path.rpartition("/")[2])
        object.__setattr__(self, "endpoint", self.endpoint or self.name)

    def __str__(self) -> str:
        return self.name


OTHER = "v4/group_open_http_svc/get_group_info"
METHODS = (
    Method(
        "/v4/group_open_http_svc/set_unread_msg_num",
        lambda tim: tim.set_unread_msg_num("@TGS#1", "alice", 3),
        {"GroupId": "@TGS#1", "Member_Account": "alice", "UnreadMsgNum": 3},
    ),
    Method(
        "/v4/openim/admin_set_msg_read",
        lambda tim: tim.admin_set_msg_read("alice", "bob", msg_read_time=1700000000),
        {"Report_Account": "alice", "Peer_Account": "bob", "MsgReadTime": "1700000000"},
    ),
    Method(
        "/v4/openim/get_c2c_unread_msg_num",
        lambda tim: tim.get_all_c2c_unread_msg_num("alice"),
        {"To_Account": "alice"},
        7,
        name="get_all_c2c_unread_msg_num",
        endpoint="get_c2c_unread_msg_num",
    ),
    Method(
        "/v4/openim/get_c2c_unread_msg_num",
        lambda tim: tim.get_c2c_unread_msg_num("alice", ["bob", "carol"]),
        {"To_Account": "alice", "Peer_Account": ["bob", "carol"]},
        C2CUnread({"bob": count_of("bob"), "carol": count_of("carol")}),
    ),
    Method(
        "/v4/group_open_http_svc/get_group_msg_receipt",
        lambda tim: tim.get_group_msg_receipt("@TGS#1", [1, 2]),
        {"GroupId": "@TGS#1", "MsgSeqList": [{"MsgSeq": 1}, {"MsgSeq": 2}]},
        GroupMsgReceipts({1: Receipt(1, 1), 2: Receipt(2, 2)}),
    ),
    Method(
        "/v4/group_open_http_svc/get_group_msg_receipt_detail",
        lambda tim: tim.get_group_msg_receipt_detail("@TGS#1", 7, read=False, cursor="next", count=100),
        {"GroupId": "@TGS#1", "MsgSeq": 7, "Filter": 1, "Cursor": "next", "Count": 100},
        GroupMsgReceiptDetail(("carol",), "", finished=True),
    ),
    Method(
        "/v4/recentcontact/get_list",
        lambda tim: tim.get_recent_contact_list("alice", page=RecentContactPage(1, 2, 3, 4)),
        {
            "From_Account": "alice",
            "TimeStamp": 1,
            "StartIndex": 2,
            "TopTimeStamp": 3,
            "TopStartIndex": 4,
            "AssistFlags": 63,
        },
        RecentContactList((Contact("c2c", "bob", 1700000000, pinned=True),), None),
        name="get_recent_contact_list",
    ),
    Method(
        f"/{OTHER}",
        lambda tim: tim.call(OTHER, {"GroupIdList": ["@TGS#1"]}, repeatable=True),
        {"GroupIdList": ["@TGS#1"]},
        {"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0},
        name="call",
        endpoint=OTHER,
    ),
)
"""Every method, `admin_set_msg_read` with its time given; each is safe to repeat."""


def client_of(service: StandIn, **options: Any) -> TIMClient:
    """Make a client of the stand-in, which retries without waits."""
    given: dict[str, Any] = {"sdk_app_id": APP, "secret_key": KEY, "base_url": service.url, "retry": AT_ONCE}
    return TIMClient(**{**given, **options})


async def failure_of(awaitable: Awaitable[Any]) -> BaseException:
    """Return the exception that an awaitable raises; fail if it raises none."""
    try:
        result = await awaitable
    except Exception as raised:  # noqa: BLE001 - the caller asserts its type
        return raised
    raise AssertionError(f"nothing was raised; the result was {result!r}")


async def outcome_of(awaitable: Awaitable[Any]) -> Any:
    """Return the result or the `TIMError` of an awaitable; any other exception is raised."""
    try:
        return await awaitable
    except TIMError as failure:
        return failure


def chain(failure: BaseException) -> list[BaseException]:
    """Return an exception with all its causes and contexts."""
    links: list[BaseException] = []
    todo: list[BaseException | None] = [failure]
    while todo:
        link = todo.pop()
        if link is not None and link not in links:
            links.append(link)
            todo += [link.__cause__, link.__context__]
    return links
