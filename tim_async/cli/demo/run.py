"""The job done with tim_async: four batches at once, at full speed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tim_async.client import TIMClient
from tim_async.models import Failed

from .progress import Progress
from .results import COUNT, ENDPOINTS, MARK, RECEIPTS, SET, Results
from .world import World

NO_RECEIPT = 10062

_AT_ONCE = 20  # batches, of several calls each


async def run(world: World, options: dict[str, Any], limit: int, progress: Progress) -> Results:
    """Do the job.

    Args:
        world: the rows, and what to ask for.
        options: how to reach the service.
        limit: the calls a second it allows for each endpoint.
        progress: is told of every attempt.
    """
    results = Results()
    started = time.monotonic()
    rates = dict.fromkeys(ENDPOINTS, float(limit))
    async with (
        TIMClient(**options, rates=rates, on_attempt=progress.attempt) as tim,
        asyncio.TaskGroup() as tasks,
    ):
        for work in (_set_counts, _mark_read, _count, _pull_receipts):
            tasks.create_task(work(tim, world, results))
    results.seconds = time.monotonic() - started
    return results


async def _set_counts(tim: TIMClient, world: World, results: Results) -> None:
    rows = ((row.group_id, row.member_account, row.unread_msg_num) for row in world.rows)
    async with tim.batch.map(tim.set_unread_msg_num, rows) as outcomes:
        async for outcome in outcomes:
            if isinstance(outcome, Failed):
                results.fail(SET, outcome.item[:2], str(outcome.error))


async def _mark_read(tim: TIMClient, world: World, results: Results) -> None:
    rows = (
        {
            "report_account": row.member_account,
            "peer_account": row.peer_account,
            "msg_read_time": row.last_read_time,
        }
        for row in world.marks
    )
    async with tim.batch.map(tim.admin_set_msg_read, rows) as outcomes:
        async for outcome in outcomes:
            if isinstance(outcome, Failed):
                key = (str(outcome.item["report_account"]), str(outcome.item["peer_account"]))
                results.fail(MARK, key, str(outcome.error))


async def _count(tim: TIMClient, world: World, results: Results) -> None:
    rows = ((account, list(peers)) for account, peers in world.inboxes.items())
    async with tim.batch.map(tim.batch.get_c2c_unread_msg_num, rows, concurrency=_AT_ONCE) as outcomes:
        async for outcome in outcomes:
            account, peers = outcome.item
            if isinstance(outcome, Failed):
                for peer in peers:
                    results.fail(COUNT, (account, peer), str(outcome.error))
            else:
                results.counts[account] = outcome.value.counts
                for peer, error in outcome.value.errors.items():
                    results.fail(COUNT, (account, peer), error.info or f"error {error.code}")


async def _pull_receipts(tim: TIMClient, world: World, results: Results) -> None:
    rows = ((group, list(by_seq)) for group, by_seq in world.receipts.items())
    async with tim.batch.map(tim.batch.get_group_msg_receipt, rows, concurrency=_AT_ONCE) as outcomes:
        async for outcome in outcomes:
            group, seqs = outcome.item
            if isinstance(outcome, Failed):
                for seq in seqs:
                    results.fail(RECEIPTS, (group, seq), str(outcome.error))
                continue
            found: dict[int, tuple[int, int] | None] = {
                seq: (receipt.read_num, receipt.unread_num) for seq, receipt in outcome.value.receipts.items()
            }
            for seq, error in outcome.value.errors.items():
                if error.code == NO_RECEIPT:  # an answer like any other: sent without one
                    found[seq] = None
                else:
                    results.fail(RECEIPTS, (group, seq), error.info or f"error {error.code}")
            results.receipts[group] = found
