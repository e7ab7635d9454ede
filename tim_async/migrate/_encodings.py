"""A guess at the encoding of a file that is not UTF-8, for a hint."""

from __future__ import annotations

import codecs
import re

_BOMS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}

# Each table of characters begins with those that are used most.  The narrowest comes first.
_COMMON = {
    "cp949": re.compile(rb"[\xb0-\xc8][\xa1-\xfe]"),
    "gb18030": re.compile(rb"[\xb0-\xd7][\xa1-\xfe]|[\xa1-\xa3][\xa1-\xfe]"),
    "big5": re.compile(rb"[\xa4-\xc6][\x40-\x7e\xa1-\xfe]|[\xa1-\xa2][\x40-\x7e\xa1-\xfe]"),
    "shift_jis": re.compile(rb"[\x82\x83\x88-\x97][\x40-\xfc]|\x81[\x40-\xfc]"),
}
_ENOUGH = {"cp949": (1.0, 12), "gb18030": (0.8, 2), "big5": (0.8, 2), "shift_jis": (0.8, 2)}
"""The least share of common characters, and how many there must be.  Some Chinese texts might be Korean ones."""


def likely(sample: bytes) -> str:
    """Guess the encoding of bytes that are not UTF-8.

    Args:
        sample: the beginning of a text, or a part of it.

    Returns:
        Its name in Python; "" when they are no text.
    """
    for bom, name in _BOMS.items():
        if sample.startswith(bom):
            return name
    if b"\x00" in sample:
        first, second = sample[::2].count(0), sample[1::2].count(0)  # of each pair of bytes
        if min(first, second) or max(first, second) < len(sample) // 8:
            return ""
        return "utf-16-be" if first else "utf-16-le"
    for name, (least, fewest) in _ENOUGH.items():
        share, number = _common(sample, name)
        if share >= least and number >= fewest:
            return name
    try:
        sample.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _common(sample: bytes, name: str) -> tuple[float, int]:
    """The share of the characters outside ASCII that are common in this encoding, and how many there are.

    Of a word in Latin letters, single characters are outside ASCII; those count as none.
    """
    try:
        text = codecs.getincrementaldecoder(name)().decode(sample)  # the sample may end within a character
    except UnicodeDecodeError:
        return 0.0, 0
    words = re.findall(r"[^\x00-\x7f]+", text)
    number = sum(map(len, words))
    together = "".join(word for word in words if len(word) > 1)
    common = sum(_COMMON[name].fullmatch(character.encode(name)) is not None for character in together)
    return common / max(number, 1), number
