"""Huge answers, compressed or not, are errors within little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .bomb import KINDS

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("kind", "session"), [*((kind, "own") for kind in KINDS), ("gzip", "given"), ("plain", "given")]
)
def test_an_answer_of_300_mb_is_an_error_within_150_mb_of_memory(kind: str, session: str) -> None:
    """Measured in a separate process."""
    command = [sys.executable, "-m", "tests.networks.bomb", kind, session]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    report = json.loads(run.stdout)
    assert report["outcome"] == "BadResponse", report["text"]
    assert len(report["text"]) < 300
    assert report["most"] < 150 * 1024, "kB, including those of the imports"
