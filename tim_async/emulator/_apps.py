"""An app of an emulator: its credentials, state, rates and calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tim_async.emulator._commands import Commands
from tim_async.emulator._report import CallLog, Report
from tim_async.emulator._state import State
from tim_async.emulator._windows import Window


class App:
    """One app of an emulator.  It has accounts, groups and rates of its own.

    Attributes:
        sdk_app_id: its SDKAppID.
        secret_key: its secret key, with which every UserSig must be made.
        identifiers: the administrators that may call it.
        state: its state, to fill and read.
    """

    def __init__(
        self,
        sdk_app_id: int,
        secret_key: str,
        admins: str | Iterable[str],
        commands: Commands,
        windows: Mapping[str, Window],
        url: Callable[[], str],
    ) -> None:
        """Make the app.

        Args:
            sdk_app_id: its SDKAppID.
            secret_key: its secret key.
            admins: its administrators.
            commands: the handlers of its commands.
            windows: the window of each limited endpoint, by the method's name.
            url: returns the URL of its emulator.

        Raises:
            ValueError: an argument is out of its range.
        """
        self.sdk_app_id = sdk_app_id
        self.secret_key = secret_key
        self.identifiers: tuple[str, ...] = (admins,) if isinstance(admins, str) else tuple(admins)
        # No client can have such credentials: its calls would be refused as forged, with no hint at the option.
        if type(sdk_app_id) is not int or sdk_app_id < 1:
            raise ValueError(f"sdk_app_id must be an int of at least 1, not {sdk_app_id!r}")
        if not isinstance(secret_key, str) or not secret_key:
            raise ValueError("secret_key must be a non-empty str")
        if not self.identifiers or not all(isinstance(name, str) and name for name in self.identifiers):
            raise ValueError("admins must name at least one administrator, each by a non-empty str")
        self.state: State = commands.state
        self.state.add_account(*self.identifiers)
        self._commands = commands
        self._windows = windows
        self._log = CallLog()
        self._url = url

    def __repr__(self) -> str:
        return f"<App {self.sdk_app_id}>"

    @property
    def identifier(self) -> str:
        """Its first administrator."""
        return self.identifiers[0]

    def client_options(self, identifier: str | None = None) -> dict[str, Any]:
        """Return the keyword arguments that connect a client to this app: ``TIMClient(**…)``.

        Args:
            identifier: the administrator that calls; the first by default.

        Raises:
            ValueError: the app has no such administrator.
            RuntimeError: the emulator is not running.
        """
        if identifier is not None and identifier not in self.identifiers:
            raise ValueError(f"no such administrator: {identifier!r}; choose from {', '.join(self.identifiers)}")
        return {
            "base_url": self._url(),
            "sdk_app_id": self.sdk_app_id,
            "secret_key": self.secret_key,
            "identifier": identifier or self.identifier,
        }

    def environment(self, identifier: str | None = None) -> dict[str, str]:
        """Return the environment that connects ``TIMClient.from_env()`` to this app; ``TIM_REGION`` must be unset.

        Args:
            identifier: the administrator that calls; the first by default.

        Raises:
            ValueError: the app has no such administrator.
            RuntimeError: the emulator is not running.
        """
        options = self.client_options(identifier)
        return {f"TIM_{name.upper()}": str(value) for name, value in options.items()}

    def report(self) -> Report:
        """Return the counts of its calls so far."""
        return self._log.report()
