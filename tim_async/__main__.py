"""The entry point of ``python -m tim_async``, the same as ``tim-async``."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
