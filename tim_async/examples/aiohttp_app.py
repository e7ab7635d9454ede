"""Read state for the users of a web app, in aiohttp.web; all processes of the app share one quota.

::

    pip install 'tim-async[redis]'
    PORT=8080 python -m tim_async.examples.aiohttp_app

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
from dataclasses import asdict

from aiohttp import web
from aiohttp.typedefs import Handler

from tim_async import (
    APIError,
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

MAX_LINE = 64 * 1024
MAX_BODY = 1024 * 1024
"""Bytes; anything longer is refused unread."""

TIM = web.AppKey("TIM", TIMClient)
SHARES = web.AppKey("SHARES", FairShares)
routes = web.RouteTableDef()


async def client(app: web.Application) -> AsyncIterator[None]:
    """Keep one client for the life of the process."""
    url = os.environ.get("TIM_QUOTA_URL")
    async with TIMClient.from_env(quota=RedisQuota(url) if url else None) as tim:
        # A call without a permit within 0.1 s is a 429; the service itself gives up after 3 s.
        app[TIM] = tim.with_options(max_wait=0.1, timeout=5.0, retry=FAIL_FAST)
        app[SHARES] = FairShares(app[TIM])
        yield


def parameters(request: web.Request, name: str, most: int) -> list[str]:
    """Return the values of a query parameter that may be given up to ``most`` times."""
    values = request.query.getall(name, [])
    if len(values) > most:
        raise web.HTTPUnprocessableEntity(text=f"{name}: at most {most} in one request, not {len(values)}")
    return values


@routes.get("/users/{user}/unread")
async def unread(request: web.Request) -> web.Response:
    """Count unread messages: in total or, with ``?peer=a&peer=b``, for each of up to 100 peers."""
    share, user = request.app[SHARES].unread, request.match_info["user"]
    peers = parameters(request, "peer", LONGEST * PEERS)
    if not peers:
        with share.client(user) as tim:
            return web.json_response(await tim.get_all_c2c_unread_msg_num(user))
    with share.client(user, len(peers)) as tim:
        if len(peers) <= PEERS:
            return web.json_response(asdict(await tim.get_c2c_unread_msg_num(user, peers)))
        return web.json_response(asdict(await tim.batch.get_c2c_unread_msg_num(user, peers)))


@routes.get("/users/{user}/unread/{peer}")
async def unread_from(request: web.Request) -> web.Response:
    """Count unread messages from one peer; concurrent requests share a call."""
    user, peer = request.match_info["user"], request.match_info["peer"]
    with request.app[SHARES].unread.client(user, 1) as tim:
        return web.json_response(await tim.lookup.c2c_unread_msg_num(user, peer))


@routes.post("/users/{user}/read/{peer}")
async def read(request: web.Request) -> web.Response:
    """Mark a conversation read."""
    user, peer = request.match_info["user"], request.match_info["peer"]
    with request.app[SHARES].read.client(user) as tim:
        await tim.admin_set_msg_read(user, peer)
    return web.json_response(None)


@routes.get("/groups/{group}/receipts")
async def receipts(request: web.Request) -> web.Response:
    """Count the members who have read each of up to 500 messages, and those who have not."""
    group = request.match_info["group"]
    seqs = [int(seq) for seq in parameters(request, "seq", LONGEST * SEQS)]
    with request.app[SHARES].receipts.client(group, len(seqs)) as tim:
        if len(seqs) <= SEQS:
            return web.json_response(asdict(await tim.get_group_msg_receipt(group, seqs)))
        return web.json_response(asdict(await tim.batch.get_group_msg_receipt(group, seqs)))


@routes.post("/webhook")
async def webhook(request: web.Request) -> web.Response:
    """Receive a webhook.  The service expects an answer within 2 s: hand longer work to a task."""
    tim = request.app[TIM]
    try:
        verify(os.environ["TIM_WEBHOOK_TOKEN"], request.query)
    except (WebhookError, KeyError):
        raise web.HTTPForbidden(text="not signed by the service") from None
    event = parse(request.query, await request.read())
    if event.sdk_app_id != tim.sdk_app_id:
        raise web.HTTPForbidden(text="webhook of another app")
    if isinstance(event, RequestOverLimit):
        tim.on_alert(event)
    return web.Response(body=ANSWER, content_type="application/json")


@routes.get("/stats")
async def stats(request: web.Request) -> web.Response:
    """Return the statistics of each endpoint, from the process that answers."""
    return web.json_response({name: asdict(endpoint) for name, endpoint in request.app[TIM].stats().items()})


@routes.get("/healthz")
async def healthz(_: web.Request) -> web.Response:
    """Answer while this process runs.  An outage of the service or the store is no reason for a restart."""
    return web.json_response({"ok": True})


@web.middleware
async def failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a failed request with the error's class and the service's code; its text is not meant for users."""
    try:
        return await handler(request)
    except (TIMError, ValueError, web.RequestPayloadError, ConnectionResetError) as raised:
        error: Exception = raised
    # A client that disconnected reads no answer; without one, the server would log an error of the app.
    gone = isinstance(error, web.RequestPayloadError | ConnectionResetError)
    status = 400 if gone else http_status(error)
    seconds = retry_after(error)
    headers = {} if seconds is None else {"Retry-After": str(math.ceil(seconds))}
    code = error.code if isinstance(error, APIError) else None
    return web.json_response({"error": type(error).__name__, "code": code}, status=status, headers=headers)


def make_app() -> web.Application:
    """Make the app, for `aiohttp.web.run_app` or another server."""
    app = web.Application(middlewares=[failures], client_max_size=MAX_BODY, handler_args={"max_line_size": MAX_LINE})
    app.add_routes(routes)
    app.cleanup_ctx.append(client)
    return app


if __name__ == "__main__":
    # No access log: the URLs of webhooks hold their signatures.
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")), access_log=None)
