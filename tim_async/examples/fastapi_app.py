"""Read state for the users of a web app, in FastAPI; all its processes share one quota.

::

    pip install 'tim-async[redis]' fastapi uvicorn
    uvicorn tim_async.examples.fastapi_app:app --workers 4 --no-access-log

The environment: what `TIMClient.from_env` reads; ``TIM_QUOTA_URL``, the quota's ``redis://…`` (without it each process
takes the whole rate for itself, so run one); ``TIM_WEBHOOK_TOKEN``, without which no webhook is believed.

Nobody is asked who they are here: put your own authentication before everything but ``/webhook``.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, TypedDict

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse

from tim_async import (
    AccountNotFound,
    APIError,
    C2CUnread,
    GroupMsgReceipts,
    GroupNotFound,
    InvalidRequest,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    ReceiptUnavailable,
    RequestTimeout,
    RetryPolicy,
    ServerBusy,
    TIMClient,
    TIMError,
    TransportError,
)
from tim_async.quota import RedisQuota
from tim_async.stats import EndpointStats
from tim_async.webhooks import ANSWER, RequestOverLimit, WebhookError, parse, verify

IMPATIENT = RetryPolicy(attempts=4, wait=(0.05, 0.2), wait_rate_limited=(0.1, 0.5), total=2.0)
"""Somebody looks at a spinner: better a quick no than a late yes."""


class State(TypedDict):
    """What the lifespan hands to the handlers."""

    tim: TIMClient


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[State]:
    """One client for each process, as long as the process lives."""
    url = os.environ.get("TIM_QUOTA_URL")
    async with TIMClient.from_env(quota=RedisQuota(url) if url else None) as tim:
        # Who has no turn within 0.1 s gets a 429 at once; the service itself gives up after 3 s.
        yield {"tim": tim.with_options(max_wait=0.1, timeout=5.0, retry=IMPATIENT)}


async def _client(request: Request) -> TIMClient:  # a plain function would be called in another thread, each time
    tim: TIMClient = request.state.tim
    return tim


app = FastAPI(title="Read state", lifespan=lifespan)
Tim = Annotated[TIMClient, Depends(_client)]
Peers = Annotated[list[str] | None, Query()]
Seqs = Annotated[list[int], Query(min_length=1)]


@app.get("/users/{user}/unread")
async def unread(user: str, tim: Tim, peer: Peers = None) -> int | C2CUnread:
    """Unread messages: a number for all peers together, or, with ``?peer=a&peer=b``, one for each."""
    if not peer:
        return await tim.get_all_c2c_unread_msg_num(user)
    if len(peer) <= 10:
        return await tim.get_c2c_unread_msg_num(user, peer)
    # One call for each ten: the last waits for the others, and 0.1 s may not do.
    return await tim.with_options(max_wait=1.0).batch.get_c2c_unread_msg_num(user, peer)


@app.get("/users/{user}/unread/{peer}")
async def unread_from(user: str, peer: str, tim: Tim) -> int:
    """Unread messages from one peer; requests that come together share a call."""
    return await tim.lookup.c2c_unread_msg_num(user, peer)


@app.post("/users/{user}/read/{peer}")
async def read(user: str, peer: str, tim: Tim) -> None:
    """Mark a conversation read."""
    await tim.admin_set_msg_read(user, peer)


@app.get("/groups/{group}/receipts")
async def receipts(group: str, seq: Seqs, tim: Tim) -> GroupMsgReceipts:
    """Who has read: numbers for each message."""
    if len(seq) <= 50:
        return await tim.get_group_msg_receipt(group, seq)
    return await tim.with_options(max_wait=1.0).batch.get_group_msg_receipt(group, seq)


@app.post("/webhook")
async def webhook(request: Request, tim: Tim) -> Response:
    """What the service tells by itself.  It wants an answer within 2 s: leave longer work to others."""
    try:
        verify(os.environ["TIM_WEBHOOK_TOKEN"], request.query_params)
    except (WebhookError, KeyError):
        raise HTTPException(403, "not signed by the service") from None
    event = parse(request.query_params, await request.body())
    if event.sdk_app_id != tim.sdk_app_id:
        raise HTTPException(403, "about another app")
    if isinstance(event, RequestOverLimit):
        tim.on_alert(event)
    return Response(ANSWER, media_type="application/json")


@app.get("/stats")
async def stats(tim: Tim) -> dict[str, EndpointStats]:
    """How the endpoints fare, as seen by the one process that answers."""
    return tim.stats()


@app.get("/healthz")
async def healthz() -> dict[str, bool]:
    """Whether this process answers.  It asks nobody else: an outage there is no reason to be restarted."""
    return {"ok": True}


STATUS: dict[type[Exception], int] = {
    QuotaExhausted: 429,
    RateLimited: 429,
    AccountNotFound: 404,
    GroupNotFound: 404,
    ReceiptUnavailable: 404,
    PermissionDenied: 403,
    InvalidRequest: 422,
    ValueError: 422,  # an argument that can never be right: nothing was sent
    WebhookError: 400,
    RequestTimeout: 504,
    ServerBusy: 503,
    TransportError: 503,
}
"""By the first class that is here of an error's own and its bases; 502 for all others, such as refused credentials."""


@app.exception_handler(TIMError)
@app.exception_handler(ValueError)
async def failed(_: Request, error: Exception) -> JSONResponse:
    """Say what went wrong: its kind and the service's code, and no text that was not written for users."""
    if isinstance(error.__cause__, QuotaExhausted):  # a passing fault, and no turn in time to try again
        error = error.__cause__
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 502)
    headers = {}
    if status == 429:
        seconds = error.retry_after if isinstance(error, QuotaExhausted) else 1.0
        headers["Retry-After"] = str(math.ceil(seconds))
    code = error.code if isinstance(error, APIError) else None
    return JSONResponse({"error": type(error).__name__, "code": code}, status, headers)
