"""Credentials from the environment or a file; never from a flag, which every process list would show."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from tim_async import config
from tim_async._secret import Secret

from .failures import Misuse, click_errors
from .ranges import Place

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials and the place of an app.

    Attributes:
        sdk_app_id: the app's SDKAppID.
        secret_key: the app's secret key.
        identifier: an admin of the app.
        region: the app's region, if given.
        base_url: the URL of another host, if given.
        allow_http: whether ``base_url`` may be a remote ``http://`` URL.
    """

    sdk_app_id: int
    secret_key: Secret
    identifier: str
    region: str | None
    base_url: str | None
    allow_http: bool

    def client_options(self) -> dict[str, Any]:
        """Return the keyword arguments of a ``TIMClient``.

        Raises:
            Misuse: neither a region nor a base URL was given, or both were.
        """
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        found = {name: value for name, value in given.items() if value is not None}
        with click_errors():
            config.require_place(found, source="the configuration")
        return {**found, "trust_env": True}  # like other command-line tools, use the environment's proxy


def option(command: Command) -> Command:
    """Add the option ``--credentials`` to a command; `load` takes its value."""
    return click.option(
        "--credentials",
        "credentials_file",
        metavar="FILE",
        envvar="TIM_CREDENTIALS",
        type=Place(dir_okay=False, path_type=Path),
        help="File of TIM_…=VALUE lines to read instead of the environment.  [env: TIM_CREDENTIALS]",
    )(command)


def load(file: Path | None) -> Credentials:
    """Read all credentials from one source: mixed sources could combine one app with the key of another.

    Args:
        file: a file with KEY=VALUE lines; None for the environment.

    Raises:
        Misuse: a value is missing or invalid, or the file is not readable.
    """
    try:
        if file is None:
            return _credentials(os.environ, Path(), "the environment")
        return _credentials(config.read_file(file), file.parent, str(file))
    except OSError as error:
        raise Misuse(f"cannot read {error.filename}: {error.strerror or type(error).__name__}") from None
    except ValueError as error:
        raise Misuse(f"{error}; see tim-async --help") from None


def _credentials(values: Mapping[str, str], folder: Path, source: str) -> Credentials:
    found = config.options(values, folder=folder, source=source)
    config.require(found, source=source)
    absent = {"identifier": "administrator", "region": None, "base_url": None, "allow_http": False}
    return Credentials(**{**absent, **found})
