"""Latency histograms as a few bytes each: consecutive ones are much alike."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator

BINS = 128
"""The most bins of a histogram."""


def packed(histograms: list[dict[int, int]]) -> str:
    """Histograms as text: each as what differs from the one before, in varints, deflated, in base 85.

    Args:
        histograms: how many by bin, 0 to `BINS` - 1; none negative.
    """
    data = bytearray()
    before: dict[int, int] = {}
    for took in histograms:
        bins = [bin_ for bin_, count in took.items() if count]
        first, last = (min(bins), max(bins)) if bins else (0, -1)
        data.append(last + 1 - first)
        if bins:
            data.append(first)
        for bin_ in range(first, last + 1):
            change = took.get(bin_, 0) - before.get(bin_, 0)
            number = 2 * change if change >= 0 else -2 * change - 1
            while number > 0x7F:
                data.append(number & 0x7F | 0x80)
                number >>= 7
            data.append(number)
        before = took
    return base64.b85encode(zlib.compress(data)).decode()


def unpacked(text: str, length: int) -> list[dict[int, int]]:
    """What `packed` made of ``length`` histograms.

    Raises:
        ValueError: it is something else.
    """
    inflater = zlib.decompressobj()
    try:
        # Bounded: what is no series of ours could inflate to anything.
        data = inflater.decompress(base64.b85decode(text.encode()), length * (2 + 10 * BINS) + 1)
    except (zlib.error, ValueError):
        raise ValueError("not a series: latencies that cannot be unpacked") from None
    if not inflater.eof or inflater.unused_data:
        raise ValueError("not a series: latencies cut short or too long")
    numbers = iter(data)
    try:
        histograms = []
        before: dict[int, int] = {}
        for _ in range(length):
            before = _histogram(numbers, before)
            histograms.append(before)
    except StopIteration:
        raise ValueError("not a series: latencies cut short") from None
    if next(numbers, None) is not None:
        raise ValueError("not a series: more latencies than slots")
    return histograms


def _histogram(data: Iterator[int], before: dict[int, int]) -> dict[int, int]:
    bins = next(data)
    first = next(data) if bins else 0
    if first + bins > BINS:
        raise ValueError("not a series: a latency beyond the last bin")
    took = {}
    for bin_ in range(first, first + bins):
        number, shift = 0, 0
        while (byte := next(data)) > 0x7F:
            number |= (byte & 0x7F) << shift
            shift += 7
        number |= byte << shift
        count = before.get(bin_, 0) + (-(number + 1) // 2 if number & 1 else number // 2)
        if count < 0:
            raise ValueError("not a series: a negative count")
        if count:
            took[bin_] = count
    return took
