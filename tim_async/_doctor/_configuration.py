"""The checks of a configuration: whether it is complete and its values are plausible.  Nothing is sent."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tim_async import config
from tim_async._secret import Secret
from tim_async._signing import SERVICE_TIMEOUT
from tim_async.regions import REGIONS, Hosts
from tim_async.usersig import check_key

from ._findings import CALLS, USERSIG, Finding, failure, ok, redacted, skipped, warning

NAMES = ("configuration", "key", "identifier", "place")
"""The checks, in the order in which they run."""

_HEX = re.compile(r"[0-9a-fA-F]{64}")
_USUAL = re.compile(r"[!-~]{1,32}")
_WRONG_KEY = "The service will refuse the signature of every call."
_NO_CLIENT = "No client can be created."
_COPY = "Copy the SDKSecretKey from the console again, without quotes, blanks or line breaks."


Checked = tuple[list[Finding], dict[str, Any]]
"""The findings about a configuration, and the keyword arguments of a `TIMClient`; not valid after a failure."""


def read(values: Mapping[str, str], *, folder: Path = Path(), source: str = "the environment") -> Checked:
    """Read variables as `config.options` does, and check them.

    Args:
        values: the variables, by name.
        folder: where a relative ``TIM_SECRET_KEY_FILE`` is looked for.
        source: the name of ``values`` in findings.
    """
    names = {name for name, value in values.items() if value}
    try:
        found = config.options(values, folder=folder, source=source)
    except OSError as error:
        why = f"cannot read {error.filename}: {error.strerror or type(error).__name__}"
        return _unusable("unreadable", why, "Correct TIM_SECRET_KEY_FILE, or the file's permissions.")
    except ValueError as error:
        return _unusable("invalid", str(error), "Correct this value.")
    return redacted([_complete(found, names, source), *of(found)], found.get("secret_key")), found


def read_file(file: Path) -> Checked:
    """Read a file of credentials as `config.read_file` does, and check it."""
    try:
        values = config.read_file(file)
    except OSError as error:
        why = f"cannot read {file}: {error.strerror or type(error).__name__}"
        return _unusable("unreadable", why, "Correct --credentials or TIM_CREDENTIALS, or the file's permissions.")
    except ValueError as error:
        return _unusable("invalid", str(error), "Correct this line.")
    return read(values, folder=file.parent, source=str(file))


def of(found: Mapping[str, Any]) -> list[Finding]:
    """Check the values of a configuration, which may be incomplete.

    Args:
        found: keyword arguments of a `TIMClient`, the key as a `Secret`.
    """
    return [
        _key(found["secret_key"]) if "secret_key" in found else skipped("key", "no key is set"),
        _identifier(found.get("identifier", "administrator")),
        _place(found),
    ]


def time_out(seconds: float) -> Finding:
    """Check the time-out of an attempt."""
    if seconds > SERVICE_TIMEOUT:
        return ok("timeout", f"{seconds:g} s for one attempt")
    return warning(
        "timeout.short",
        f"{seconds:g} s for one attempt; the service itself times out after {SERVICE_TIMEOUT:g} s",
        "A slow call times out and is repeated, although the service may have executed it.",
        "Set `timeout` above 3 s; the default is 10 s.",
        CALLS,
    )


def _unusable(problem: str, found: str, remedy: str) -> Checked:
    first = failure(f"configuration.{problem}", found, _NO_CLIENT, remedy)
    rest = (skipped(name, "the configuration could not be read") for name in NAMES[1:])
    return redacted((first, *rest), None), {}


def _complete(found: Mapping[str, Any], names: set[str], source: str) -> Finding:
    """Check that all settings are there, and the key only once."""
    try:
        config.require(found, source=source)
    except ValueError as error:
        misspelt = sorted(name for name in names if _is_misspelt(name))
        unread = f"; {', '.join(misspelt)} is set there, which nothing reads" if misspelt else ""
        remedy = f"Set it; the names of the variables are {', '.join(config.VARIABLES)}."
        return failure("configuration.incomplete", f"{error}{unread}", _NO_CLIENT, remedy)
    if {"TIM_SECRET_KEY", "TIM_SECRET_KEY_FILE"} <= names:
        return warning(
            "configuration.two_keys",
            f"TIM_SECRET_KEY and TIM_SECRET_KEY_FILE are both set in {source}",
            "TIM_SECRET_KEY is used, and the file is not read.",
            "Remove one of them.",
        )
    return ok("configuration", f"app {found['sdk_app_id']}, from {source}")


def _is_misspelt(name: str) -> bool:
    """Whether a variable that nothing reads has almost the name of one that is read."""
    return (
        name not in config.VARIABLES
        and name.upper().startswith(("TIM", "SDK", "SECRET"))
        and bool(difflib.get_close_matches(name.upper(), config.VARIABLES, 1, 0.7))
    )


def _key(key: Secret) -> Finding:
    text = str(key.reveal())
    size = len(text)
    if text[:1] in ("'", '"', "`") or text[-1:] in ("'", '"', "`"):
        return failure("key.quoted", f"its {size} characters begin or end with a quotation mark", _WRONG_KEY, _COPY)
    if text != text.strip() or any(sign.isspace() for sign in text):
        return failure("key.blank", f"its {size} characters include blanks or line breaks", _WRONG_KEY, _COPY)
    if text.startswith("eJ") and size > 100:
        return failure(
            "key.usersig",
            "it looks like a UserSig, which is signed with the key",
            _WRONG_KEY,
            "Set the app's SDKSecretKey; the client signs UserSigs with it.",
            USERSIG,
        )
    del text
    try:
        check_key(key)
    except ValueError as error:
        name = "key.short" if "too short" in str(error) else "key.other_kind"
        return failure(name, str(error), "The client refuses it.", _COPY, USERSIG)
    if _HEX.fullmatch(str(key.reveal())) is None:
        return warning(
            "key.unusual",
            f"{size} characters; a key usually has 64 hexadecimal digits",
            "A part of it may be missing, or it may be another kind of key.",
            "Compare it with the SDKSecretKey in the console.",
            USERSIG,
        )
    return ok("key", "64 hexadecimal digits, as keys usually are")


def _identifier(identifier: str) -> Finding:
    if _HEX.fullmatch(identifier):
        return failure(
            "identifier.key",
            "64 hexadecimal digits, like a key, and therefore not shown",
            "The secret key may be in the wrong setting, and would be sent in every URL.",
            "Set it to the UserID of an admin; the default is administrator.",
        )
    if _USUAL.fullmatch(identifier) is None:
        return warning(
            "identifier.unusual",
            f"{identifier!r}; an identifier has up to 32 printable ASCII characters, no blanks",
            "The service may not know it.",
            "Compare it with the admins that the console lists.",
            CALLS,
        )
    return ok("identifier", identifier)


def _place(found: Mapping[str, Any]) -> Finding:
    """Check that a configuration names either a known region or a valid base URL."""
    try:
        config.require_place(found, source="the configuration")
    except ValueError as error:
        name = "place.both" if "both" in str(error) else "place.missing"
        return failure(name, str(error), _NO_CLIENT, "Set one of the two.")
    region, base_url = found.get("region"), found.get("base_url")
    try:
        url = Hosts.of(region, base_url, allow_http=found.get("allow_http", False)).current
    except ValueError as error:
        if region is not None:
            remedy = "Set the region that the console shows for the app."
            return failure("place.unknown_region", str(error), _NO_CLIENT, remedy, CALLS)
        name = "place.unencrypted" if "unencrypted" in str(error) else "place.invalid"
        return failure(name, str(error), _NO_CLIENT, "Correct the base URL.")
    if urlsplit(url).path:
        return warning(
            "place.path",
            f"{url} has a path",
            "The path of each command, such as v4/openim/…, is appended to it.",
            "Remove the path, unless your own gateway expects it.",
            CALLS,
        )
    return ok("place", url if region is None else f"{region_of(url)}, {url}")


def region_of(url: str) -> str:
    """Return the region of a base URL; "" for any other host."""
    host = urlsplit(url).hostname
    return next((name for name, hosts in REGIONS.items() if host in hosts), "")
