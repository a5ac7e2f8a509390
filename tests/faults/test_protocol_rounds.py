"""A short round of kills; `make faults` plays the long ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "protocol_rounds.py"


@pytest.mark.slow
def test_no_invariant_is_broken_by_a_sample_of_kills() -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--points", "1", "--random", "6", "--sample", "4"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
