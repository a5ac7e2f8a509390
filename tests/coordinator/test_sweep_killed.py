"""A coordinator in a process of its own, killed without grace, then started again."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from sweep_world import EPOCHS, World

from podium.executors.local import LocalExecutor

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).parent / "run_sweep_once.py"


def kill_when_trained(world: World, *, epochs: int, trials: int) -> list[int]:
    """Start the sweep elsewhere, kill it when so many epochs have begun; answers the workers' ids."""
    process = subprocess.Popen([sys.executable, str(PROGRAM), str(world.stores.root), str(trials), "2"])
    deadline = time.monotonic() + 120
    while len(world.trained()) < epochs:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    workers = [child.pid for child in psutil.Process(process.pid).children()]
    process.kill()
    process.wait()
    return workers


def test_a_killed_coordinator_loses_no_trial_and_counts_none_twice(
    world: World, two_workers: LocalExecutor
) -> None:
    world.order({"all": {"seconds": 0.1}})
    workers = kill_when_trained(world, epochs=7, trials=6)
    before = {record.number: record for record in world.records() if record.state == "complete"}
    deadline = time.monotonic() + 5
    while any(psutil.pid_exists(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    world.order({})
    world.start(two_workers, trials=6)
    records = world.records()
    assert [record.number for record in records] == list(range(6))
    assert {record.state for record in records} == {"complete"}
    assert all(records[number].value == record.value for number, record in before.items())
    assert world.disagreements() == []
    epochs = [(each["trial"], each["epoch"]) for each in world.trained()]
    # The two that were in training may train the epoch again whose checkpoint was not whole.
    assert len(set(epochs)) == 6 * EPOCHS
    assert len(epochs) <= 6 * EPOCHS + 2


def test_a_trial_whose_coordinators_all_died_is_given_up(world: World, two_workers: LocalExecutor) -> None:
    engine = world.engine()
    recorder = world.recorder()
    world.open_parent(engine, recorder)
    proposal = engine.ask()
    assert not isinstance(proposal, type(None))
    recorder.close()
    for attempt in (1, 2, 3):
        engine.note(0, "attempts", attempt)
        if attempt < 3:
            engine.note(0, "losses", '{"1": "dead"}' if attempt == 1 else '{"1": "dead", "2": "dead"}')
    engine.close()
    world.start(two_workers, trials=2)
    records = world.records()
    assert (records[0].state, records[0].cause) == ("failed", "lost")
    assert "coordinator died" in records[0].message
    assert records[1].state == "complete"


def test_a_proposal_that_was_never_started_is_trained_as_it_is(
    world: World, two_workers: LocalExecutor
) -> None:
    engine = world.engine()
    first, second = engine.ask(), engine.ask()
    engine.close()
    world.start(two_workers, trials=2)
    records = world.records()
    assert [record.proposal for record in records] == [first, second]
    assert {record.state for record in records} == {"complete"}
    assert world.disagreements() == []
