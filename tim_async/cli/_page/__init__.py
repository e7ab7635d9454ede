"""A page in the browser that shows an emulator or a shared quota while its command runs.

```text
Subject.snapshot, once a second ─> History ─> serve_page ─> page.html, page.css, page.js
   an emulator or a store      5 minutes   127.0.0.1      in the browser, which asks once a second
```

What the page shows is put into words and numbers here; the script in the browser draws charts and tables of any subject
alike.  This module holds the options of the commands, which need nothing of the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from tim_async.cli.failures import Misuse

Command = TypeVar("Command", bound=Callable[..., Any])


def page_options(command: Command) -> Command:
    """Give a command the options ``--ui`` and ``--ui-port``, see `page_port`."""
    shows = click.option("--ui", is_flag=True, help="Serve a page for browsers on this machine, and print its URL.")
    port = click.option(
        "--ui-port",
        type=click.IntRange(0, 65535),
        help="The page's port, with --ui; any free one by default.",
    )
    return shows(port(command))


def page_port(ui: bool, ui_port: int | None) -> int | None:
    """The port that the options ask for: None for no page, 0 for any free port.

    Raises:
        Misuse: a port without a page.
    """
    if ui_port is not None and not ui:
        raise Misuse("--ui-port needs --ui")
    return ui_port or 0 if ui else None
