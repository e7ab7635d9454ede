"""A wrapper for text that must not be shown: the app's secret key, a UserSig."""

from __future__ import annotations

from typing import NoReturn


class Secret:
    """A secret text that is never shown.

    Logs, crash reports and debuggers print the repr of objects and variables; this one's shows nothing.  Code that
    needs the text calls `reveal` as late as possible, and never keeps the result in a variable of a frame that can
    raise.

    Args:
        text: the secret, of any type; it is checked where it is used.
    """

    __slots__ = ("_text",)

    def __init__(self, text: object) -> None:
        self._text = text

    @classmethod
    def of(cls, value: object) -> Secret:
        """Return ``value`` itself if it is a `Secret`, otherwise wrap it."""
        return value if isinstance(value, cls) else cls(value)

    def reveal(self) -> object:
        """Return the text as given to the constructor."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")
