"""A load or a worker as a process, ``python -m tests.migrate.streams.program DOCUMENT``; it prints a line of JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from typing import Any

from tests.stand_in import APP, KEY
from tim_async import TIMClient
from tim_async.migrate import KINDS, FileSource, Finished, MigrateError, Resumed, Waiting
from tim_async.migrate.streams import Loaded, load, work


async def main(base_url: str, rate: float, url: str, file: str, kind: str, options: dict[str, Any]) -> None:
    """Load a file if one is given, and otherwise work."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        events: Any
        if file:
            source = stack.enter_context(FileSource(file, KINDS[kind], until_now=kind == "read"))
            events = load(source, url, stop=stop, **options)
        else:
            rates = {"set_unread_msg_num": rate, "admin_set_msg_read": rate}
            client = TIMClient(sdk_app_id=APP, secret_key=KEY, base_url=base_url, rates=rates)
            tim = await stack.enter_async_context(client)
            events = work(tim, url, stop=stop, group_check=False, **options)
        await stack.enter_async_context(contextlib.aclosing(events))
        async for event in events:
            if isinstance(event, Waiting | Resumed):
                sys.stderr.write(f"{event}\n")
            if isinstance(event, Finished | Loaded):
                how = event.ended.name if isinstance(event, Finished) else event.complete
                sys.stdout.write(json.dumps({"how": how, "left": event.counts.left}))


if __name__ == "__main__":
    try:
        asyncio.run(main(**json.loads(sys.argv[1])))
    except MigrateError as error:
        sys.exit(f"Error: {error}")
