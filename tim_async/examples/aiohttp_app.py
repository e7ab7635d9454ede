"""Read state for the users of a web app, in aiohttp.web; several of its processes share one quota.

::

    pip install 'tim-async[redis]'
    PORT=8080 python -m tim_async.examples.aiohttp_app

The environment: what `TIMClient.from_env` reads; ``TIM_QUOTA_URL``, the quota's ``redis://…`` (without it each process
takes the whole rate for itself, so run one); ``TIM_WEBHOOK_TOKEN``, without which no webhook is believed.

Nobody is asked who they are here: put your own authentication before everything but ``/webhook``.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator
from dataclasses import asdict

from aiohttp import web
from aiohttp.typedefs import Handler

from tim_async import (
    AccountNotFound,
    APIError,
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
from tim_async.webhooks import ANSWER, RequestOverLimit, WebhookError, parse, verify

IMPATIENT = RetryPolicy(attempts=4, wait=(0.05, 0.2), wait_rate_limited=(0.1, 0.5), total=2.0)
"""Somebody looks at a spinner: better a quick no than a late yes."""

TIM = web.AppKey("TIM", TIMClient)
routes = web.RouteTableDef()


async def client(app: web.Application) -> AsyncIterator[None]:
    """One client for each process, as long as the process lives."""
    url = os.environ.get("TIM_QUOTA_URL")
    async with TIMClient.from_env(quota=RedisQuota(url) if url else None) as tim:
        # Who has no turn within 0.1 s gets a 429 at once; the service itself gives up after 3 s.
        app[TIM] = tim.with_options(max_wait=0.1, timeout=5.0, retry=IMPATIENT)
        yield


@routes.get("/users/{user}/unread")
async def unread(request: web.Request) -> web.Response:
    """Unread messages: a number for all peers together, or, with ``?peer=a&peer=b``, one for each."""
    tim, user, peers = request.app[TIM], request.match_info["user"], request.query.getall("peer", [])
    if not peers:
        return web.json_response(await tim.get_all_c2c_unread_msg_num(user))
    if len(peers) <= 10:
        return web.json_response(asdict(await tim.get_c2c_unread_msg_num(user, peers)))
    # One call for each ten: the last waits for the others, and 0.1 s may not do.
    return web.json_response(asdict(await tim.with_options(max_wait=1.0).batch.get_c2c_unread_msg_num(user, peers)))


@routes.get("/users/{user}/unread/{peer}")
async def unread_from(request: web.Request) -> web.Response:
    """Unread messages from one peer; requests that come together share a call."""
    lookup = request.app[TIM].lookup
    return web.json_response(await lookup.c2c_unread_msg_num(request.match_info["user"], request.match_info["peer"]))


@routes.post("/users/{user}/read/{peer}")
async def read(request: web.Request) -> web.Response:
    """Mark a conversation read."""
    await request.app[TIM].admin_set_msg_read(request.match_info["user"], request.match_info["peer"])
    return web.json_response(None)


@routes.get("/groups/{group}/receipts")
async def receipts(request: web.Request) -> web.Response:
    """Who has read: numbers for each message of ``?seq=1&seq=2``."""
    tim, group = request.app[TIM], request.match_info["group"]
    seqs = [int(seq) for seq in request.query.getall("seq", [])]
    if len(seqs) <= 50:
        return web.json_response(asdict(await tim.get_group_msg_receipt(group, seqs)))
    return web.json_response(asdict(await tim.with_options(max_wait=1.0).batch.get_group_msg_receipt(group, seqs)))


@routes.post("/webhook")
async def webhook(request: web.Request) -> web.Response:
    """What the service tells by itself.  It wants an answer within 2 s: leave longer work to others."""
    tim = request.app[TIM]
    try:
        verify(os.environ["TIM_WEBHOOK_TOKEN"], request.query)
    except (WebhookError, KeyError):
        raise web.HTTPForbidden(text="not signed by the service") from None
    event = parse(request.query, await request.read())
    if event.sdk_app_id != tim.sdk_app_id:
        raise web.HTTPForbidden(text="about another app")
    if isinstance(event, RequestOverLimit):
        tim.on_alert(event)
    return web.Response(body=ANSWER, content_type="application/json")


@routes.get("/stats")
async def stats(request: web.Request) -> web.Response:
    """How the endpoints fare, as seen by the one process that answers."""
    return web.json_response({name: asdict(endpoint) for name, endpoint in request.app[TIM].stats().items()})


@routes.get("/healthz")
async def healthz(_: web.Request) -> web.Response:
    """Whether this process answers.  It asks nobody else: an outage there is no reason to be restarted."""
    return web.json_response({"ok": True})


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


@web.middleware
async def failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say what went wrong: its kind and the service's code, and no text that was not written for users."""
    try:
        return await handler(request)
    except (TIMError, ValueError) as raised:
        error: Exception = raised
    if isinstance(error.__cause__, QuotaExhausted):  # a passing fault, and no turn in time to try again
        error = error.__cause__
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 502)
    headers = {}
    if status == 429:
        seconds = error.retry_after if isinstance(error, QuotaExhausted) else 1.0
        headers["Retry-After"] = str(math.ceil(seconds))
    code = error.code if isinstance(error, APIError) else None
    return web.json_response({"error": type(error).__name__, "code": code}, status=status, headers=headers)


def make_app() -> web.Application:
    """The app, for `aiohttp.web.run_app` or a server of yours."""
    app = web.Application(middlewares=[failures])
    app.add_routes(routes)
    app.cleanup_ctx.append(client)
    return app


if __name__ == "__main__":
    # No access log: the URLs of webhooks hold their signatures.
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")), access_log=None)
