"""The replay of a seed in other processes."""

from __future__ import annotations

import os
import subprocess
import sys


def replays(program: str) -> set[bytes]:
    """Run a program that prints fingerprints, with two values of PYTHONHASHSEED; return the distinct outputs."""
    return {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            check=True,
            capture_output=True,
        ).stdout
        for hashes in ("1", "2")
    }
