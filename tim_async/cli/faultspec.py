"""The syntax of faults on the command line: ``10002=1%``, ``http-502=0.01@set_unread_msg_num``, ``drop-after``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tim_async.emulator import Fault

_SPEC = re.compile(r"(?P<kind>[^=@]+)(?:=(?P<share>[0-9.]+)(?P<percent>%)?)?(?:@(?P<endpoint>[a-z0-9_]+))?")
_KIND = re.compile(
    r"(?P<code>[0-9]{1,9})|http-(?P<status>[0-9]{3})|drop-(?P<drop>before|after)|(?P<truncate>truncate)"
    r"|delay-(?P<delay>[0-9.]+)"
)
_TYPES: dict[str, Callable[[str], Any]] = {"code": int, "status": int, "drop": str, "truncate": bool, "delay": float}

FORMS = "an ErrorCode such as 10002, http-STATUS, drop-before, drop-after, truncate, or delay-SECONDS"


def parse_fault(text: str) -> dict[str, Any]:
    """Parse a fault.

    Args:
        text: ``KIND[=SHARE][@ENDPOINT]``; SHARE is the share of affected calls, by default all.

    Returns:
        The keyword arguments of ``Emulator.fault``.

    Raises:
        ValueError: the text has another form.
    """
    spec = _SPEC.fullmatch(text)
    if spec is None:
        raise ValueError(f"{text!r} does not have the form KIND[=SHARE][@ENDPOINT]")
    kind = _KIND.fullmatch(spec["kind"])
    if kind is None or kind.lastgroup is None:
        raise ValueError(f"unknown fault {spec['kind']!r}: KIND is {FORMS}")
    fault = {kind.lastgroup: _TYPES[kind.lastgroup](kind[kind.lastgroup])}
    if spec["share"] is not None:
        fault["probability"] = float(spec["share"]) / (100 if spec["percent"] else 1)
    if spec["endpoint"] is not None:
        fault["endpoint"] = spec["endpoint"]
    return fault


def fault_text(fault: Fault) -> str:
    """Format a fault as `parse_fault` reads it, without properties that this syntax does not have."""
    if fault.code is not None:
        kind = str(fault.code)
    elif fault.status is not None:
        kind = f"http-{fault.status}"
    elif fault.drop is not None:
        kind = f"drop-{fault.drop}"
    elif fault.truncate:
        kind = "truncate"
    else:
        kind = f"delay-{fault.delay:.12g}" if fault.body is None else fault.kind.replace(" ", "-")
    share = "" if fault.probability == 1.0 else f"={100 * fault.probability:.12g}%"
    return kind + share + (f"@{fault.endpoint}" if fault.endpoint else "")
