"""A short round of every fault; `make faults` plays the long ones. Safeguards taken away are noticed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import study_stores

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).parent / "run_rounds.py"
SECONDS = 550
ON_SERVER = study_stores.server() is not None
SERVER_ONLY = pytest.mark.skipif(not ON_SERVER, reason="needs PostgreSQL: make test-postgres")


def play(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.mark.study_store
def test_no_invariant_is_broken_by_any_fault() -> None:
    options = ["--points", "1", "--sample", "2", "--random", "1", "--each", "1"]
    faults = ["disk full", "MLflow commits and drops the answer"]
    if ON_SERVER:
        faults += ["PostgreSQL crashes", "PostgreSQL and MLflow crash"]
    else:  # these keep their study in a file in any case
        options += ["--promote", "1", "--keras", "1"]
        faults += ["real trainings killed", "promote: "]
    done = play(*options)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    for fault in faults:
        assert fault in done.stdout


@pytest.mark.study_store
@pytest.mark.parametrize(
    ("broken", "fault", "invariant"),
    [
        ("lock", ["--each", "1", "--only", "second start"], "I2: a second start"),
        ("reconcile", ["--points", "1", "--only", "after engine.tell"], "I4: "),
        pytest.param("patience", ["--each", "1", "--only", "PostgreSQL crashes"], "I3: ", marks=SERVER_ONLY),
    ],
)
def test_a_safeguard_that_is_gone_is_noticed(broken: str, fault: list[str], invariant: str) -> None:
    done = play("--break", broken, *fault)
    assert done.returncode == 1
    assert invariant in done.stdout
