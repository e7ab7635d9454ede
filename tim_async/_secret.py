"""Text that must not be shown: the app's secret key, a UserSig."""

from __future__ import annotations

from typing import NoReturn


class Secret:
    """Holds one secret text and shows it nowhere.

    Frames, logs, crash reports and debuggers print what objects say of themselves; this one says nothing.  Code that
    needs the text calls `reveal` as late as possible, and keeps the result in no variable of a frame that can raise.

    Args:
        text: the secret, of any type: whether it is valid is checked where it is used.
    """

    __slots__ = ("_text",)

    def __init__(self, text: object) -> None:
        self._text = text

    @classmethod
    def of(cls, value: object) -> Secret:
        """Return ``value`` itself if it is a `Secret`, otherwise wrap it."""
        return value if isinstance(value, cls) else cls(value)

    def reveal(self) -> object:
        """Return what was given to the constructor."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")
