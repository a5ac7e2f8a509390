"""Owns a whole small sweep on real stores: study in SQLite, MLflow in SQLite, toy trainers in real processes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import study_stores
from search_toys import FOLDER, ORDERS, TRACE, TRAINER

from podium.coordinator.loop import Coordinator
from podium.coordinator.reconciliation import RecordedRun, reconcile
from podium.coordinator.trial import Budget, Conclusion, LiveTrial, Plan
from podium.engines.base import Engine, Outcome
from podium.engines.listed import ListedEngine
from podium.engines.optuna import OptunaEngine
from podium.executors.base import Executor
from podium.executors.local import LocalExecutor
from podium.recipe import Recipe
from podium.recipe_sections import ModelSettings, TrainingSettings
from podium.result import EpochEvent, TrainingArrays, TrainingJob, TrainingResult
from podium.search_space import FloatParameter
from podium.stores import Stores
from podium.sweep_file import ConstraintSettings, ObjectiveSettings, OptunaSettings
from podium.tracking import query
from podium.tracking.runs import DataInput, Recorder

STUDY = "toys-1"
EPOCHS = 4
SPACE = {"model.dropout": FloatParameter(type="float", low=0.0, high=0.6)}
DATA = DataInput(name="toys", reference="toys", train_digest="a" * 64, split_digest="b" * 64)


def stores_in(root: Path) -> Stores:
    root.mkdir(parents=True, exist_ok=True)
    return Stores(
        root=root,
        tracking_uri=f"sqlite:///{root / 'mlflow.db'}",
        artifact_uri=(root / "artifacts").as_uri(),
        study_url=study_stores.address(root),
    )


def new_stores(root: Path, empty: Path) -> Stores:
    """Stores of their own, copied from a folder of empty ones: making them takes seconds."""
    stores = stores_in(root)
    shutil.copyfile(empty / "mlflow.db", root / "mlflow.db")
    study_stores.make_empty(root, empty / "studies.db")
    return stores


def local_executor(folder: Path, workers: int, **settings: Any) -> LocalExecutor:
    return LocalExecutor(
        workers=workers, log_folder=folder, trainer=TRAINER, threads=1, paths=[FOLDER], **settings
    )


class Watcher:
    """An observer that calls back, so that a test can act in the middle of a sweep."""

    def __init__(self) -> None:
        self.on_epoch: Callable[[LiveTrial, EpochEvent], None] = lambda trial, event: None
        self.on_end: Callable[[LiveTrial, Outcome], None] = lambda trial, outcome: None
        self.messages: list[str] = []

    def started(self, trial: LiveTrial) -> None:
        pass

    def epoch(self, trial: LiveTrial, event: EpochEvent) -> None:
        self.on_epoch(trial, event)

    def ended(self, trial: LiveTrial, outcome: Outcome) -> None:
        self.on_end(trial, outcome)

    def message(self, text: str) -> None:
        self.messages.append(text)


class World:
    """Stores of one study; each `start` is what one start of the program does."""

    def __init__(
        self, stores: Stores, *, sampler: str = "random", pruner: str = "none", **options: Any
    ) -> None:
        self.stores = stores
        self.settings = OptunaSettings(sampler=sampler, pruner=pruner, pruner_options=options)
        self.space: dict[str, Any] = SPACE
        self.given: list[dict[str, Any]] = [{"model.dropout": 0.25}]
        self.objectives = [ObjectiveSettings()]
        self.constraints = ConstraintSettings()
        self.folder = stores.root / "checkpoints" / STUDY
        self.folder.mkdir(parents=True, exist_ok=True)
        self.packaged: list[tuple[int, str]] = []

    def order(self, orders: dict[str, dict[str, Any]]) -> None:
        (self.folder / ORDERS).write_text(json.dumps(orders))

    def engine(self) -> Engine:
        from podium.engines.study import study_exists

        return OptunaEngine(
            self.settings,
            self.space,
            given=self.given,
            objectives=self.objectives,
            constraints=self.constraints,
            epochs=EPOCHS,
            study_name=STUDY,
            study_url=self.stores.study_url,
            create=not study_exists(self.stores.study_url, STUDY),
        )

    def recorder(self) -> Recorder:
        return Recorder(self.stores, experiment="toys", spool_folder=self.stores.root / "spool")

    def plan(self, **settings: Any) -> Plan:
        def job(recipe: Recipe, folder: Path, epochs: int) -> TrainingJob:
            nothing = folder / "no-such-file"
            arrays = TrainingArrays(
                images=nothing,
                labels=nothing,
                split=nothing,
                train_digest="",
                split_digest="",
                class_names=(),
            )
            return TrainingJob(recipe=recipe, arrays=arrays, folder=folder, epochs=epochs)

        def package(trial: LiveTrial, run_id: str, result: TrainingResult) -> None:
            self.packaged.append((trial.number, run_id))

        return Plan(
            recipe=Recipe(training=TrainingSettings(epochs=EPOCHS), model=ModelSettings(dropout=0.25)),
            metric="val_accuracy",
            goal="maximize",
            folder=self.folder,
            job=job,
            package=package,
            tags={"podium.kind": "trial"},
            inputs=[DATA],
            **settings,
        )

    def open_parent(self, engine: Engine, recorder: Recorder) -> str:
        known = engine.recall("parent_run_id")
        if known is not None:
            recorder.reopen_parent(str(known))
            return str(known)
        parent = recorder.open_parent(name=STUDY, parameters={}, tags={"podium.key": STUDY})
        engine.remember("parent_run_id", parent)
        return parent

    def start(
        self,
        executor: Executor,
        *,
        trials: int | None = 6,
        hours: float | None = None,
        epochs: int | None = None,
        no_improvement: int | None = None,
        watch: Callable[[Coordinator, Watcher], None] = lambda coordinator, watcher: None,
        engine: Engine | None = None,
        flush: bool = True,
        **plan_settings: Any,
    ) -> Conclusion:
        """Run or go on with the study; whatever ends it, records are delivered and parts closed."""
        engine = engine or self.engine()
        recorder = self.recorder()
        try:
            plan = self.plan(**plan_settings)
            parent = self.open_parent(engine, recorder)
            if flush and any(record.state != "running" for record in engine.trials()):
                assert recorder.flush(30)
                reconcile(engine.trials(), recorded_runs(self.stores, parent), recorder, plan)
            watcher = Watcher()
            coordinator = Coordinator(
                engine=engine,
                executor=executor,
                recorder=recorder,
                plan=plan,
                budget=Budget(trials=trials, hours=hours, epochs=epochs, no_improvement=no_improvement),
                observer=watcher,
            )
            watch(coordinator, watcher)
            conclusion = coordinator.run()
            if flush:
                coordinator.finish_packaging(30)
                assert recorder.flush(30)
            return conclusion
        finally:
            recorder.close()
            engine.close()

    def reader(self) -> Engine:
        """The study for one who only looks at it."""
        return ListedEngine([], study_name=STUDY, study_url=self.stores.study_url, read_only=True)

    def runs(self) -> pd.DataFrame:
        engine = self.reader()
        parent = str(engine.recall("parent_run_id"))
        engine.close()
        return query.children(self.stores, parent)

    def run(self, trial: int) -> Any:
        [row] = [row for _, row in self.runs().iterrows() if row["trial"] == trial]
        return row

    def curve(self, trial: int) -> list[int]:
        return list(query.history(self.stores, str(self.run(trial)["run_id"]))["epoch"])

    def records(self) -> list[Any]:
        engine = self.reader()
        try:
            return engine.trials()
        finally:
            engine.close()

    def trained(self) -> list[dict[str, int]]:
        """Every epoch that some toy began to train."""
        file = self.folder / TRACE
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def disagreements(self) -> list[str]:
        """Where study and MLflow differ, or something is RUNNING that nobody runs."""
        records, frame = self.records(), self.runs()
        faults = []
        if sorted(frame["trial"]) != [record.number for record in records]:
            faults.append(f"runs {sorted(frame['trial'])} for trials {[record.number for record in records]}")
        statuses = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "running": "KILLED"}
        runs = {row["trial"]: row for _, row in frame.iterrows()}
        curves = query.histories(self.stores, list(frame["run_id"]))
        for record in records:
            run = runs.get(record.number)
            if run is None:
                continue
            if run["status"] != statuses[record.state]:
                faults.append(f"trial {record.number} is {record.state}, its run {run['status']}")
            own = curves[curves["run_id"] == run["run_id"]]
            curve = dict(zip(own["epoch"], own["val_accuracy"], strict=True))
            if curve != dict(record.curve):
                faults.append(f"trial {record.number}: curve {record.curve} in the study, {curve} in MLflow")
            if record.state == "complete" and run["metrics.best_val_accuracy"] != record.value:
                faults.append(
                    f"trial {record.number}: value {record.value}, {run['metrics.best_val_accuracy']}"
                )
        return faults


def recorded_runs(stores: Stores, parent: str) -> dict[int, RecordedRun]:
    frame = query.children(stores, parent)
    curves = query.histories(stores, list(frame["run_id"]))
    return {
        row["trial"]: RecordedRun(
            status=row["status"],
            state=row["state"],
            epochs=frozenset(curves[curves["run_id"] == row["run_id"]]["epoch"]),
        )
        for _, row in frame.iterrows()
    }
