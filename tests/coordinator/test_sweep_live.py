"""What other shells see of a sweep: its lock and its status file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from podium import live
from podium.errors import InvalidInput

HOLD = """
import sys, time
from pathlib import Path
from podium import live
with live.locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def hold_elsewhere(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


@pytest.mark.slow
def test_a_sweep_that_runs_elsewhere_is_refused_until_its_holder_is_dead(tmp_path: Path) -> None:
    with hold_elsewhere(tmp_path) as process:
        assert live.holder(tmp_path) == process.pid
        with (
            pytest.raises(InvalidInput, match=f"running already \\(process {process.pid}\\)"),
            live.locked(tmp_path),
        ):
            pass
        process.kill()
        process.wait()
    assert live.holder(tmp_path) is None
    with live.locked(tmp_path):
        assert live.holder(tmp_path) == os.getpid()
    assert live.holder(tmp_path) is None


def test_nobody_holds_a_sweep_that_never_ran(tmp_path: Path) -> None:
    assert live.holder(tmp_path / "none") is None
    assert live.read_status(tmp_path / "none") is None
    assert live.with_status(tmp_path) == []


def test_an_earlier_holder_is_not_taken_for_the_present_one(tmp_path: Path) -> None:
    with live.locked(tmp_path):
        own = (tmp_path / "lock").read_text()
        # As in the moment after another process took the lock and before it wrote who it is.
        (tmp_path / "lock").write_text("1 0")
        assert live.holder(tmp_path) is None
        (tmp_path / "lock").write_text(own)
        assert live.holder(tmp_path) == os.getpid()


def test_looking_at_a_lock_does_not_keep_a_sweep_from_starting(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            live.holder(tmp_path)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(50):
            with live.locked(tmp_path):
                pass
    finally:
        done.set()
        watcher.join()


def test_a_status_is_read_whole_while_it_is_replaced(tmp_path: Path) -> None:
    long = {"trials": [{"trial": number, "parameters": "x" * 50} for number in range(200)]}
    live.write_status(tmp_path, long)
    end = time.monotonic() + 0.3

    def write() -> None:
        while time.monotonic() < end:
            live.write_status(tmp_path, long)

    writer = threading.Thread(target=write)
    writer.start()
    while time.monotonic() < end:
        assert live.read_status(tmp_path) == long
    writer.join()
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_folders_come_with_the_one_that_wrote_last_first(tmp_path: Path) -> None:
    for name, age in (("a-1", 20), ("b-1", 10)):
        (tmp_path / name).mkdir()
        live.write_status(tmp_path / name, json.loads("{}"))
        os.utime(tmp_path / name / "status.json", (time.time() - age, time.time() - age))
    assert live.with_status(tmp_path) == [tmp_path / "b-1", tmp_path / "a-1"]


@pytest.mark.parametrize(
    ("folder", "is_of"),
    [
        ("digits", True),
        ("digits-0123456789", True),
        ("digits-0123456789-2-confirm-abcdef0123", True),
        ("digits-20261123-101500", True),
        ("digits-wide-0123456789", False),
        ("digits2-0123456789", False),
    ],
)
def test_a_name_stands_for_its_own_folders_alone(folder: str, is_of: bool) -> None:
    assert live.is_of(folder, "digits") is is_of
