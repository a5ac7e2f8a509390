"""Measures what one coordinator does with a Ray cluster: does it scale, and what does an epoch event cost it?

Run it:  .venv/bin/python benchmarks/cluster.py
         Trials that sleep, on Ray actors of this machine (which need no core to sleep on), with the real
         coordinator, study and MLflow store. First trials an hour with 1, 2, 4 and 8 actors, then the coordinator's
         CPU time an epoch event with 64 actors whose epochs take a second.
Target:  at least 90 % of linear; at most 15 ms an epoch event.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from pathlib import Path

from arms import new_stores
from sleeper import EPOCH_SECONDS

from podium.coordinator.loop import Coordinator
from podium.coordinator.trial import Budget, LiveTrial, Plan
from podium.engines.base import Outcome
from podium.engines.optuna import OptunaEngine
from podium.executors import ray_cluster
from podium.executors.base import Executor
from podium.recipe import Recipe
from podium.recipe_sections import TrainingSettings
from podium.result import EpochEvent, TrainingArrays, TrainingJob
from podium.search_space import FloatParameter
from podium.sweep_file import ConstraintSettings, ObjectiveSettings, OptunaSettings
from podium.tracking.runs import DataInput, Recorder

ACTORS = (1, 2, 4, 8)
MANY, MANY_EPOCHS = 64, 20
TRIALS_AN_ACTOR, EPOCHS = 10, 3
DATA = DataInput(name="none", reference="none", train_digest="a" * 64, split_digest="b" * 64)


class Watch:
    """An observer that takes times: wall seconds, and this process's CPU seconds when an epoch is recorded."""

    def __init__(self) -> None:
        self.started_at: float | None = None
        self.ended_at = 0.0
        self.epochs: list[float] = []

    def started(self, trial: LiveTrial) -> None:
        self.started_at = self.started_at or time.monotonic()

    def epoch(self, trial: LiveTrial, event: EpochEvent) -> None:
        self.epochs.append(time.process_time())

    def ended(self, trial: LiveTrial, outcome: Outcome) -> None:
        self.ended_at = time.monotonic()

    def message(self, text: str) -> None:
        print(text, file=sys.stderr)


def run(executor: Executor, folder: Path, *, trials: int, epochs: int) -> Watch:
    """One sweep of sleepers with real stores."""
    stores = new_stores(folder)
    engine = OptunaEngine(
        OptunaSettings(sampler="random", pruner="none"),
        {"model.dropout": FloatParameter(type="float", low=0.0, high=0.6)},
        given=[{"model.dropout": 0.25}],
        objectives=[ObjectiveSettings()],
        constraints=ConstraintSettings(),
        study_name="sleepers",
        study_url=stores.study_url,
        epochs=epochs,
        create=True,
    )
    arrays = TrainingArrays(
        images=folder, labels=folder, split=folder, train_digest="", split_digest="", class_names=("a", "b")
    )
    plan = Plan(
        recipe=Recipe(training=TrainingSettings(epochs=epochs)),
        metric="val_accuracy",
        goal="maximize",
        folder=stores.checkpoints / "sleepers",
        job=lambda recipe, place, count: TrainingJob(
            recipe=recipe, arrays=arrays, folder=place, epochs=count
        ),
        package=lambda trial, run_id, result: None,
        tags={},
        inputs=[DATA],
    )
    recorder = Recorder(stores, experiment="sleepers", spool_folder=folder / "spool")
    recorder.open_parent(name="sleepers", parameters={}, tags={"podium.kind": "sweep"})
    watch = Watch()
    coordinator = Coordinator(
        engine=engine,
        executor=executor,
        recorder=recorder,
        plan=plan,
        budget=Budget(trials=trials),
        observer=watch,
    )
    coordinator.run()
    recorder.close()
    engine.close()
    return watch


def with_actors(count: int, *, trials: int, epochs: int) -> Watch:
    """Run a sweep once `count` actors are ready."""
    from podium.executors.ray import RayExecutor

    with tempfile.TemporaryDirectory() as name:
        executor = RayExecutor(
            workers=count,
            cpus=1,
            gpus=0,
            log_folder=Path(name) / "logs",
            trainer="sleeper:sleep",
            paths=[Path(__file__).parent],
        )
        try:
            while executor.free < count:
                executor.events(1.0)
            return run(executor, Path(name) / "mlruns", trials=trials, epochs=epochs)
        finally:
            executor.close()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=["trials", "events"], help="one of the two measurements")
    only = parser.parse_args().only
    ray_cluster.prepare(None)
    import ray

    ray.init(
        address="local", num_cpus=MANY, include_dashboard=False, log_to_driver=False, logging_level="error"
    )
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    if only != "events":
        base: float | None = None
        print("actors  trials an hour  of linear")
        for count in ACTORS:
            watch = with_actors(count, trials=count * TRIALS_AN_ACTOR, epochs=EPOCHS)
            assert watch.started_at is not None
            rate = count * TRIALS_AN_ACTOR / (watch.ended_at - watch.started_at) * 3600
            base = base or rate
            print(f"{count:6}  {rate:14.0f}  {rate / (base * count):9.1%}", flush=True)
    if only != "trials":
        watch = with_actors(MANY, trials=MANY, epochs=MANY_EPOCHS)
        # Less the first epoch of each and the last: starts and ends have costs of their own.
        steady = watch.epochs[MANY:-MANY]
        cost = (steady[-1] - steady[0]) / (len(steady) - 1)
        print(f"{MANY} actors: {len(watch.epochs)} epoch events, {1000 * cost:.2f} ms of CPU each")
        print(
            f"one core of a coordinator feeds {math.floor(EPOCH_SECONDS / cost)} workers with epochs of a second"
        )
    print(f"load {os.getloadavg()[0]:.1f} after")
    ray.shutdown()


if __name__ == "__main__":
    main()
