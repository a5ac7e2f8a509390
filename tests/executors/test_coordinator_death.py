"""No worker outlives its coordinator: real coordinators in processes of their own, killed without grace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from toy_trainers import FOLDER

pytestmark = pytest.mark.slow

# No `if __name__ == "__main__"`: starting workers must not run the caller's main module again.
COORDINATOR = textwrap.dedent(
    """
    import sys
    from pathlib import Path

    folder, behaviour, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    sys.path.insert(0, sys.argv[4])
    with (folder / "mains").open("a") as mains:
        mains.write("x")

    from toy_trainers import FOLDER, TOY, toy_job

    from podium.executors.base import Attempt, EpochDone
    from podium.executors.local import LocalExecutor

    executor = LocalExecutor(workers=1, log_folder=folder / "logs", trainer=TOY, paths=[FOLDER])
    while not executor.free:
        executor.events(1.0)
    job = toy_job(folder / "attempt", epochs=1, behaviour=behaviour, seconds=seconds)
    executor.submit(Attempt(key="0.1", job=job))
    while True:
        for event in executor.events(1.0):
            if isinstance(event, EpochDone):
                (folder / "epoch").touch()
    """
)


class Coordinator:
    """A coordinator in a process of its own and the worker that it started."""

    def __init__(self, folder: Path, behaviour: str, seconds: float) -> None:
        script = folder / "coordinate.py"
        script.write_text(COORDINATOR)
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(folder), behaviour, str(seconds), str(FOLDER)]
        )
        self.worker = psutil.Process(int(self.wait_for("attempt/pid").read_text()))

    def wait_for(self, name: str) -> Path:
        deadline = time.monotonic() + 20
        while not (self.folder / name).exists():
            assert time.monotonic() < deadline, name
            assert self.process.poll() is None
            time.sleep(0.01)
        return self.folder / name

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def coordinators() -> Iterator[list[Coordinator]]:
    made: list[Coordinator] = []
    yield made
    for coordinator in made:
        for process in (coordinator.process, coordinator.worker):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        coordinator.process.wait()


@pytest.mark.parametrize(
    ("behaviour", "moment"),
    [
        ("learn", "training"),
        ("learn", "waiting for a verdict"),
        ("learn", "stopped"),
        ("hold_interpreter", "training"),
        ("ignore_death_signal", "training"),
    ],
)
def test_worker_ends_within_five_seconds_of_its_coordinator(
    tmp_path: Path, coordinators: list[Coordinator], behaviour: str, moment: str
) -> None:
    waits = moment == "waiting for a verdict"
    coordinator = Coordinator(tmp_path, behaviour, 0.0 if waits else 60.0)
    coordinators.append(coordinator)
    if waits:
        coordinator.wait_for("epoch")
    elif moment == "stopped":
        os.kill(coordinator.worker.pid, signal.SIGSTOP)
    else:
        time.sleep(0.3)  # well inside the step
    assert coordinator.worker.is_running()
    coordinator.kill()
    coordinator.worker.wait(timeout=5)
    assert (tmp_path / "mains").read_text() == "x"
