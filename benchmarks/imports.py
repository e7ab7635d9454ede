"""The child process of `benchmarks.startup`, which times imports in a fresh interpreter."""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def imports() -> dict[str, Any]:
    """Time each import after the previous ones, seconds."""
    # The imports are here because they are measured.
    start = time.perf_counter()
    import aiohttp  # noqa: F401

    with_aiohttp = time.perf_counter()
    before = set(sys.modules)
    import tim_async  # noqa: F401

    with_package = time.perf_counter()
    from tim_async import TIMClient  # noqa: F401

    with_client = time.perf_counter()
    return {
        "aiohttp": with_aiohttp - start,
        "package": with_package - with_aiohttp,
        "client": with_client - with_aiohttp,
        "modules": sorted(set(sys.modules) - before),
    }


if __name__ == "__main__":
    print(json.dumps(imports()))
