"""Read state for the users of a web app, in aiohttp.web; several of its processes share one quota.

::

    pip install 'tim-async[redis]'
    PORT=8080 python -m tim_async.examples.aiohttp_app

The environment: what `TIMClient.from_env` reads; ``TIM_QUOTA_URL``, the quota's ``redis://…`` (without it each process
takes the whole rate for itself, so run one); ``TIM_WEBHOOK_TOKEN``, without which no webhook is believed.

Nobody is asked who they are here: put your own authentication before everything but ``/webhook``.  What one user can
take of the quota is limited by `tim_async.examples.fairness`.  Connections and requests of one address are not: limit
them in the proxy in front.
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

IMPATIENT = RetryPolicy(attempts=4, wait=(0.05, 0.2), wait_rate_limited=(0.1, 0.5), total=2.0)
"""Somebody looks at a spinner: better a quick no than a late yes."""

LONGEST_LINE = 64 * 1024
LONGEST_BODY = 1024 * 1024
"""Bytes; what is longer is refused unread."""

TIM = web.AppKey("TIM", TIMClient)
SHARES = web.AppKey("SHARES", FairShares)
routes = web.RouteTableDef()


async def client(app: web.Application) -> AsyncIterator[None]:
    """One client for each process, as long as the process lives."""
    url = os.environ.get("TIM_QUOTA_URL")
    async with TIMClient.from_env(quota=RedisQuota(url) if url else None) as tim:
        # A call without a permit within 0.1 s is a 429; the service itself gives up after 3 s.
        app[TIM] = tim.with_options(max_wait=0.1, timeout=5.0, retry=IMPATIENT)
        app[SHARES] = FairShares(app[TIM])
        yield


def parameters(request: web.Request, name: str, most: int) -> list[str]:
    """The values of a query parameter that may be repeated, ``most`` times at most."""
    values = request.query.getall(name, [])
    if len(values) > most:
        raise web.HTTPUnprocessableEntity(text=f"{name}: at most {most} in one request, not {len(values)}")
    return values


@routes.get("/users/{user}/unread")
async def unread(request: web.Request) -> web.Response:
    """Unread messages: a number for all peers together, or, with ``?peer=a&peer=b``, one for each of up to 100."""
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
    """Unread messages from one peer; requests that come together share a call."""
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
    """Numbers of those who have read each of up to 500 messages, and of those who have not."""
    group = request.match_info["group"]
    seqs = [int(seq) for seq in parameters(request, "seq", LONGEST * SEQS)]
    with request.app[SHARES].receipts.client(group, len(seqs)) as tim:
        if len(seqs) <= SEQS:
            return web.json_response(asdict(await tim.get_group_msg_receipt(group, seqs)))
        return web.json_response(asdict(await tim.batch.get_group_msg_receipt(group, seqs)))


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


@web.middleware
async def failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say what went wrong: its kind and the service's code, and no text that was not written for users."""
    try:
        return await handler(request)
    except (TIMError, ValueError, web.RequestPayloadError, ConnectionResetError) as raised:
        error: Exception = raised
    # Nobody reads the answer to a request that was given up; without one, the server would log an error of the app's.
    gone = isinstance(error, web.RequestPayloadError | ConnectionResetError)
    status = 400 if gone else http_status(error)
    seconds = retry_after(error)
    headers = {} if seconds is None else {"Retry-After": str(math.ceil(seconds))}
    code = error.code if isinstance(error, APIError) else None
    return web.json_response({"error": type(error).__name__, "code": code}, status=status, headers=headers)


def make_app() -> web.Application:
    """The app, for `aiohttp.web.run_app` or a server of yours."""
    app = web.Application(
        middlewares=[failures], client_max_size=LONGEST_BODY, handler_args={"max_line_size": LONGEST_LINE}
    )
    app.add_routes(routes)
    app.cleanup_ctx.append(client)
    return app


if __name__ == "__main__":
    # No access log: the URLs of webhooks hold their signatures.
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")), access_log=None)
