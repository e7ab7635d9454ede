"""A page in the browser that shows an emulator or a shared quota while its command runs.

```text
Subject.snapshot, once a second ─> History ─> serve_page ─> page.html, page.css, page.js
    an emulator or a store         5 minutes   127.0.0.1      in the browser, which polls once a second
```

The texts and numbers of the page are made here; the script in the browser draws charts and tables of any subject.
This module has the options of the commands, and imports nothing of the rest.
"""

from __future__ import annotations

import click

from tim_async.cli.failures import Misuse

ui_option = click.option("--ui", is_flag=True, help="Serve a page for browsers on this machine, and print its URL.")
ui_port_option = click.option(
    "--ui-port",
    type=click.IntRange(0, 65535),
    help="Port of the page, with --ui; any free port by default.",
)
"""The options of a command with a page; `page_port` takes their values."""


def page_port(ui: bool, ui_port: int | None) -> int | None:
    """Return the port of the page: None for no page, 0 for any free port.

    Raises:
        Misuse: ``--ui-port`` without ``--ui``.
    """
    if ui_port is not None and not ui:
        raise Misuse("--ui-port needs --ui")
    return ui_port or 0 if ui else None
