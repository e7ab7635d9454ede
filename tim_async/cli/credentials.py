"""Credentials from the environment or a file; never from a flag, which every process list would show."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tim_async import config

from .failures import Misuse, argument_errors
from .ranges import NonEmptyPath

option: Callable[[Any], Any] = click.option(
    "--credentials",
    "credentials_file",
    metavar="FILE",
    envvar="TIM_CREDENTIALS",
    type=NonEmptyPath(dir_okay=False, path_type=Path),
    help="File of TIM_…=VALUE lines to read instead of the environment.  [env: TIM_CREDENTIALS]",
)
"""Adds the option ``--credentials`` to a command; `load` and `client_options` take its value."""


def load(file: Path | None) -> dict[str, Any]:
    """Read all credentials from one source: mixed sources could combine one app with the key of another.

    Args:
        file: a file with KEY=VALUE lines; None for the environment.

    Returns:
        The keyword arguments of a ``TIMClient`` that are set, among them ``sdk_app_id`` and ``secret_key``.

    Raises:
        Misuse: a value is missing or invalid, or the file is not readable.
    """
    folder, source = (Path(), "the environment") if file is None else (file.parent, str(file))
    try:
        found = config.options(os.environ if file is None else config.read_file(file), folder=folder, source=source)
        config.require(found, source=source)
    except OSError as error:
        raise Misuse(f"cannot read {error.filename}: {error.strerror or type(error).__name__}") from None
    except ValueError as error:
        raise Misuse(f"{error}; see tim-async --help") from None
    return found


def client_options(file: Path | None) -> dict[str, Any]:
    """Return the keyword arguments of a ``TIMClient`` from the credentials, as `load` reads them.

    Raises:
        Misuse: as `load`; and neither a region nor a base URL is set, or both are.
    """
    found = load(file)
    with argument_errors():
        config.require_place(found, source="the configuration")
    return {**found, "trust_env": True}  # like other command-line tools, use the environment's proxy
