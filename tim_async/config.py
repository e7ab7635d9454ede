"""Credentials as text: the ``TIM_…`` variables of an environment, or of a file in the same form."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._secret import Secret

VARIABLES = (
    "TIM_SDK_APP_ID",
    "TIM_SECRET_KEY",
    "TIM_SECRET_KEY_FILE",
    "TIM_IDENTIFIER",
    "TIM_REGION",
    "TIM_BASE_URL",
    "TIM_ALLOW_HTTP",
)


def options(values: Mapping[str, str], *, folder: Path = Path(), source: str = "the environment") -> dict[str, Any]:
    """Read what a `TIMClient` needs; a variable that is empty counts as not set.

    Args:
        values: the variables, by name.
        folder: where a relative ``TIM_SECRET_KEY_FILE`` is looked for.
        source: what to call ``values`` in an error.

    Returns:
        Keyword arguments of `TIMClient`, as far as they were found; the key as a `Secret`.

    Raises:
        ValueError: a value cannot be right, or the key's file is no text.
        OSError: the key's file cannot be read.
    """
    given = {name: value for name in VARIABLES if (value := values.get(name)) and name != "TIM_SECRET_KEY"}
    key = Secret(values.get("TIM_SECRET_KEY") or "")
    del values  # it holds the key as plain text, and this frame may raise
    found: dict[str, Any] = {}
    if app := given.get("TIM_SDK_APP_ID"):
        if not (app.isascii() and app.isdigit() and len(app) < 20):
            raise ValueError(f"TIM_SDK_APP_ID in {source} is not a number")
        found["sdk_app_id"] = int(app)
    for name in ("identifier", "region", "base_url"):
        if value := given.get(f"TIM_{name.upper()}"):
            found[name] = value
    if allowed := given.get("TIM_ALLOW_HTTP"):
        if allowed not in ("0", "1"):
            raise ValueError(f"TIM_ALLOW_HTTP in {source} must be 1 or 0")
        found["allow_http"] = allowed == "1"
    # Last, so that no other mistake is found with the key at hand.
    if key.reveal():
        found["secret_key"] = key
    elif key_file := given.get("TIM_SECRET_KEY_FILE"):
        found["secret_key"] = _key_of(folder / key_file)
    return found


def require(found: Mapping[str, Any], *, source: str = "the environment") -> None:
    """Check that there is an app and a key.

    Raises:
        ValueError: naming what is not set.
    """
    names = {"sdk_app_id": "TIM_SDK_APP_ID", "secret_key": "TIM_SECRET_KEY (or TIM_SECRET_KEY_FILE)"}
    missing = [variable for name, variable in names.items() if name not in found]
    if missing:
        raise ValueError(f"{' and '.join(missing)} not set in {source}")


def require_place(found: Mapping[str, Any], *, source: str = "the environment") -> None:
    """Check that there is either a region or a base URL.

    Raises:
        ValueError: neither is set, or both are.
    """
    if ("region" in found) == ("base_url" in found):
        both = "both are" if "region" in found else "neither is"
        raise ValueError(f"set either TIM_REGION, e.g. singapore, or TIM_BASE_URL: {both} set in {source}")


def _key_of(file: Path) -> Secret:
    with contextlib.suppress(UnicodeDecodeError):  # the error would hold the file's bytes
        return Secret(file.read_text(encoding="utf-8-sig").strip())
    raise ValueError(f"cannot read {file}: it is not UTF-8 text")
