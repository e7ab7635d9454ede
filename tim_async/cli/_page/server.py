"""The HTTP server of the page, on loopback and protected by a token in its URL.

Other pages in the same browser can send requests to it, and a hostile name can resolve to 127.0.0.1 (DNS rebinding).
So every path must begin with a random token, ``Host`` must name this machine, which a rebound name does not, and
``Origin``, if present, must be that of the page itself; a request with an effect must have it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources

from aiohttp import hdrs, web

from tim_async._plaintext import plain_json
from tim_async.cli.failures import Failure

from .history import History
from .subject import Subject

_HOST = "127.0.0.1"
# Any port: a tunnel, as by ssh -L, has another one than this server.
_HOSTS = re.compile(r"(?:127\.0\.0\.1|localhost)(?::[0-9]{1,5})?", re.IGNORECASE)

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; img-src 'self'; script-src 'self'; style-src 'self'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the URL holds the token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_FILES = {
    "": ("page.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
_MAX_ACTION_BYTES = 1000
_SECONDS_TO_END = 0.2


@asynccontextmanager
async def serve_page(subject: Subject, port: int) -> AsyncIterator[str]:
    """Serve the page of a subject within the block, and yield its URL.

    Args:
        subject: the subject of the page.
        port: the port on 127.0.0.1; 0 for any free port.

    Raises:
        Failure: the first snapshot failed, or the port is in use.
    """
    history = History(subject)
    token = secrets.token_urlsafe(24)
    # No access log: its lines would contain the token.
    handler = web.Server(_Handler(history, subject, token).handle, access_log=None)
    runner = web.ServerRunner(handler, shutdown_timeout=_SECONDS_TO_END)
    async with history.running():
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, _HOST, port).start()
            except OSError as error:
                raise Failure(f"cannot serve the page on port {port}: {error.strerror or error}") from None
            yield f"http://{_HOST}:{runner.addresses[0][1]}/{token}/"
        finally:
            await runner.cleanup()


class _Handler:
    def __init__(self, history: History, subject: Subject, token: str) -> None:
        self._history = history
        self._subject = subject
        self._token = token.encode()
        here = resources.files(__package__)
        self._files = {name: (here.joinpath(file).read_bytes(), kind) for name, (file, kind) in _FILES.items()}
        common = resources.files("tim_async").joinpath("_style.css").read_bytes()
        self._files["page.css"] = (common + self._files["page.css"][0], "text/css")

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; each response has the headers that protect the page."""
        try:
            response = await self._answer(request)
        except web.HTTPRequestEntityTooLarge:
            response = _text(413, "the body is too large")
        response.headers.update(_HEADERS)
        return response

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        hosts = request.headers.getall(hdrs.HOST, [])
        if len(hosts) != 1 or not _HOSTS.fullmatch(hosts[0]):
            return _text(403, "this page is for browsers on this machine: use the host 127.0.0.1 or localhost")
        origins = request.headers.getall(hdrs.ORIGIN, [])
        if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
            return _text(403, "requests of other pages are refused")
        token, slash, name = request.path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(errors="replace"), self._token) or not slash:
            return _text(404, "use the full URL that the command printed, including the token and the final /")
        if name == "act":
            return await self._act(request, origins)
        if name != "data" and name not in self._files:
            return _text(404, "page not found")
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            return _text(405, "method not allowed: use GET", Allow="GET, HEAD")
        if name == "data":
            return web.Response(text=plain_json(self._history.document()), content_type="application/json")
        body, kind = self._files[name]
        return web.Response(body=body, content_type=kind, charset="utf-8")

    async def _act(self, request: web.BaseRequest, origins: list[str]) -> web.Response:
        """Carry out the action of a button; a form of another page can send neither JSON nor this origin."""
        if request.method != hdrs.METH_POST:
            return _text(405, "method not allowed: use POST", Allow="POST")
        if len(origins) != 1:
            return _text(403, "only requests of this page are allowed")
        if request.content_type != "application/json":
            return _text(415, "the body must be JSON")
        try:
            raw = await request.read()
            action = json.loads(raw) if len(raw) <= _MAX_ACTION_BYTES else None
            if not isinstance(action, dict):
                return _text(400, f"the body must be a JSON object of at most {_MAX_ACTION_BYTES} bytes")
            self._subject.act(action)
        except (ValueError, RecursionError) as error:
            return _text(400, str(error))
        return web.Response(status=204)


def _text(status: int, text: str, **headers: str) -> web.Response:
    return web.Response(status=status, text=text + "\n", headers=headers)
