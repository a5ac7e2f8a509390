from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest
from mlflow.tracking import MlflowClient
from search_toys import accuracy, chain
from sweep_world import EPOCHS, Watcher, World

from podium.coordinator.loop import Coordinator
from podium.coordinator.outcomes import trained
from podium.coordinator.trial import LiveTrial
from podium.engines.base import Outcome
from podium.engines.listed import ListedEngine
from podium.errors import SweepError
from podium.executors.local import LocalExecutor
from podium.result import EpochEvent
from podium.search_space import CategoricalParameter
from podium.sweep_file import ConstraintSettings, LimitSettings, ObjectiveSettings

pytestmark = pytest.mark.slow
Watch = Callable[[Coordinator, Watcher], None]


def interrupt_at(trial: int, epoch: int, *, hard: bool = False) -> Watch:
    """Ctrl-C (`hard`: twice) when an epoch of a trial is over."""

    def watch(coordinator: Coordinator, watcher: Watcher) -> None:
        def act(live: LiveTrial, event: EpochEvent) -> None:
            if (live.number, event.epoch) == (trial, epoch):
                coordinator.interrupt()
                if hard:
                    raise KeyboardInterrupt

        watcher.on_epoch = act

    return watch


def test_a_sweep_ends_with_its_budget_and_everything_on_record(
    world: World, two_workers: LocalExecutor
) -> None:
    conclusion = world.start(two_workers, trials=5)
    assert conclusion.reason == "the budget's trials are used"
    records = world.records()
    assert [record.state for record in records] == ["complete"] * 5
    assert records[0].parameters == {"model.dropout": 0.25}
    for record in records:
        dropout = float(record.parameters["model.dropout"])
        assert record.value == accuracy(dropout, EPOCHS)
        assert trained(record)["weights_sha256"] == chain(dropout, EPOCHS)
    assert world.disagreements() == []
    run = world.run(3)
    assert run["metrics.best_epoch"] == EPOCHS
    assert run["params.model.dropout"] == str(records[3].parameters["model.dropout"])
    assert sorted(world.packaged) == sorted(
        (int(row["trial"]), row["run_id"]) for _, row in world.runs().iterrows()
    )


def test_checkpoints_go_when_a_trial_has_ended(world: World, two_workers: LocalExecutor) -> None:
    world.start(two_workers, trials=3)
    assert world.folder.is_dir()
    assert list(world.folder.rglob("checkpoint-*")) == []


def test_the_budget_of_trials_holds_over_restarts_and_eight_workers(
    world: World, make_executor: Callable[..., LocalExecutor]
) -> None:
    executor = make_executor(8)
    world.order({"all": {"seconds": 0.02}})
    world.start(executor, trials=14, watch=interrupt_at(5, 2))
    world.start(executor, trials=14, watch=interrupt_at(10, 2))
    world.start(executor, trials=14)
    assert world.start(executor, trials=14).reason == "the budget's trials are used"
    records = world.records()
    assert [record.number for record in records] == list(range(14))
    assert {record.state for record in records} == {"complete"}
    assert world.disagreements() == []


def test_an_interrupted_sweep_trains_the_epochs_that_were_missing_and_no_other(
    world: World, two_workers: LocalExecutor
) -> None:
    conclusion = world.start(two_workers, trials=4, watch=interrupt_at(1, 2))
    assert conclusion.interrupted
    assert set(world.runs()["status"]) <= {"KILLED", "FINISHED"}
    assert world.run(1)["state"] == "interrupted"
    world.start(two_workers, trials=4)
    trained_epochs = [(each["trial"], each["epoch"]) for each in world.trained()]
    assert len(trained_epochs) == len(set(trained_epochs)) == 4 * EPOCHS
    assert world.disagreements() == []
    record = world.records()[1]
    assert trained(record)["final_weights_sha256"] == chain(float(record.parameters["model.dropout"]), EPOCHS)
    assert world.run(1)["tags.podium.attempts"] == "2"


