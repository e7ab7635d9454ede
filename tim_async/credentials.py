"""Credentials as text: the ``TIM_…`` variables of an environment, or of a file in the same form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

VARIABLES = (
    "TIM_SDK_APP_ID",
    "TIM_SECRET_KEY",
    "TIM_SECRET_KEY_FILE",
    "TIM_IDENTIFIER",
    "TIM_REGION",
    "TIM_BASE_URL",
)


def options(values: Mapping[str, str], *, folder: Path = Path(), source: str = "the environment") -> dict[str, Any]:
    """Read what a `TIMClient` needs; a variable that is empty counts as not set.

    Args:
        values: the variables, by name.
        folder: where a relative ``TIM_SECRET_KEY_FILE`` is looked for.
        source: what to call ``values`` in an error.

    Returns:
        Keyword arguments of `TIMClient`, as far as they were found.

    Raises:
        ValueError: a value cannot be right, or the key's file is no text.
        OSError: the key's file cannot be read.
    """
    found: dict[str, Any] = {}
    if app := values.get("TIM_SDK_APP_ID"):
        if not (app.isascii() and app.isdigit()):
            raise ValueError(f"TIM_SDK_APP_ID in {source} is not a number")
        found["sdk_app_id"] = int(app)
    if key := values.get("TIM_SECRET_KEY"):
        found["secret_key"] = key
    elif key_file := values.get("TIM_SECRET_KEY_FILE"):
        found["secret_key"] = _text(folder / key_file).strip()
    for name in ("identifier", "region", "base_url"):
        if value := values.get(f"TIM_{name.upper()}"):
            found[name] = value
    return found


def require(found: Mapping[str, Any], *, source: str = "the environment") -> None:
    """Check that there is an app and a key.

    Raises:
        ValueError: naming what is not set.
    """
    names = {"sdk_app_id": "TIM_SDK_APP_ID", "secret_key": "TIM_SECRET_KEY (or TIM_SECRET_KEY_FILE)"}
    missing = [variable for name, variable in names.items() if not found.get(name)]
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


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"cannot read {file}: it is not UTF-8 text") from None
