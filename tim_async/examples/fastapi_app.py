"""Read state for the users of a web app, in FastAPI; all processes of the app share one quota.

::

    pip install 'tim-async[redis]' fastapi 'uvicorn[standard]'
    uvicorn tim_async.examples.fastapi_app:app --workers 4 --no-access-log --limit-concurrency 1000

Environment variables: those of `TIMClient.from_env`; ``TIM_QUOTA_URL``, the quota's ``redis://…`` URL (without it each
process uses the whole rate, so run only one); ``TIM_WEBHOOK_TOKEN`` (without it every webhook is refused).

The app does not authenticate users: add your own authentication to every route but ``/webhook``.
`tim_async.examples.fairness` limits each user's share of the quota.  Connections and requests per address are not
limited: limit them in the reverse proxy.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, TypedDict

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from tim_async import (
    APIError,
    C2CUnread,
    EndpointStats,
    GroupMsgReceipts,
    RetryPolicy,
    TIMClient,
    TIMError,
    http_status,
    retry_after,
)
from tim_async.examples.fairness import LONGEST, PEERS, SEQS, FairShares
from tim_async.quota import RedisQuota
from tim_async.webhooks import ANSWER, RequestOverLimit, WebhookError, parse, verify

FAIL_FAST = RetryPolicy(attempts=4, wait=(0.05, 0.2), wait_rate_limited=(0.1, 0.5), total=2.0)
"""The retry policy while a user waits: a fast error is better than a late answer."""

MAX_QUERY = 64 * 1024
MAX_BODY = 1024 * 1024
"""Bytes; anything longer is refused unread."""


class Lifespan(TypedDict):
    """The state that the lifespan yields, for the handlers."""

    tim: TIMClient
    shares: FairShares


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[Lifespan]:
    """Keep one client for the life of the process."""
    url = os.environ.get("TIM_QUOTA_URL")
    async with TIMClient.from_env(quota=RedisQuota(url) if url else None) as client:
        # A call without a permit within 0.1 s is a 429; the service itself gives up after 3 s.
        tim = client.with_options(max_wait=0.1, timeout=5.0, retry=FAIL_FAST)
        yield {"tim": tim, "shares": FairShares(tim)}


# These are async because FastAPI would run plain functions in a thread pool.
async def _client(request: Request) -> TIMClient:
    tim: TIMClient = request.state.tim
    return tim


async def _shares(request: Request) -> FairShares:
    shares: FairShares = request.state.shares
    return shares


app = FastAPI(title="Read state", lifespan=lifespan)
Tim = Annotated[TIMClient, Depends(_client)]
Fair = Annotated[FairShares, Depends(_shares)]
Peers = Annotated[list[str] | None, Query(max_length=LONGEST * PEERS)]
Seqs = Annotated[list[int], Query(min_length=1, max_length=LONGEST * SEQS)]


@app.get("/users/{user}/unread")
async def unread(user: str, shares: Fair, peer: Peers = None) -> int | C2CUnread:
    """Count unread messages: in total or, with ``?peer=a&peer=b``, for each of up to 100 peers."""
    if not peer:
        with shares.unread.client(user) as tim:
            return await tim.get_all_c2c_unread_msg_num(user)
    with shares.unread.client(user, len(peer)) as tim:
        if len(peer) <= PEERS:
            return await tim.get_c2c_unread_msg_num(user, peer)
        return await tim.batch.get_c2c_unread_msg_num(user, peer)


@app.get("/users/{user}/unread/{peer}")
async def unread_from(user: str, peer: str, shares: Fair) -> int:
    """Count unread messages from one peer; concurrent requests share a call."""
    with shares.unread.client(user, 1) as tim:
        return await tim.lookup.c2c_unread_msg_num(user, peer)


@app.post("/users/{user}/read/{peer}")
async def read(user: str, peer: str, shares: Fair) -> None:
    """Mark a conversation read."""
    with shares.read.client(user) as tim:
        await tim.admin_set_msg_read(user, peer)


@app.get("/groups/{group}/receipts")
async def receipts(group: str, seq: Seqs, shares: Fair) -> GroupMsgReceipts:
    """Count the members who have read each of up to 500 messages, and those who have not."""
    with shares.receipts.client(group, len(seq)) as tim:
        if len(seq) <= SEQS:
            return await tim.get_group_msg_receipt(group, seq)
        return await tim.batch.get_group_msg_receipt(group, seq)


@app.post("/webhook")
async def webhook(request: Request, tim: Tim) -> Response:
    """Receive a webhook.  The service expects an answer within 2 s: hand longer work to a task."""
    try:
        verify(os.environ["TIM_WEBHOOK_TOKEN"], request.query_params)
    except (WebhookError, KeyError):
        raise HTTPException(403, "not signed by the service") from None
    event = parse(request.query_params, await _body(request))
    if event.sdk_app_id != tim.sdk_app_id:
        raise HTTPException(403, "webhook of another app")
    if isinstance(event, RequestOverLimit):
        tim.on_alert(event)
    return Response(ANSWER, media_type="application/json")


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"the body must be at most {MAX_BODY} bytes")
    return bytes(body)


@app.get("/stats")
async def stats(tim: Tim) -> dict[str, EndpointStats]:
    """Return the statistics of each endpoint, from the process that answers."""
    return tim.stats()


@app.get("/healthz")
async def healthz() -> dict[str, bool]:
    """Answer while this process runs.  An outage of the service or the store is no reason for a restart."""
    return {"ok": True}


class QueryLimit:
    """Middleware that refuses a query that is too long, because parsing it would block the event loop."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        app = self.app
        if scope["type"] == "http":
            query: bytes = scope["query_string"]
            if len(query) > MAX_QUERY:
                app = JSONResponse({"detail": f"the query must be at most {MAX_QUERY} bytes"}, 414)
            elif query.count(b"&") >= LONGEST * SEQS:
                app = JSONResponse({"detail": f"at most {LONGEST * PEERS} peers or {LONGEST * SEQS} messages"}, 422)
        await app(scope, receive, send)


app.add_middleware(QueryLimit)


@app.exception_handler(TIMError)
@app.exception_handler(ClientDisconnect)
@app.exception_handler(ValueError)
async def failed(_: Request, error: Exception) -> JSONResponse:
    """Answer with the error's class and the service's code; the error's text is not meant for users."""
    # A client that disconnected reads no answer; without one, the server would log an error of the app.
    status = 400 if isinstance(error, ClientDisconnect) else http_status(error)
    seconds = retry_after(error)
    headers = {} if seconds is None else {"Retry-After": str(math.ceil(seconds))}
    code = error.code if isinstance(error, APIError) else None
    return JSONResponse({"error": type(error).__name__, "code": code}, status, headers)
