from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tracking_records import begin, epoch, record_trial, rows

from podium.stores import Stores
from podium.tracking import query
from podium.tracking.runs import Recorder

pytestmark = pytest.mark.slow

HOLD_LOCK = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
"""

RECORD_AND_DIE = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from podium.tracking.runs import Recorder
from tracking_records import begin, epoch, stores_in
root, away = Path(sys.argv[1]), Path(sys.argv[2])
recorder = Recorder(stores_in(root), experiment="digits", spool_folder=Path(sys.argv[3]))
print(recorder.open_parent(name="digits-1", parameters={}, tags={}), flush=True)
root.rename(away)
for trial in (0, 1):
    begin(recorder, trial)
    for number in (1, 2, 3):
        recorder.epoch(trial, epoch(number))
recorder.end_run(0, status="FINISHED", metrics={}, tags={})
os._exit(9)
"""


@pytest.fixture
def stores(sqlite_stores: Stores) -> Stores:
    return sqlite_stores


def once(stores: Stores) -> bool:
    """Whether no run's key and no metric of an epoch is there twice."""
    keys = rows(stores, "select count(*), count(distinct value) from tags where key = 'podium.key'")[0]
    points = rows(
        stores, "select count(*), count(distinct run_uuid || '/' || key || '/' || step) from metrics"
    )[0]
    return keys[0] == keys[1] and points[0] == points[1]


def test_a_locked_database_holds_up_nobody_and_gets_everything_later(
    stores: Stores, recorder: Recorder
) -> None:
    parent = recorder.open_parent(name="digits-1", parameters={}, tags={})
    with closing(sqlite3.connect(stores.root / "mlflow.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
    command = [sys.executable, "-c", HOLD_LOCK, str(stores.root / "mlflow.db"), "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        slowest = 0.0
        for trial in range(5):
            started = time.perf_counter()
            record_trial(recorder, trial)
            slowest = max(slowest, time.perf_counter() - started)
        assert slowest < 1.0  # the lock is held for three
        assert not recorder.flush(0.5)
        # A reader is not held up by the writer.
        assert query.children(stores, parent).empty
    assert recorder.flush(30)
    assert len(query.children(stores, parent)) == 5
    assert once(stores)
    assert recorder.problems == []


def test_records_wait_for_a_store_that_is_not_there_and_say_why(
    stores: Stores, make_recorder: Callable[..., Recorder], tmp_path: Path
) -> None:
    first = make_recorder(spool=False)
    parent = first.open_parent(name="digits-1", parameters={}, tags={})
    first.close()
    shutil.move(stores.root, tmp_path / "unplugged")
    recorder = make_recorder()
    recorder.reopen_parent(parent)
    record_trial(recorder, 0)
    assert not recorder.flush(1.5)
    assert recorder.waiting == 6
    assert "not there" in (recorder.last_error or "")
    assert not (stores.root / "mlflow.db").exists()
    shutil.move(tmp_path / "unplugged", stores.root)
    assert recorder.flush(20)
    assert recorder.last_error is None
    assert query.children(stores, parent)["status"].tolist() == ["FINISHED"]
    assert once(stores)


def test_a_killed_process_leaves_its_records_to_the_next_in_order_and_nothing_twice(
    stores: Stores, make_recorder: Callable[..., Recorder], tmp_path: Path
) -> None:
    away, place = tmp_path / "away", str(Path(__file__).parent)
    command = [sys.executable, "-c", RECORD_AND_DIE]
    command += [str(stores.root), str(away), str(tmp_path / "spool"), place]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == 9, killed.stderr
    parent = killed.stdout.strip()
    away.rename(stores.root)
    shutil.copytree(tmp_path / "spool", tmp_path / "spool-before")

    second = make_recorder()
    assert second.flush(20)
    second.close()
    frame = query.children(stores, parent)
    assert frame["status"].tolist() == ["FINISHED", "RUNNING"]
    assert all(len(query.history(stores, str(run_id))) == 3 for run_id in frame["run_id"])
    assert once(stores)

    # Killed after writing, before the acknowledgement: the same records come again.
    shutil.rmtree(tmp_path / "spool")
    shutil.move(tmp_path / "spool-before", tmp_path / "spool")
    third = make_recorder()
    assert third.flush(20)
    third.close()
    again = query.children(stores, parent)
    assert again["run_id"].tolist() == frame["run_id"].tolist()
    assert again["status"].tolist() == ["FINISHED", "RUNNING"]
    assert once(stores)


def test_above_the_limit_epochs_are_left_out_and_counted_and_nothing_else(
    stores: Stores, make_recorder: Callable[..., Recorder], tmp_path: Path
) -> None:
    shutil.move(stores.root / "mlflow.db", tmp_path / "away.db")
    recorder = make_recorder(limit=6)
    record_trial(recorder, 0, epochs=10)
    record_trial(recorder, 1, epochs=2)
    shutil.move(tmp_path / "away.db", stores.root / "mlflow.db")
    assert recorder.flush(20)
    frame = query.run_frame(stores, [recorder.wait_for_run_id(trial, 1) for trial in (0, 1)])
    assert frame["status"].tolist() == ["FINISHED", "FINISHED"]
    assert frame["tags.podium.epochs_not_recorded"].tolist() == ["5", "2"]
    assert len(query.history(stores, str(frame["run_id"][0]))) == 5


def test_epochs_after_the_end_of_another_attempt_stay_in_order(stores: Stores, recorder: Recorder) -> None:
    recorder.open_parent(name="digits-1", parameters={}, tags={})
    begin(recorder, 0)
    recorder.epoch(0, epoch(1))
    recorder.end_run(0, status="KILLED", metrics={}, tags={})
    begin(recorder, 0)
    recorder.epoch(0, epoch(2))
    recorder.end_run(0, status="FINISHED", metrics={}, tags={})
    assert recorder.flush(20)
    run_id = recorder.wait_for_run_id(0, 1)
    assert query.run_frame(stores, [run_id])["status"].tolist() == ["FINISHED"]
    assert query.history(stores, run_id)["epoch"].tolist() == [1, 2]
