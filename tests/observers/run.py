"""Run all endings under one observer: ``python -m tests.observers.run OBSERVER NETWORK LOOP`` prints JSON Lines."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import ssl
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import aiohttp

from tests.networks.support import Authority

from .clients import client_of
from .endings import ENDINGS, Ending, interrupted
from .secrets import Secrets
from .watching import OBSERVERS, Observer


class Network:
    """The network between client and server: plain, or TLS."""

    def __init__(self, name: str) -> None:
        self.server: ssl.SSLContext | None = None
        self.client: ssl.SSLContext | None = None
        if name == "tls":
            authority = Authority()
            self.server, self.client = authority.server("127.0.0.1"), authority.client()

    @contextlib.asynccontextmanager
    async def session(self, observer: Observer) -> Any:
        """Yield the caller's session, or None if the client's own suffices."""
        make = observer.session
        if make is None and self.client is not None:
            make = _session
        if make is None:
            yield None
            return
        connector = aiohttp.TCPConnector(ssl=True if self.client is None else self.client)
        async with make({"connector": connector}) as session:
            yield session


def _session(options: dict[str, Any]) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(**options)


async def observe(ending: Ending, observer: Observer, network: Network) -> str:
    """Make the call, show the observer the result or exception, and return its class."""
    outcome: Any = None
    async with ending.place(network.server) as place, network.session(observer) as session:
        options = {"timeout": ending.timeout, "session": session, "on_attempt": observer.on_attempt}
        async with client_of(place.url, **options) as tim:
            try:
                with observer.around():
                    outcome = await interrupted(ending, tim, place, observer.meanwhile)
            except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - the outcome
                outcome = raised
                observer.failed(raised)
            await report_unhandled(outcome, observer)
            logging.getLogger("app").warning("%s gave %r, then %s", tim, outcome, outcome)
        SECRETS.learn()
        for seen in place.heads:
            if not SECRETS.knows(seen.usersig):
                raise AssertionError("this test would not find a UserSig that arrived")
    return type(outcome).__name__


async def report_unhandled(outcome: Any, observer: Observer) -> None:
    """Let the outcome's exception and a later error be reported as unhandled exceptions."""

    async def again() -> None:
        if isinstance(outcome, BaseException):
            raise outcome
        outcome.raise_for_errors()

    async def later() -> None:
        raise LookupError("something else, later")

    for other in (again, later):
        await asyncio.wait([asyncio.create_task(other())])
    gc.collect(1)  # an exception that was never retrieved is reported when its task is collected
    try:
        await later()
    except LookupError as failure:
        observer.failed(failure)


SECRETS = Secrets()


async def main(observer: Observer, network: Network) -> None:
    """Print the findings on each ending as a line of JSON."""
    for ending in ENDINGS:
        outcome = await observe(ending, observer, network)
        sys.stdout.write(json.dumps(judged(ending, outcome, observer)) + "\n")


def judged(ending: Ending, outcome: str, observer: Observer) -> dict[str, Any]:
    """Return the findings.  The texts are in no variable of `main`, where the next ending's observer would see them."""
    texts = list(observer.texts())
    return {
        "ending": ending.name,
        "outcome": outcome,
        "expected": outcome in ending.expects,
        "proved": any(observer.proof in text for text in texts),
        "leaks": list(unique(texts)),
    }


def unique(texts: list[str]) -> Iterator[str]:
    """Yield up to five distinct places where a secret is shown."""
    yield from list(dict.fromkeys(place for text in dict.fromkeys(texts) for place in SECRETS.found_in(text)))[:5]


if __name__ == "__main__":
    observer_name, network_name, loop_name = sys.argv[1:]
    factory = None
    if loop_name == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    logging.lastResort = None  # records without a handler are not printed
    warnings.resetwarnings()  # the observers' own warnings are no errors
    watcher = OBSERVERS[observer_name]()
    gc.freeze()  # imported objects need not be scanned
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(watcher, Network(network_name)))
