"""Owns the assembly of one loop: stores, workers, recorder, packager and signals, opened and closed in order."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pandas as pd

from podium import live
from podium.coordinator.loop import Coordinator
from podium.coordinator.trial import Budget, Conclusion, LiveTrial, Observer, Plan
from podium.engines.base import Engine
from podium.errors import Interrupted, PodiumError
from podium.executors.base import Executor
from podium.executors.local import LocalExecutor
from podium.packager.packager import Packager, PackageRequest
from podium.recipe import Recipe
from podium.reporting.diagnose import diagnose
from podium.result import Goal, TrainingJob, TrainingResult
from podium.session.agreement import make_agree, package_again
from podium.session.cluster import Cluster
from podium.session.material import Material, data_input, other_split
from podium.session.training_checks import check_tags
from podium.stores import Stores
from podium.tracking.runs import DataInput, Recorder

PACKAGING_SECONDS = 600.0
FLUSH_SECONDS = 120.0
AT_ONCE_SECONDS = 3.0
# A worker that hangs, say on a device, says nothing. No epoch is known at first, so this is long.
PATIENCE_SECONDS = 3600.0


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def threads_each(workers: int) -> int:
    """Threads for each of so many workers on this machine's cores; all get the same, since threads decide bits."""
    return max(1, cores() // workers)


def make_plan(
    *,
    material: Material,
    recipe: Recipe,
    metric: str,
    goal: Goal,
    folder: Path,
    packager: Packager,
    tags: Mapping[str, str],
) -> Plan:
    """A plan whose trials all train on the material's split, unless their recipe asks for another."""

    def job(trial_recipe: Recipe, attempt_folder: Path, epochs: int) -> TrainingJob:
        same = trial_recipe.data == recipe.data
        return TrainingJob(
            recipe=trial_recipe,
            arrays=material.arrays if same else other_split(material, trial_recipe.data),
            folder=attempt_folder,
            epochs=epochs,
            metric=metric,
            goal=goal,
            code=material.code,
        )

    def inputs_of(trial_recipe: Recipe) -> list[DataInput]:
        if trial_recipe.data == recipe.data:
            return material.inputs()
        return [data_input(material.dataset, other_split(material, trial_recipe.data))]

    def package(trial: LiveTrial, run_id: str, result: TrainingResult) -> None:
        packager.submit(
            PackageRequest(
                run_id=run_id,
                folder=trial.folder,
                best_epoch=result.best_epoch,
                title=f"{tags.get('podium.sweep', 'run')}: trial {trial.number}",
                model_sha256=result.model_sha256,
            )
        )

    def describe(trial: LiveTrial, result: TrainingResult) -> dict[str, str]:
        return {
            **findings(trial, result, classes=len(material.arrays.class_names)),
            **check_tags(trial.recipe.checks, result),
        }

    return Plan(
        recipe=recipe,
        describe=describe,
        metric=metric,
        goal=goal,
        folder=folder,
        job=job,
        package=package,
        tags={**material.tags(), "podium.metric": metric, "podium.goal": goal, **tags},
        inputs=material.inputs(),
        inputs_of=inputs_of,
    )


def findings(trial: LiveTrial, result: TrainingResult, *, classes: int) -> dict[str, str]:
    """The diagnosis of a trained trial's curves; the worker's file has the epochs of all attempts."""
    path = trial.folder / "history.json"
    if not path.is_file():
        return {}
    epochs = json.loads(path.read_text())
    history = pd.DataFrame([{"epoch": each["epoch"], **each["metrics"]} for each in epochs])
    stopped_early = result.status == "finished" and result.epochs < trial.epochs
    found = diagnose(history, classes=classes, stopped_early=stopped_early)
    return {"diagnosis": found.tag, "finding": found.sentence, "remedy": found.remedy}


@dataclass(frozen=True, kw_only=True)
class Crew:
    """The open parts of a session."""

    stores: Stores
    recorder: Recorder
    packager: Packager
    executor: Executor

    def packaged(self, engine: Engine, plan: Plan, timeout_seconds: float) -> list[str]:
        """Wait until all trials are packaged; answers what went wrong. What MLflow was away for is tried once more."""
        failures = self.packager.drain(timeout_seconds)
        if failures and self.recorder.flush(timeout_seconds):
            package_again(engine, self.packager, plan, self.recorder.run_id)
            failures = self.packager.drain(timeout_seconds)
        return failures

    def deliver(self, timeout_seconds: float) -> None:
        """Wait until all records are in MLflow. Raises: PodiumError if it is away for so long."""
        if not self.recorder.flush(timeout_seconds):
            raise PodiumError(
                f"{self.recorder.waiting} records are not in MLflow yet: {self.recorder.last_error}.",
                remedy="They are kept in the spool folder under mlruns/sweeps/.",
            )


@contextmanager
def crew(
    stores: Stores,
    *,
    experiment: str,
    workers: int,
    threads: int,
    log_folder: Path,
    spool_folder: Path,
    cluster: Cluster | None = None,
) -> Iterator[Crew]:
    """Workers (here, or on a cluster), recorder and packager; all ended on the way out, records delivered first."""
    live.note_stores(spool_folder.parent, stores)
    executor: Executor
    if cluster is not None:
        executor = cluster.executor(stores, log_folder, patience_seconds=PATIENCE_SECONDS)
    else:
        executor = LocalExecutor(
            workers=workers, threads=threads, log_folder=log_folder, patience_seconds=PATIENCE_SECONDS
        )
    try:
        recorder = Recorder(stores, experiment=experiment, spool_folder=spool_folder)
        packager = Packager(stores)
        at_once = False
        try:
            yield Crew(stores=stores, recorder=recorder, packager=packager, executor=executor)
        except BaseException as error:
            at_once = isinstance(error, KeyboardInterrupt) or isinstance(error.__cause__, KeyboardInterrupt)
            raise
        finally:
            _close(packager, recorder, at_once=at_once)
    finally:
        executor.close()


def _close(packager: Packager, recorder: Recorder, *, at_once: bool) -> None:
    """Deliver what is left; `at_once`: what can be within seconds, the rest waits in the spool."""
    if not at_once:
        try:
            packager.close()
            recorder.close()
        except KeyboardInterrupt:
            _close(packager, recorder, at_once=True)
            raise
        return
    with suppress(KeyboardInterrupt), undisturbed():
        packager.close(AT_ONCE_SECONDS)
        recorder.close(AT_ONCE_SECONDS)


def run_loop(
    crew: Crew, *, engine: Engine, plan: Plan, budget: Budget, observer: Observer, resume_command: str
) -> Conclusion:
    """Run the coordinator with Ctrl-C and SIGTERM handled, and deliver records and pictures.

    What an earlier start left out of MLflow is written first, from the study.
    Raises: Interrupted if a person ended it; SweepError with the command that goes on.
    """

    def agree() -> bool:
        return make_agree(crew.stores, engine, crew.recorder, crew.packager, plan, observer)

    agreed = agree()
    coordinator = Coordinator(
        engine=engine,
        executor=crew.executor,
        recorder=crew.recorder,
        plan=plan,
        budget=budget,
        observer=observer,
    )
    try:
        with _signals(coordinator, observer):
            conclusion = coordinator.run()
            # After an interruption a resume packages what is left: a person does not want to wait.
            if not conclusion.interrupted:
                coordinator.finish_packaging(FLUSH_SECONDS)
            if not agreed or crew.recorder.problems:
                agree()
    except KeyboardInterrupt as error:
        raise Interrupted(
            "ended at once; finished trials are on record.", resume_command=resume_command
        ) from error
    except PodiumError as error:
        error.remedy = "\n".join([*([error.remedy] if error.remedy else []), f"Go on with: {resume_command}"])
        raise
    if conclusion.interrupted:
        raise Interrupted("interrupted; finished trials are on record.", resume_command=resume_command)
    return conclusion


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of the block, and are a KeyboardInterrupt there."""
    heard: list[int] = []
    names = (signal.SIGINT, signal.SIGTERM)
    before = {name: signal.signal(name, lambda number, _: heard.append(number)) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
    if heard:
        raise KeyboardInterrupt


@contextmanager
def _signals(coordinator: Coordinator, observer: Observer) -> Iterator[None]:
    def heed(number: int, _: FrameType | None) -> None:
        heard.append(number)
        if len(heard) > 1:
            raise KeyboardInterrupt
        observer.message("ending: workers finish their epoch (again to end at once)")
        coordinator.interrupt()

    heard: list[int] = []
    before = {number: signal.signal(number, heed) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
