"""The command line: ``tim-async``.  Importing this costs nothing; `main` fetches what it needs."""

from __future__ import annotations

import sys

_EXTRA = ("click", "rich")
_INTERRUPTED = 130


def main() -> int:
    """Run ``tim-async`` with the arguments of the process.

    Returns:
        The exit code: 0 done, 1 failed, 2 usage, 3 some items failed, 4 stopped by a limit,
            130 interrupted.
    """
    try:
        from . import stdio

        stdio.prepare()
        try:
            return _run()
        except stdio.OutputLost as error:
            stdio.abandon(error)
            stdio.flush()
            return 1
    except KeyboardInterrupt:  # as early as this, or as late, nothing else would keep its traceback in
        return _INTERRUPTED


def _run() -> int:
    try:
        from .app import run
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        sys.stderr.write(f"tim-async needs {missing}, which an extra brings: pip install 'tim-async[cli]'\n")
        return 1
    return run()
