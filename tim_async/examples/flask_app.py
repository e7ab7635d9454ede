"""Read state for the users of a web app, in Flask, under any WSGI server that runs threads.

::

    pip install 'tim-async[redis]' flask gunicorn
    gunicorn tim_async.examples.flask_app:app --workers 4 --threads 16

The environment: what `TIMClient.from_env` reads, and ``TIM_QUOTA_URL``, the ``redis://…`` of the quota that all
processes share (without it each takes the whole rate for itself, so run one).

Nobody is asked who they are here: put your own authentication before everything.
"""

from __future__ import annotations

import math
import os

from flask import Flask, Response, jsonify, request

from tim_async import APIError, RetryPolicy, TIMClient, TIMError, http_status, retry_after
from tim_async.blocking import Portal
from tim_async.quota import RedisQuota

IMPATIENT = RetryPolicy(attempts=4, wait=(0.05, 0.2), wait_rate_limited=(0.1, 0.5), total=2.0)
"""Somebody looks at a spinner: better a quick no than a late yes."""


def client() -> TIMClient:
    """Make the client of one process."""
    url = os.environ.get("TIM_QUOTA_URL")
    tim = TIMClient.from_env(quota=RedisQuota(url) if url else None)
    # A call without a permit within 0.1 s is a 429; the service itself gives up after 3 s.
    return tim.with_options(max_wait=0.1, timeout=5.0, retry=IMPATIENT)


app = Flask(__name__)
# Nothing is started before the first request, so that a server may import this first and fork its workers afterwards.
portal = Portal(client)


@app.get("/users/<user>/unread")
def unread(user: str) -> Response:
    """Unread messages: a number for all peers together, or, with ``?peer=a&peer=b``, one for each of up to 100."""
    peers = request.args.getlist("peer")
    if not peers:
        return jsonify(portal.run(TIMClient.get_all_c2c_unread_msg_num, user))
    if len(peers) > 100:
        raise ValueError(f"at most 100 peers in one request, not {len(peers)}")
    return jsonify(portal.run(lambda tim: tim.batch.get_c2c_unread_msg_num(user, peers)))


@app.get("/users/<user>/unread/<peer>")
def unread_from(user: str, peer: str) -> Response:
    """Unread messages from one peer; requests that come together, each in its thread, share a call."""
    return jsonify(portal.run(lambda tim: tim.lookup.c2c_unread_msg_num(user, peer)))


@app.post("/users/<user>/read/<peer>")
def read(user: str, peer: str) -> Response:
    """Mark a conversation read."""
    return jsonify(portal.run(TIMClient.admin_set_msg_read, user, peer))


@app.get("/healthz")
def healthz() -> Response:
    """Whether this process answers.  It asks nobody else: an outage there is no reason to be restarted."""
    return jsonify({"ok": True})


@app.errorhandler(TIMError)
@app.errorhandler(ValueError)  # an argument that cannot be right: nothing was sent
def failed(error: Exception) -> Response:
    """Say what went wrong: its kind and the service's code, and no text that was not written for users."""
    answer = jsonify({"error": type(error).__name__, "code": error.code if isinstance(error, APIError) else None})
    answer.status_code = http_status(error)
    if (seconds := retry_after(error)) is not None:
        answer.headers["Retry-After"] = str(math.ceil(seconds))
    return answer
