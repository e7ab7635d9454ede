"""Readers of text input: the ``TIM_…`` environment variables, files of credentials, and times."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import re
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from ._secret import Secret
from .errors import is_text

if TYPE_CHECKING:  # nothing here needs an HTTP client
    import aiohttp

    from ._hooks import Hook
    from ._limiter.sharing import Quota
    from .retrying import RetryPolicy


class ClientOptions(TypedDict, total=False):
    """The keyword arguments of `TIMClient`, for functions that pass them on."""

    sdk_app_id: int
    secret_key: str | Secret
    identifier: str
    region: str | None
    base_url: str | None
    rates: Mapping[str, float] | None
    timeout: float
    retry: RetryPolicy | None
    session: aiohttp.ClientSession | None
    proxy: str | None
    trust_env: bool
    allow_http: bool
    quota: Quota | None
    strict: bool
    usersig_expire: int
    on_attempt: Hook | Iterable[Hook] | None


_SETS = {
    "TIM_SDK_APP_ID": {"sdk_app_id"},
    "TIM_SECRET_KEY": {"secret_key"},
    "TIM_SECRET_KEY_FILE": {"secret_key"},
    "TIM_IDENTIFIER": {"identifier"},
    "TIM_REGION": {"region", "base_url"},
    "TIM_BASE_URL": {"region", "base_url"},
    "TIM_ALLOW_HTTP": {"allow_http"},
}
"""The arguments that replace each variable; a region or a base URL replaces the variables of both."""
VARIABLES = tuple(_SETS)
LEVELS = ("debug", "info", "warning", "error")
"""The values of ``TIM_LOG``."""

# The parts of a line in a file of credentials.
_EXPORT = re.compile(r"^export\s+")
_COMMENT = re.compile(r"\s#.*")
_QUOTED = re.compile(r"""\s*(["'])(.*?)\1\s*(?:\s#.*)?""")


def options(
    values: Mapping[str, str],
    *,
    given: Collection[str] = (),
    folder: Path = Path(),
    source: str = "the environment",
) -> dict[str, Any]:
    """Read the arguments of a `TIMClient` from variables; an empty variable counts as not set.

    Args:
        values: the variables, by name.
        given: the names of arguments that are given otherwise, so that their variables are not read.
        folder: the folder that a relative ``TIM_SECRET_KEY_FILE`` starts from.
        source: the name of ``values`` in errors.

    Returns:
        Keyword arguments of `TIMClient`, those that are set; the key as a `Secret`.

    Raises:
        ValueError: a value is invalid, or the key's file is not UTF-8 text.
        OSError: the key's file cannot be read.
    """
    wanted = [name for name in VARIABLES if _SETS[name].isdisjoint(given)]
    key = Secret((values.get("TIM_SECRET_KEY") if "TIM_SECRET_KEY" in wanted else "") or "")
    texts = {name: value for name in wanted if (value := values.get(name)) and name != "TIM_SECRET_KEY"}
    del values  # it holds the key as plain text, and this frame may raise
    found: dict[str, Any] = {}
    if app := texts.get("TIM_SDK_APP_ID"):
        found["sdk_app_id"] = _app(app, source)
    for name in ("identifier", "region", "base_url"):
        if value := texts.get(f"TIM_{name.upper()}"):
            if not is_text(value):
                raise ValueError(f"TIM_{name.upper()} in {source} is not UTF-8 text")
            found[name] = value
    if allowed := texts.get("TIM_ALLOW_HTTP"):
        if allowed not in ("0", "1"):
            raise ValueError(f"TIM_ALLOW_HTTP in {source} must be 1 or 0")
        found["allow_http"] = allowed == "1"
    # Last, so that no frame of another error's traceback holds the key.
    if key.reveal():
        found["secret_key"] = key
    elif key_file := texts.get("TIM_SECRET_KEY_FILE"):
        found["secret_key"] = Secret(_text(folder / key_file).strip())
    return found


def read_file(file: Path) -> dict[str, str]:
    """Read a file of credentials: lines of ``TIM_…=VALUE``, with ``export``, quotes and comments as in a shell.

    Returns:
        The variables, by name.

    Raises:
        ValueError: a line has another form or an unknown setting; the message names it.
        OSError: the file cannot be read.
    """
    values: dict[str, str] = {}
    for number, line in enumerate(_text(file).splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = _EXPORT.sub("", stripped, count=1).partition("=")
        name = name.strip()
        # The line itself is never shown: it may be a key that was pasted without its name.
        if not equals:
            raise ValueError(f"{file}, line {number}: not of the form KEY=VALUE")
        if name.startswith("TIM_") and name not in VARIABLES:
            raise ValueError(f"{file}, line {number}: unknown setting; the settings are {', '.join(VARIABLES)}")
        quoted = _QUOTED.fullmatch(value)
        values[name] = quoted[2] if quoted else _COMMENT.sub("", value).strip()
    return values


def require(found: Mapping[str, Any], *, source: str = "the environment") -> None:
    """Check that the app and the key are set.

    Raises:
        ValueError: one is not set; the message names its variable.
    """
    names = {"sdk_app_id": "TIM_SDK_APP_ID", "secret_key": "TIM_SECRET_KEY (or TIM_SECRET_KEY_FILE)"}
    missing = [variable for name, variable in names.items() if name not in found]
    if missing:
        raise ValueError(f"{' and '.join(missing)} not set in {source}")


def require_place(found: Mapping[str, Any], *, source: str = "the environment") -> None:
    """Check that either a region or a base URL is set.

    Raises:
        ValueError: neither is set, or both are.
    """
    if ("region" in found) == ("base_url" in found):
        both = "both are" if "region" in found else "neither is"
        raise ValueError(f"set either TIM_REGION, e.g. singapore, or TIM_BASE_URL: {both} set in {source}")


class _StandardError(logging.Handler):
    """Writes records to the current ``sys.stderr``, which a progress display may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except Exception:  # noqa: BLE001 - like all handlers of the standard library
            self.handleError(record)


def set_up_logging(values: Mapping[str, str], *, source: str = "the environment") -> None:
    """Set the level of the logger ``tim_async`` to ``TIM_LOG``, if that is set.

    Its records are written to standard error, unless the program has set up logging: then only the level changes.

    Args:
        values: the variables, by name.
        source: the name of ``values`` in errors.

    Raises:
        ValueError: the level is unknown.
    """
    level = values.get("TIM_LOG")
    del values  # the environment may hold the key as plain text, and this frame may raise
    if not level:
        return
    if level.lower() not in LEVELS:
        raise ValueError(f"TIM_LOG in {source} is {level[:20]!r}; the levels are {', '.join(LEVELS)}")
    log = logging.getLogger("tim_async")
    log.setLevel(level.upper())
    if not log.hasHandlers():
        handler = _StandardError()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        log.addHandler(handler)


EARLIEST = 1_262_304_000
"""The earliest valid time, in unix seconds: the beginning of 2010, since no message of the service is older."""

_DAY = 86_400
_DIGITS = re.compile(r"([0-9]{1,19})(?:\.0+)?")
# Some other forms fromisoformat() reads as a wrong time: "20250831010000Z" as ten o'clock.
_ISO = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ](?:[01][0-9]|2[0-3]):[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?)?"
    r"|[0-9]{8}T(?:[01][0-9]|2[0-3])[0-9]{2}(?:[0-9]{2})?)"
    r" ?(Z|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)
_SPREADSHEET = dt.date(1899, 12, 30)
"""Day 0 of the date numbers in spreadsheets."""


def unix_seconds(value: int | str | dt.datetime) -> int:
    """Return a time as unix seconds; text is read as unix seconds, or as ISO 8601 with a time zone.

    All times from users are read here: those of the client, the commands and the files of migrations.

    Raises:
        ValueError: it is no time, has no time zone, is before 2010 or more than a day ahead of this machine's
            clock; the message continues a sentence that begins with the value or its name.
    """
    number = isinstance(value, int)
    if isinstance(value, str):
        digits = _DIGITS.fullmatch(value.strip())
        number = digits is not None
        value = int(digits[1]) if digits else _datetime(value.strip())
    if isinstance(value, dt.datetime):
        if value.utcoffset() is None:
            raise ValueError("has no time zone; add one, such as +08:00 or Z")
        value = int(value.timestamp())
    latest = int(time.time()) + _DAY
    if EARLIEST <= value <= latest:
        return value
    problem = "is before 2010" if value < EARLIEST else "is more than a day ahead"
    if number:
        likely = _looks_like(value, latest)
        problem += f" as unix seconds; it looks like {likely}" if likely else " as unix seconds"
    raise ValueError(problem)


def _looks_like(number: int, latest: int) -> str:
    """Return the likely meaning of a number that is no plausible time; "" without a guess."""
    for unit, name in ((10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")):
        if EARLIEST <= number // unit <= latest:
            return name
    digits = str(number)
    if form := {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}.get(len(digits)):
        with contextlib.suppress(ValueError):
            day = dt.datetime.strptime(digits, form).date()  # noqa: DTZ007 - it has no time zone
            if 1970 <= day.year < 2100:
                return f"{day}, written without separators"
    day = _SPREADSHEET + dt.timedelta(days=number) if 0 < number < 10**5 else _SPREADSHEET
    return f"a spreadsheet's number for {day}" if 1970 <= day.year < 2100 else ""


def _datetime(text: str) -> dt.datetime:
    match = _ISO.fullmatch(text)
    with contextlib.suppress(ValueError):
        if match is not None:
            return dt.datetime.fromisoformat(match[1] + (match[2] or ""))
    raise ValueError("is neither unix seconds nor a time such as 2025-08-31T09:00:00+08:00")


def _app(text: str, source: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError(f"TIM_SDK_APP_ID in {source} is not a number")
    if not int(text):
        raise ValueError(f"TIM_SDK_APP_ID in {source} is 0, which no app has")
    return int(text)


def _text(file: Path) -> str:
    with contextlib.suppress(UnicodeDecodeError):  # the error would hold the file's bytes
        return file.read_text(encoding="utf-8-sig")
    raise ValueError(f"cannot read {file}: it is not UTF-8 text")