def test_a_second_interrupt_ends_at_once_and_loses_nothing(world: World, two_workers: LocalExecutor) -> None:
    world.order({"2": {"hang_at": 2, "attempts": 1}})
    with pytest.raises(KeyboardInterrupt):
        world.start(two_workers, trials=4, watch=interrupt_at(3, 2, hard=True))
    assert "RUNNING" not in set(world.runs()["status"])
    world.start(two_workers, trials=4)
    assert [record.state for record in world.records()] == ["complete"] * 4
    assert world.disagreements() == []


def test_ctrl_c_while_records_are_closed_leaves_nothing_running(
    world: World, two_workers: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.order({"2": {"hang_at": 2, "attempts": 1}})
    cancel, cancelled = two_workers.cancel, []

    def press_when_called(key: str) -> None:
        cancel(key)
        cancelled.append(key)
        if len(cancelled) == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(two_workers, "cancel", press_when_called)
    with pytest.raises(KeyboardInterrupt):
        world.start(two_workers, trials=4, watch=interrupt_at(3, 2, hard=True))
    assert cancelled
    assert "RUNNING" not in set(world.runs()["status"])


def test_an_interrupt_waits_no_longer_than_the_grace(world: World, two_workers: LocalExecutor) -> None:
    world.order({"1": {"hang_at": 3, "attempts": 1}})
    conclusion = world.start(two_workers, trials=4, watch=interrupt_at(2, 1), grace_seconds=0.5)
    assert conclusion.interrupted
    assert "RUNNING" not in set(world.runs()["status"])
    world.start(two_workers, trials=4)
    assert [record.state for record in world.records()] == ["complete"] * 4


def test_many_interruptions_are_no_losses(world: World, two_workers: LocalExecutor) -> None:
    for _ in range(4):
        world.start(two_workers, trials=2, watch=lambda coordinator, watcher: coordinator.interrupt())
    for epoch in (1, 2, 3):
        world.start(two_workers, trials=2, watch=interrupt_at(1, epoch))
    world.start(two_workers, trials=2)
    assert [record.state for record in world.records()] == ["complete", "complete"]
    assert world.disagreements() == []


def test_a_budget_in_hours_stops_running_trials_within_an_epoch(
    world: World, two_workers: LocalExecutor
) -> None:
    world.order({"all": {"seconds": 0.4}})
    conclusion = world.start(two_workers, trials=None, hours=0.5 / 3600)
    assert conclusion.reason == "the budget's hours are used"
    records = world.records()
    assert {record.state for record in records} == {"pruned"}
    assert all("hours" in record.message for record in records)
    assert all(len(record.curve) <= 2 for record in records)
    assert world.disagreements() == []
    world.start(two_workers, trials=None, hours=0.5 / 3600)
    assert len(world.records()) == len(records)


def test_a_pruned_trial_stops_within_an_epoch_and_keeps_its_curve(
    make_world: Callable[..., World], make_executor: Callable[..., LocalExecutor]
) -> None:
    world = make_world(pruner="median", n_startup_trials=1, n_warmup_steps=1)
    world.given = [{"model.dropout": 0.3}, {"model.dropout": 0.6}]
    world.start(make_executor(1), trials=2)
    record = world.records()[1]
    assert record.state == "pruned"
    stopped = max(record.curve)
    assert stopped < EPOCHS
    assert [each["epoch"] for each in world.trained() if each["trial"] == 1] == list(range(1, stopped + 1))
    assert world.curve(1) == list(range(1, stopped + 1))
    run = world.run(1)
    assert (run["status"], run["state"]) == ("KILLED", "pruned")
    assert run["tags.podium.reason"] == "stopped by the pruner"
    assert world.disagreements() == []


def test_a_failing_trial_has_its_traceback_and_the_sweep_goes_on(
    world: World, two_workers: LocalExecutor
) -> None:
    world.order({"1": {"raise": "the toy broke"}, "2": {"nan_at": 2}, "3": {"memory": True}})
    world.start(two_workers, trials=5)
    records = world.records()
    assert [record.state for record in records] == ["complete", "failed", "failed", "failed", "complete"]
    assert [record.cause for record in records[1:4]] == ["error", "nan", "memory"]
    assert [world.run(number)["tags.podium.cause"] for number in (1, 2, 3)] == ["error", "nan", "memory"]
    artifacts = world.stores.root / "artifacts"
    [file] = [path for path in artifacts.rglob("traceback.txt") if world.run(1)["run_id"] in path.parts]
    assert "ValueError: the toy broke" in file.read_text()
    assert world.curve(2) == [1]
    assert world.disagreements() == []


def test_three_alike_failures_in_a_row_end_the_sweep_with_their_error(
    world: World, make_executor: Callable[..., LocalExecutor]
) -> None:
    executor = make_executor(1)
    world.order({"all": {"raise": "no such layer"}, "0": {"raise": "another"}})
    with pytest.raises(SweepError, match="no such layer") as caught:
        world.start(executor, trials=10)
    assert "--resume" in str(caught.value.remedy)
    assert [record.state for record in world.records()] == ["failed"] * 4
    assert world.disagreements() == []
    world.order({})
    world.start(executor, trials=6)
    assert [record.state for record in world.records()] == ["failed"] * 4 + ["complete"] * 2


def test_a_killed_worker_costs_no_epoch_but_the_one_it_was_in(
    world: World, two_workers: LocalExecutor
) -> None:
    world.order({"1": {"kill_at": 3, "attempts": 1}})
    world.start(two_workers, trials=3)
    record = world.records()[1]
    dropout = float(record.parameters["model.dropout"])
    assert (record.state, record.value) == ("complete", accuracy(dropout, EPOCHS))
    assert trained(record)["final_weights_sha256"] == chain(dropout, EPOCHS)
    epochs = [(each["attempt"], each["epoch"]) for each in world.trained() if each["trial"] == 1]
    assert epochs == [(1, 1), (1, 2), (1, 3), (2, 3), (2, 4)]
    run = world.run(1)
    assert run["tags.podium.attempts"] == "2"
    assert run["tags.podium.lost_attempts"].startswith("attempt 1: worker process")
    assert world.disagreements() == []


def test_a_trial_that_kills_its_worker_each_time_is_given_up_after_its_retries(
    world: World, two_workers: LocalExecutor
) -> None:
    world.order({"1": {"kill_at": 2}})
    world.start(two_workers, trials=3)
    assert [record.state for record in world.records()] == ["complete", "failed", "complete"]
    assert world.records()[1].cause == "lost"
    assert {each["attempt"] for each in world.trained() if each["trial"] == 1} == {1, 2, 3}
    assert world.run(1)["status"] == "FAILED"
    assert world.disagreements() == []


def test_an_equal_proposal_is_not_trained_and_links_to_the_original(
    make_world: Callable[..., World], two_workers: LocalExecutor
) -> None:
    world = make_world()
    world.space = {"model.dropout": CategoricalParameter(type="categorical", choices=[0.25, 0.5])}
    world.start(two_workers, trials=4)
    world.start(two_workers, trials=8)
    records = world.records()
    assert len(records) == 8
    values = {record.parameters["model.dropout"]: record.value for record in records}
    assert [record.value for record in records] == [
        values[record.parameters["model.dropout"]] for record in records
    ]
    copies = [record for record in records if "duplicate_of" in record.attributes]
    assert len(copies) >= 4
    originals = {record.number for record in records} - {record.number for record in copies}
    assert {record.attributes["duplicate_of"] for record in copies} <= originals
    assert {each["trial"] for each in world.trained()} == originals
    run = world.run(copies[-1].number)
    original = world.run(int(run["tags.podium.duplicate_of"]))
    assert run["tags.podium.duplicate_of_run"] == original["run_id"]
    assert run["metrics.best_val_accuracy"] == original["metrics.best_val_accuracy"]
    assert world.disagreements() == []


def test_several_objectives_and_constraints_get_what_they_are_about(
    make_world: Callable[..., World], two_workers: LocalExecutor
) -> None:
    world = make_world(sampler="nsga2")
    world.objectives = [ObjectiveSettings(), ObjectiveSettings(metric="parameters", goal="minimize")]
    world.constraints = ConstraintSettings(parameters=LimitSettings(at_most=1))
    world.start(two_workers, trials=3)
    for record in world.records():
        assert record.values == (record.value, record.measures["parameters"])
        assert record.measures["seconds"] > 0
        assert not record.feasible


def test_a_worker_without_disk_ends_the_sweep_resumably(
    world: World, two_workers: LocalExecutor, make_executor: Callable[..., LocalExecutor]
) -> None:
    world.order({"2": {"disk": True, "attempts": 1}})
    with pytest.raises(SweepError, match="no space left"):
        world.start(make_executor(2), trials=4)
    assert "RUNNING" not in set(world.runs()["status"])
    world.start(two_workers, trials=4)
    assert [record.state for record in world.records()] == ["complete"] * 4
    assert world.disagreements() == []


def test_a_broken_study_ends_the_sweep_with_its_cause_and_nothing_running(
    world: World, two_workers: LocalExecutor
) -> None:
    engine = world.engine()
    closed = ListedEngine([{}], study_name="other")

    def break_it(coordinator: Coordinator, watcher: Watcher) -> None:
        def act(trial: LiveTrial, event: EpochEvent) -> None:
            engine.report = closed.report  # type: ignore[method-assign]

        watcher.on_epoch = act

    with pytest.raises(SweepError) as caught:
        world.start(two_workers, trials=4, engine=engine, watch=break_it)
    assert "no trial" in str(caught.value)
    assert "RUNNING" not in set(world.runs()["status"])
    world.start(two_workers, trials=4)
    assert [record.state for record in world.records()] == ["complete"] * 4
    assert world.disagreements() == []


def test_training_goes_on_while_mlflow_takes_nothing(world: World, two_workers: LocalExecutor) -> None:
    file = world.stores.root / "mlflow.db"
    with closing(sqlite3.connect(file, isolation_level=None, timeout=30)) as database:
        ended_there: list[int] = []

        def hold(coordinator: Coordinator, watcher: Watcher) -> None:
            def act(trial: LiveTrial, outcome: Outcome) -> None:
                if trial.number == 0:
                    database.execute("BEGIN EXCLUSIVE")
                if trial.number == 3:
                    ended = "select count(*) from runs where status = 'FINISHED'"
                    ended_there.append(database.execute(ended).fetchone()[0])
                    database.execute("ROLLBACK")

            watcher.on_end = act

        world.start(two_workers, trials=6, watch=hold)
    assert ended_there in ([0], [1]), (
        "of four trials that had ended by then, the last three at least are not there"
    )
    assert [record.state for record in world.records()] == ["complete"] * 6
    assert world.disagreements() == []


def test_what_the_study_knows_and_mlflow_does_not_is_written_again(
    world: World, two_workers: LocalExecutor
) -> None:
    world.order({"1": {"raise": "the toy broke"}})
    world.start(two_workers, trials=4)
    runs = {trial: world.run(trial)["run_id"] for trial in range(4)}
    with closing(sqlite3.connect(world.stores.root / "mlflow.db")) as database, database:
        for trial in (0, 1):
            database.execute("update runs set status = 'RUNNING' where run_uuid = ?", [runs[trial]])
            database.execute("delete from tags where key = 'podium.cause' and run_uuid = ?", [runs[trial]])
        database.execute("delete from metrics where step > 2 and run_uuid = ?", [runs[2]])
    MlflowClient(world.stores.tracking_uri).delete_run(runs[3])
    assert len(world.disagreements()) == 4
    world.start(two_workers, trials=4)
    assert world.disagreements() == []
    assert world.run(1)["tags.podium.cause"] == "error"
    assert world.run(2)["run_id"] == runs[2]


def test_what_killed_the_workers_is_not_taken_for_an_interrupt(
    world: World, two_workers: LocalExecutor
) -> None:
    def kill(coordinator: Coordinator, watcher: Watcher) -> None:
        def act(trial: LiveTrial, event: EpochEvent) -> None:
            if (trial.number, event.epoch, trial.attempt) == (1, 2, 1):
                os.kill(world.trained()[-1]["pid"], signal.SIGKILL)

        watcher.on_epoch = act

    conclusion = world.start(two_workers, trials=4, watch=kill)
    assert not conclusion.interrupted
    assert [record.state for record in world.records()] == ["complete"] * 4
    assert world.disagreements() == []
