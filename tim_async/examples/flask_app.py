"""Read state for the users of a web app, in Flask, under any threaded WSGI server.

::

    pip install 'tim-async[redis]' flask gunicorn
    gunicorn tim_async.examples.flask_app:app --workers 4 --threads 16

Environment variables: those of `TIMClient.from_env`, and ``TIM_QUOTA_URL``, the ``redis://…`` URL of the quota that all
processes share (without it each process uses the whole rate, so run only one).

The app does not authenticate users: add your own authentication to every route.
"""

from __future__ import annotations

import math
import os

from flask import Flask, Response, jsonify, request

from tim_async import APIError, RetryPolicy, TIMClient, TIMError, http_status, retry_after
from tim_async.blocking import Portal
from tim_async.quota import RedisQuota

FAIL_FAST = RetryPolicy(attempts=4, wait=(0.05, 0.2), wait_rate_limited=(0.1, 0.5), total=2.0)
"""The retry policy while a user waits: a fast error is better than a late answer."""


def client() -> TIMClient:
    """Make the client of one process."""
    url = os.environ.get("TIM_QUOTA_URL")
    tim = TIMClient.from_env(quota=RedisQuota(url) if url else None)
    # A call without a permit within 0.1 s is a 429; the service itself gives up after 3 s.
    return tim.with_options(max_wait=0.1, timeout=5.0, retry=FAIL_FAST)


app = Flask(__name__)
# The portal starts with the first request, so a server may import this module before it forks its workers.
portal = Portal(client)


@app.get("/users/<user>/unread")
def unread(user: str) -> Response:
    """Count unread messages: in total or, with ``?peer=a&peer=b``, for each of up to 100 peers."""
    peers = request.args.getlist("peer")
    if not peers:
        return jsonify(portal.run(TIMClient.get_all_c2c_unread_msg_num, user))
    if len(peers) > 100:
        raise ValueError(f"at most 100 peers in one request, not {len(peers)}")
    return jsonify(portal.run(lambda tim: tim.batch.get_c2c_unread_msg_num(user, peers)))


@app.get("/users/<user>/unread/<peer>")
def unread_from(user: str, peer: str) -> Response:
    """Count unread messages from one peer; concurrent requests, each in its thread, share a call."""
    return jsonify(portal.run(lambda tim: tim.lookup.c2c_unread_msg_num(user, peer)))


@app.post("/users/<user>/read/<peer>")
def read(user: str, peer: str) -> Response:
    """Mark a conversation read."""
    return jsonify(portal.run(TIMClient.admin_set_msg_read, user, peer))


@app.get("/healthz")
def healthz() -> Response:
    """Answer while this process runs.  An outage of the service or the store is no reason for a restart."""
    return jsonify({"ok": True})


@app.errorhandler(TIMError)
@app.errorhandler(ValueError)  # an invalid argument: nothing was sent
def failed(error: Exception) -> Response:
    """Answer with the error's class and the service's code; the error's text is not meant for users."""
    answer = jsonify({"error": type(error).__name__, "code": error.code if isinstance(error, APIError) else None})
    answer.status_code = http_status(error)
    if (seconds := retry_after(error)) is not None:
        answer.headers["Retry-After"] = str(math.ceil(seconds))
    return answer
