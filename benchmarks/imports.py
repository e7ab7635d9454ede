"""The child of `benchmarks.startup`: imports, timed, in an interpreter that has imported nothing for it yet."""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def imports() -> dict[str, Any]:
    """Seconds for each import, each after the ones before."""
    # Imported here, one after the other, because that is what is measured.
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
