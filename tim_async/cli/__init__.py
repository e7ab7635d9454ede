"""The command line: ``tim-async``.  Importing this module is cheap; `main` imports what it needs."""

from __future__ import annotations

import sys

_EXTRA = ("click", "rich")
_INTERRUPTED = 130


def main() -> int:
    """Run ``tim-async`` with the arguments of the process.

    Returns:
        The exit code: 0 done, 1 failed, 2 usage error, 3 some items failed, 4 stopped by a limit,
            130 interrupted.
    """
    try:
        from . import stdio

        stdio.prepare()
        try:
            return _run()
        except stdio.OutputLost as error:
            stdio.give_up(error)
            return 1
    except KeyboardInterrupt:  # outside of `run`, which handles the others
        return _INTERRUPTED


def _run() -> int:
    try:
        from .app import run
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        sys.stderr.write(f"tim-async needs the package {missing}: pip install 'tim-async[cli]'\n")
        return 1
    return run()
