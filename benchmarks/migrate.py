"""Migrations by the command itself: speed without a limit, share of a limit, and costs.

The command runs in a process of its own, whose memory and CPU the system counts, and so does the server.  For
comparison, the same run includes a bare `batch.map` of as many rows, without journal, file and look-ups of groups.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.memory import grow
from benchmarks.remote import Remote, credentials, fresh, server
from benchmarks.server import Config
from benchmarks.tables import table

SIZES = (100_000, 1_000_000)
MEMBERS = 100
"""Members of each group."""
LIMIT = 200


def _write(file: Path, rows: int) -> None:
    with file.open("w", encoding="utf-8") as text:
        text.write("GroupId,Member_Account,UnreadMsgNum\n")
        text.writelines(f"@TGS#group{row // MEMBERS:05},member{row:07},{row % 90}\n" for row in range(rows))


def _run(remote: Remote, file: Path, rate: int) -> dict[str, float]:
    """Run the command to its end; return its seconds, CPU seconds and peak resident memory."""
    command = [sys.executable, "-m", "tim_async", "migrate", "unread", str(file), "--rate", str(rate)]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env=credentials(remote.base_url), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    output = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise RuntimeError(f"the command ended with {process.returncode}: {output.decode()}")
    return {
        "seconds": time.perf_counter() - start,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def _unlimited(folder: Path, rows: int) -> dict[str, float]:
    file = folder / f"{rows}.csv"
    _write(file, rows)
    with server(Config(window="none", record=False)) as remote:
        first = _run(remote, file, 100_000)
        journal = file.with_name(file.name + ".journal").stat().st_size
        again = _run(remote, file, 100_000)
        bare = fresh(grow, base_url=remote.base_url, count=min(rows, 100_000))
    return {
        "rows": rows,
        "rows_per_second": rows / first["seconds"],
        "bare_rows_per_second": bare["rows_per_second"],
        "peak": first["peak"],
        "journal_bytes": journal / rows,
        "resume_seconds": again["seconds"],
    }


def _limited(folder: Path, seconds: int) -> dict[str, float]:
    file = folder / "limited.csv"
    _write(file, LIMIT * (seconds + 2))
    with server(Config(limit=LIMIT, rtt=0.005)) as remote:
        used = _run(remote, file, LIMIT)
        seen = remote.report()["set_unread_msg_num"]
    times = [at - seen["first"] for at in seen["accepted_times"]]
    return {
        "seconds": seconds,
        "share": sum(at < seconds for at in times) / (LIMIT * seconds),
        "refused": seen["refused"],
        "cores": used["cpu"] / used["seconds"],
    }


def measure(*, sizes: Sequence[int] = SIZES, seconds: int = 60, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure each size without a limit, then ``seconds`` seconds at the limit."""
    unlimited = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in sizes:
            say(f"migrate: {rows:,} rows, no limit")
            unlimited.append(_unlimited(Path(folder), rows))
        limited = None
        if seconds:
            say(f"migrate: {seconds} s at {LIMIT} calls/s")
            limited = _limited(Path(folder), seconds)
    return {"unlimited": unlimited, "limited": limited}


def tables(result: dict[str, Any]) -> list[str]:
    """Format the result as a table without a limit and a table at the limit."""
    rows = [
        [
            f"{figures['rows']:,}",
            f"{figures['rows_per_second']:,.0f}",
            f"{figures['rows_per_second'] / figures['bare_rows_per_second']:.2f}",
            f"{figures['peak'] / 1e6:.1f}",
            f"{figures['journal_bytes']:.1f}",
            f"{figures['resume_seconds']:.2f}",
        ]
        for figures in result["unlimited"]
    ]
    header = ["rows", "rows/s", "to batch.map", "peak, MB", "journal, B/row", "nothing to do, s"]
    found = [table("MIGRATE: no limit, groups looked up", header, rows)]
    if (limited := result["limited"]) is not None:
        found.append(
            table(
                f"MIGRATE: {LIMIT} calls/s in a sliding second, RTT 5 ms",
                ["seconds", "share of the limit", "refused", "cores"],
                [
                    [
                        str(limited["seconds"]),
                        f"{limited['share']:.3f}",
                        str(limited["refused"]),
                        f"{limited['cores']:.2f}",
                    ]
                ],
            )
        )
    return found


NOTES = [
    "rows/s: of the whole process, from its start: the file is read twice, each group looked up, each row journaled",
    "to batch.map: ratio to a batch.map of the same calls in the same run, from memory and without a journal",
    "nothing to do: the same command again",
]
