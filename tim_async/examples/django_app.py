"""Read state for the users of a web app, in Django, in one file, under any WSGI server that runs threads.

::

    pip install 'tim-async[redis]' django gunicorn
    gunicorn tim_async.examples.django_app:application --workers 4 --threads 16

The environment: what `TIMClient.from_env` reads; ``TIM_QUOTA_URL``, the ``redis://…`` of the quota that all processes
share (without it each takes the whole rate for itself, so run one); and ``DJANGO_SECRET_KEY``.

In a project of several files the portal has a module of its own, and the settings name `Failures`.  Nobody is asked who
they are here: put your own authentication, and protection from CSRF, before everything.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from dataclasses import asdict

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.management.utils import get_random_secret_key
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

from tim_async import APIError, RetryPolicy, TIMClient, TIMError, http_status, retry_after
from tim_async.blocking import Portal
from tim_async.quota import RedisQuota

if not settings.configured:
    settings.configure(
        ROOT_URLCONF=__name__,
        SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY") or get_random_secret_key(),
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        MIDDLEWARE=[f"{__name__}.Failures"],
    )

IMPATIENT = RetryPolicy(attempts=4, wait=(0.05, 0.2), wait_rate_limited=(0.1, 0.5), total=2.0)
"""Somebody looks at a spinner: better a quick no than a late yes."""


def client() -> TIMClient:
    """Make the client of one process."""
    url = os.environ.get("TIM_QUOTA_URL")
    tim = TIMClient.from_env(quota=RedisQuota(url) if url else None)
    # A call without a permit within 0.1 s is a 429; the service itself gives up after 3 s.
    return tim.with_options(max_wait=0.1, timeout=5.0, retry=IMPATIENT)


# Nothing is started before the first request, so that a server may import this first and fork its workers afterwards.
portal = Portal(client)


@require_GET
def unread(request: HttpRequest, user: str) -> HttpResponse:
    """Unread messages: a number for all peers together, or, with ``?peer=a&peer=b``, one for each of up to 100."""
    peers = request.GET.getlist("peer")
    if not peers:
        return JsonResponse(portal.run(TIMClient.get_all_c2c_unread_msg_num, user), safe=False)
    if len(peers) > 100:
        raise ValueError(f"at most 100 peers in one request, not {len(peers)}")
    found = portal.run(lambda tim: tim.batch.get_c2c_unread_msg_num(user, peers))
    return JsonResponse(asdict(found))


@require_GET
def unread_from(_: HttpRequest, user: str, peer: str) -> HttpResponse:
    """Unread messages from one peer; requests that come together, each in its thread, share a call."""
    return JsonResponse(portal.run(lambda tim: tim.lookup.c2c_unread_msg_num(user, peer)), safe=False)


@require_POST
def read(_: HttpRequest, user: str, peer: str) -> HttpResponse:
    """Mark a conversation read."""
    return JsonResponse(portal.run(TIMClient.admin_set_msg_read, user, peer), safe=False)


@require_GET
def healthz(_: HttpRequest) -> HttpResponse:
    """Whether this process answers.  It asks nobody else: an outage there is no reason to be restarted."""
    return JsonResponse({"ok": True})


class Failures:
    """Middleware that says what went wrong: its kind and the service's code, and no text not written for users."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Hand the request on."""
        return self._get_response(request)

    def process_exception(self, _: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer for a failed call, and for an argument that cannot be right; nothing was sent for that."""
        if not isinstance(error, TIMError | ValueError):
            return None
        code = error.code if isinstance(error, APIError) else None
        answer = JsonResponse({"error": type(error).__name__, "code": code}, status=http_status(error))
        if (seconds := retry_after(error)) is not None:
            answer.headers["Retry-After"] = str(math.ceil(seconds))
        return answer


urlpatterns = [
    path("users/<user>/unread", unread),
    path("users/<user>/unread/<peer>", unread_from),
    path("users/<user>/read/<peer>", read),
    path("healthz", healthz),
]
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
