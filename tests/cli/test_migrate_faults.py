"""Errors and hangs anywhere in a run: it ends by itself or on the first signal, reports why, and can be resumed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import DEVNULL
from tim_async.emulator import Emulator

from .conftest import Run
from .faulty import FAULTS, HANGING, HANGS, SAID, TEXT_FAULTS
from .migrating import UNREAD, arrived, crowd, env_of, read_until, started, status_of, with_fault, write

pytestmark = pytest.mark.processes

ROWS = 60
PATIENCE = 60
"""Seconds after which a run counts as hanging, even on a busy machine; it needs up to 11 after a signal."""


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[tuple[Emulator, str]]:
    """A service with a crowd, and a file with a row for each of them, and one that fails."""
    with Emulator() as service:
        yield service, write(tmp_path / "counts.csv", UNREAD, "nowhere,m1,1", *crowd(service, ROWS))


def resumed(run: Run, service: Emulator, file: str) -> None:
    """Without the fault, the same command finishes: one row fails, and all others are accepted."""
    result = run("migrate", "unread", file, env=env_of(service))
    assert result.exit_code == 3, result.output
    assert arrived(service, ROWS) == ROWS - 1


@pytest.mark.parametrize(
    ("fault", "options"),
    [*((fault, ()) for fault in FAULTS | TEXT_FAULTS), *((fault, ("--json",)) for fault in list(FAULTS)[::12])],
)
def test_a_fault_ends_the_run_with_one_error(
    run: Run, crowded: tuple[Emulator, str], fault: str, options: tuple[str, ...]
) -> None:
    """The run ends, reports the reason in one line, and the same command resumes."""
    service, file = crowded
    with with_fault(fault, ["unread", file, "--rate", "20", *options], env_of(service)) as process:
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, err
    said = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1, err
    assert SAID in said[0] or "cancelled" in said[0]
    assert len(said[0]) < 500
    if "counting" not in fault:  # of a hook that raises the client keeps the traceback
        assert "Traceback" not in err
    assert "never retrieved" not in err
    if "cannot be closed" not in fault:  # of a database that is not closed, Python 3.13 warns
        assert "Exception ignored" not in err
    resumed(run, service, file)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_signal_ends_a_run_that_a_full_pipe_blocks(
    run: Run, crowded: tuple[Emulator, str], options: tuple[str, ...]
) -> None:
    """A full pipe blocks the whole run, and one signal still ends it."""
    service, _ = crowded
    folder = Path(crowded[1]).parent
    file = write(folder / "many.csv", UNREAD, *(f"nowhere{number},{'m' * 90},1" for number in range(3000)))
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with contextlib.suppress(BlockingIOError):  # as if much had been said before
        while os.write(writes, b"\n" * 4096):
            pass
    os.set_blocking(writes, True)
    streams = {"stdout": writes} if options else {"stderr": writes}
    with started(["unread", file, *options], env_of(service), **streams) as process:
        os.close(writes)
        while not Path(f"{file}.journal").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) in (1, 130, -signal.SIGTERM)
    os.close(reads)
    result = run("migrate", "unread", file, env=env_of(service))
    assert result.exit_code == 3
    assert status_of(file).counts.failed == 3000


@pytest.mark.parametrize("fault", list(FAULTS)[::5])
def test_a_signal_after_a_fault(crowded: tuple[Emulator, str], fault: str) -> None:
    """A signal in that state does no harm."""
    service, file = crowded
    with with_fault(fault, ["unread", file, "--rate", "20", "--json"], env_of(service)) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun, or has ended already
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode in (1, 130, -signal.SIGTERM), err
    assert "never retrieved" not in err


@pytest.mark.parametrize(
    ("fault", "number"), [*((fault, signal.SIGTERM) for fault in HANGS), ("closing", signal.SIGINT)]
)
def test_one_signal_ends_a_hanging_run(
    run: Run, crowded: tuple[Emulator, str], fault: str, number: signal.Signals
) -> None:
    """One signal is enough, wherever the run hangs."""
    service, file = crowded
    with with_fault(fault, ["unread", file], env_of(service), stdin=DEVNULL) as process:
        read_until(process, HANGING.decode())
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode in (1, 130), err
    assert "Traceback" not in err
    assert "nterrupted" in err or "Error: " in err
    resumed(run, service, file)
