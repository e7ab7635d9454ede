"""The rules for the fields of a request: their form, whether they are required, and which fields are documented."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tim_async.emulator._answers import Refusal
from tim_async.emulator._state import State

_MAX_TIME_DIGITS = 10
_MAX_INTEGER = 2**63 - 1


class Field(NamedTuple):
    """The rule for one field of a body.

    Attributes:
        form: the form of its values, in the words of an ``ErrorInfo``.
        matches: tests a value for this form.
        code: the ``ErrorCode`` of a body that breaks the rule or lacks the field.
        optional: whether the field may be missing; its handler then receives None.
        account: whether its values are accounts, which must exist.
        parts: the documented fields of the value, if it is an object or an array of objects.
    """

    form: str
    matches: Callable[[Any], bool]
    code: int = 10004
    optional: bool = False
    account: bool = False
    parts: frozenset[str] = frozenset()

    def read(self, name: str, body: Mapping[str, Any], state: State) -> Any:
        """Return the value of the field in a body; raises `Refusal` for a body that breaks the rule.

        Args:
            name: the field's name.
            body: the body.
            state: has the accounts.
        """
        if self.optional and name not in body:
            return None
        value: Any = body.get(name)
        if not self.matches(value):
            raise Refusal(self.code, f"{name} must be {self.form}")
        if self.account and not state.has_account(value):
            raise Refusal(self.code, f"{name}: no such account: {value}")
        return value

    def unknown_parts(self, name: str, value: Any) -> Iterator[str]:
        """Yield the fields within a value that are not among ``parts``, e.g. ``"ResponseFilter.Limit"``."""
        if isinstance(value, dict):
            yield from (f"{name}.{part}" for part in value.keys() - self.parts)
        elif isinstance(value, list):
            for item in value:
                yield from self.unknown_parts(f"{name}[]", item) if isinstance(item, dict) else ()


def unknown_fields(fields: Mapping[str, Field], body: Mapping[str, Any]) -> set[str]:
    """Return the names of the undocumented fields in a body."""
    unknown = body.keys() - fields.keys()
    for name, field in fields.items():
        if field.parts:
            unknown.update(field.unknown_parts(name, body.get(name)))
    return unknown


def integer(least: int, most: int = _MAX_INTEGER) -> Field:
    """Make the rule for an Integer in a range."""
    # JSON's true is a bool, which is an int in Python.
    return Field(f"an Integer from {least} to {most}", lambda value: type(value) is int and least <= value <= most)


def array(of: str, matches: Callable[[Any], bool]) -> Field:
    """Make the rule for a non-empty Array, given the form of its items in words and as a test."""
    return Field(
        f"a non-empty Array of {of}",
        lambda value: isinstance(value, list) and len(value) > 0 and all(map(matches, value)),
    )


def _is_seconds(value: Any) -> bool:
    # Ten digits hold seconds for 250 years; a longer number is milliseconds, sent by mistake.
    if isinstance(value, str):
        return value.isascii() and value.isdigit() and len(value) <= _MAX_TIME_DIGITS
    # An Integer passes here: the command refuses it, unless an option allows it.
    return integer(0, 10**_MAX_TIME_DIGITS - 1).matches(value)


_FILTERS = frozenset(
    {"GroupBaseInfoFilter", "MemberInfoFilter", "AppDefinedDataFilter_Group", "AppDefinedDataFilter_GroupMember"}
)


def _is_filter(value: Any) -> bool:
    return isinstance(value, dict) and all(_are_names(value.get(name)) for name in _FILTERS)


def _are_names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(map(STRING.matches, value)))


STRING = Field("a String", lambda value: isinstance(value, str))
TEXT = Field("a non-empty String", lambda value: isinstance(value, str) and value != "")
ACCOUNT = TEXT._replace(account=True)
COUNT = integer(0)
SEQ = integer(1)
SECONDS = Field("a String of seconds", _is_seconds)
SEQS = array("{MsgSeq: Integer}", lambda item: isinstance(item, dict) and SEQ.matches(item.get("MsgSeq")))._replace(
    parts=frozenset({"MsgSeq"})
)
FILTER = Field("an Object of Arrays of String", _is_filter, parts=_FILTERS)
