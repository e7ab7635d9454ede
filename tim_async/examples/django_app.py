"""Read state for the users of a web app, in Django, in one file, under any threaded WSGI server.

::

    pip install 'tim-async[redis]' django gunicorn
    gunicorn tim_async.examples.django_app:application --workers 4 --threads 16

Environment variables: those of `TIMClient.from_env`; ``TIM_QUOTA_URL``, the ``redis://…`` URL of the quota that all
processes share (without it each process uses the whole rate, so run only one); and ``DJANGO_SECRET_KEY``.

In a larger project, give the portal a module of its own and add `Failures` to ``MIDDLEWARE``.  The app does not
authenticate users: add your own authentication, and protection from CSRF, to every view.
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

FAIL_FAST = RetryPolicy(attempts=4, wait=(0.05, 0.2), wait_rate_limited=(0.1, 0.5), total=2.0)
"""The retry policy while a user waits: a fast error is better than a late answer."""


def client() -> TIMClient:
    """Make the client of one process."""
    url = os.environ.get("TIM_QUOTA_URL")
    tim = TIMClient.from_env(quota=RedisQuota(url) if url else None)
    # A call without a permit within 0.1 s is a 429; the service itself gives up after 3 s.
    return tim.with_options(max_wait=0.1, timeout=5.0, retry=FAIL_FAST)


# The portal starts with the first request, so a server may import this module before it forks its workers.
portal = Portal(client)


@require_GET
def unread(request: HttpRequest, user: str) -> HttpResponse:
    """Count unread messages: in total or, with ``?peer=a&peer=b``, for each of up to 100 peers."""
    peers = request.GET.getlist("peer")
    if not peers:
        return JsonResponse(portal.run(TIMClient.get_all_c2c_unread_msg_num, user), safe=False)
    if len(peers) > 100:
        raise ValueError(f"at most 100 peers in one request, not {len(peers)}")
    found = portal.run(lambda tim: tim.batch.get_c2c_unread_msg_num(user, peers))
    return JsonResponse(asdict(found))


@require_GET
def unread_from(_: HttpRequest, user: str, peer: str) -> HttpResponse:
    """Count unread messages from one peer; concurrent requests, each in its thread, share a call."""
    return JsonResponse(portal.run(lambda tim: tim.lookup.c2c_unread_msg_num(user, peer)), safe=False)


@require_POST
def read(_: HttpRequest, user: str, peer: str) -> HttpResponse:
    """Mark a conversation read."""
    return JsonResponse(portal.run(TIMClient.admin_set_msg_read, user, peer), safe=False)


@require_GET
def healthz(_: HttpRequest) -> HttpResponse:
    """Answer while this process runs.  An outage of the service or the store is no reason for a restart."""
    return JsonResponse({"ok": True})


class Failures:
    """Middleware that answers failed requests with the error's class and the service's code.

    The error's text is not meant for users.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Pass the request on."""
        return self._get_response(request)

    def process_exception(self, _: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer for a failed call or an invalid argument, with which nothing was sent."""
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
