"""The same job as it is written first: aiohttp and one ``AsyncLimiter(200, 1)`` for each endpoint, without retries.

No caricature: one session, one signature, ten peers and fifty messages a call, every answer's ErrorCode looked at,
and every failure noted.  Two things are missing: a limiter that holds its promise, and retries.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import aiohttp
from aiolimiter import AsyncLimiter

from tim_async._attempts import Attempt
from tim_async._lanes import Lane
from tim_async.endpoints import ENDPOINTS
from tim_async.errors import classify
from tim_async.usersig import sign

from .progress import Progress
from .results import COUNT, MARK, RECEIPTS, SET, Results
from .run import NO_RECEIPT
from .world import RECEIPTS_A_CALL, World

PEERS_A_CALL = 10

_COMMANDS = {endpoint.name: endpoint.command for endpoint in ENDPOINTS}


async def run_naively(world: World, options: dict[str, Any], limit: int, progress: Progress) -> Results:
    """Do the job; the arguments are those of `run.run`."""
    results = Results()
    started = time.monotonic()
    async with aiohttp.ClientSession() as session:
        caller = _Caller(session, options, limit, progress, results)
        await asyncio.gather(*_everything(caller, world))
    results.seconds = time.monotonic() - started
    return results


class _Caller:
    """A limiter for each endpoint, and one attempt for each call."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        options: dict[str, Any],
        limit: int,
        progress: Progress,
        results: Results,
    ) -> None:
        self.results = results
        self._session = session
        self._progress = progress
        self._limiters = {name: AsyncLimiter(limit, 1) for name in _COMMANDS}
        self._base_url = options["base_url"]
        self._query = {
            "sdkappid": str(options["sdk_app_id"]),
            "identifier": options["identifier"],
            "usersig": sign(
                options["sdk_app_id"], options["secret_key"], options["identifier"], issued_at=int(time.time())
            ),
            "contenttype": "json",
        }

    async def call(self, endpoint: str, body: dict[str, Any], keys: list[tuple[str, Any]]) -> dict[str, Any]:
        """One call; when it fails, each of ``keys`` is noted as failed and the answer is empty."""
        async with self._limiters[endpoint]:
            query = {**self._query, "random": str(random.getrandbits(32))}
            code, reason, answer = None, None, {}
            sent = time.monotonic()
            try:
                url = f"{self._base_url}/{_COMMANDS[endpoint]}"
                async with self._session.post(url, params=query, json=body) as response:
                    response.raise_for_status()
                    answer = await response.json(content_type=None)
                    code = answer["ErrorCode"]
            except aiohttp.ClientResponseError as error:
                reason = f"HTTP {error.status}"
            except (aiohttp.ClientError, OSError, ValueError) as error:
                reason = type(error).__name__
        if code:
            reason = f"error {code} ({type(classify(code)).__name__})"
        took = time.monotonic() - sent
        self._progress.attempt(Attempt(endpoint, 1, Lane.BULK, 0.0, took, code, reason))
        if reason is None:
            return dict(answer)
        for key in keys:
            self.results.fail(endpoint, key, reason)
        return {}


def _everything(caller: _Caller, world: World) -> Iterator[Coroutine[Any, Any, None]]:
    for row in world.rows:
        yield _set(caller, row.group_id, row.member_account, row.unread_msg_num)
    for row in world.marks:
        yield _mark(caller, row.member_account, str(row.peer_account), row.last_read_time)
    for account, inbox in world.inboxes.items():
        peers = list(inbox)
        for start in range(0, len(peers), PEERS_A_CALL):
            yield _count(caller, account, peers[start : start + PEERS_A_CALL])
    for group, by_seq in world.receipts.items():
        seqs = list(by_seq)
        for start in range(0, len(seqs), RECEIPTS_A_CALL):
            yield _pull_receipts(caller, group, seqs[start : start + RECEIPTS_A_CALL])


async def _set(caller: _Caller, group: str, member: str, number: int) -> None:
    body = {"GroupId": group, "Member_Account": member, "UnreadMsgNum": number}
    await caller.call(SET, body, [(group, member)])


async def _mark(caller: _Caller, member: str, peer: str, until: int | None) -> None:
    body = {"Report_Account": member, "Peer_Account": peer}
    if until is not None:
        body["MsgReadTime"] = str(until)
    await caller.call(MARK, body, [(member, peer)])


async def _count(caller: _Caller, account: str, peers: list[str]) -> None:
    body = {"To_Account": account, "Peer_Account": peers}
    answer = await caller.call(COUNT, body, [(account, peer) for peer in peers])
    counts = caller.results.counts.setdefault(account, {})
    counts.update({item["Peer_Account"]: item["C2CUnreadMsgNum"] for item in answer.get("C2CUnreadMsgNumList", ())})


async def _pull_receipts(caller: _Caller, group: str, seqs: list[int]) -> None:
    body = {"GroupId": group, "MsgSeqList": [{"MsgSeq": seq} for seq in seqs]}
    answer = await caller.call(RECEIPTS, body, [(group, seq) for seq in seqs])
    receipts = caller.results.receipts.setdefault(group, {})
    for item in answer.get("GroupMsgReceiptList", ()):
        if item["Code"] == 0:
            receipts[item["MsgSeq"]] = (item["ReadNum"], item["UnreadNum"])
        elif item["Code"] == NO_RECEIPT:
            receipts[item["MsgSeq"]] = None
