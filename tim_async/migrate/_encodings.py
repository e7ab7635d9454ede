"""Detection of the likely encoding of a file that is not UTF-8, for hints in errors."""

from __future__ import annotations

import codecs
import re

_BOMS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}

# The common characters of each encoding: its tables begin with the most used ones.  The narrowest comes first.
_COMMON = {
    "cp949": re.compile(rb"[\xb0-\xc8][\xa1-\xfe]"),
    "gb18030": re.compile(rb"[\xb0-\xd7][\xa1-\xfe]|[\xa1-\xa3][\xa1-\xfe]"),
    "big5": re.compile(rb"[\xa4-\xc6][\x40-\x7e\xa1-\xfe]|[\xa1-\xa2][\x40-\x7e\xa1-\xfe]"),
    "shift_jis": re.compile(rb"[\x82\x83\x88-\x97][\x40-\xfc]|\x81[\x40-\xfc]"),
}
_THRESHOLDS = {"cp949": (1.0, 12), "gb18030": (0.8, 2), "big5": (0.8, 2), "shift_jis": (0.8, 2)}
"""The minimum share of common characters, and the minimum number of characters: some Chinese texts pass for Korean."""


def likely(sample: bytes) -> str:
    """Guess the encoding of bytes that are not UTF-8.

    Args:
        sample: the beginning of a text, or a part of it.

    Returns:
        Python's name of the encoding; "" when the bytes are no text.
    """
    for bom, name in _BOMS.items():
        if sample.startswith(bom):
            return name
    if b"\x00" in sample:
        first, second = sample[::2].count(0), sample[1::2].count(0)  # of each pair of bytes
        if min(first, second) or max(first, second) < len(sample) // 8:
            return ""
        return "utf-16-be" if first else "utf-16-le"
    for name, (min_share, min_number) in _THRESHOLDS.items():
        share, number = _common(sample, name)
        if share >= min_share and number >= min_number:
            return name
    try:
        sample.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _common(sample: bytes, name: str) -> tuple[float, int]:
    """Return the share of common characters among those outside ASCII in this encoding, and the number of the latter.

    A single character outside ASCII belongs to a word in Latin letters, and counts as uncommon.
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
