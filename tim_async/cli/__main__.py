"""``python -m tim_async.cli``: the same as ``tim-async``."""

from __future__ import annotations

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
