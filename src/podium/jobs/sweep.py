"""Owns `podium sweep`: search a space, record every trial, rank them."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from podium import live
from podium.answer import Answer
from podium.coordinator.bookkeeping import trained
from podium.coordinator.trial import Budget, Conclusion, Plan
from podium.engines.base import Engine, Proposal
from podium.engines.make import check_options, make_engine
from podium.engines.study import prepare_storage
from podium.errors import Interrupted, SweepError
from podium.packager.packager import PackageRequest
from podium.search_space import bounds
from podium.session.assembly import (
    Crew,
    crew,
    make_plan,
    run_loop,
    threads_each,
    undisturbed,
)
from podium.session.cluster import Cluster, RayOptions, cluster_of
from podium.session.continuation import DOCUMENT, LIMITS_DONE, Study, choose_study, limits
from podium.session.material import Material, gather
from podium.session.pace import PACE, settled
from podium.session.progress import Progress
from podium.session.sweep_answer import best_trial, counts_of, sweep_answer
from podium.session.warm_start import WarmStart, find_warm_start
from podium.stores import Stores, stores_here
from podium.sweep_file import SETTINGS, Sweep, sweep_as_typed
from podium.tracking.run_record import capture_source, keep_source
from podium.tracking.runs import prepare_store

DELIVERY_SECONDS = 300.0
WARM_STARTED = "warm_started"


def sweep(
    path: Path,
    assignments: Sequence[str],
    *,
    data: str | None = None,
    trials: int | None = None,
    hours: float | None = None,
    workers: int | None = None,
    executor: str | None = None,
    address: str | None = None,
    num_cpus: int | None = None,
    num_gpus: float | None = None,
    resume: bool = False,
    new: bool = False,
) -> Answer:
    """Run a sweep file to the end of its budget; a finished one only shows its result."""
    typed = {"data": data, "trials": trials, "hours": hours, "workers": workers, "executor": executor}
    spec = sweep_as_typed(
        path, assignments, data=data, trials=trials, hours=hours, workers=workers, executor=executor
    )
    check_options(spec, path)
    options = RayOptions(address=address, num_cpus=num_cpus, num_gpus=num_gpus)
    cluster = cluster_of(spec, options)
    material = gather(spec.recipe, code=spec.code, largest_batch=_largest_batch(spec))
    stores = stores_here()
    stores.prepare()
    identity = spec.identity(train_digest=material.dataset.train_digest, code_digest=material.code_digest)
    command = _command(path, assignments, {**typed, **options.typed()})
    study = choose_study(spec, stores.study_url, identity, resume=resume, new=new, command=command)
    folder = stores.sweeps / study.name
    with live.locked(folder):
        prepare_store(stores)
        prepare_storage(stores.study_url)
        warm = WarmStart() if study.begun else find_warm_start(stores, spec)
        engine = make_engine(
            spec,
            study_name=study.name,
            study_url=stores.study_url,
            epochs=spec.recipe.training.epochs,
            create=study.create,
            warm_start=[trial.parameters for trial in warm.trials],
        )
        parent = study.parent_run_id
        lacking: list[str] = []
        # Not part of the identity, and needed by `podium confirm`, which has no sweep file.
        settings = spec.file.model_dump_json(include=set(SETTINGS))
        engine.remember("settings", settings)
        engine.remember("checks", json.dumps(spec.recipe.model_dump(include={"checks"})["checks"]))
        if not study.finished or parent is None:
            asked = spec
            spec, pace = settled(spec, material, engine.recall(PACE), _tell)
            if not study.begun:
                engine.remember("identity", identity)
                if pace is not None:
                    engine.remember(PACE, pace)
                engine.remember(WARM_STARTED, json.dumps([trial.run_id for trial in warm.trials]))
                # The last: a start that was killed before it begins again.
                engine.remember(DOCUMENT, json.dumps(asked.document(), sort_keys=True))
                for message in warm.messages:
                    _tell(message)
            try:
                parent, lacking = _search(spec, study, stores, engine, material, folder, command, cluster)
            except KeyboardInterrupt as error:
                raise Interrupted("interrupted.", resume_command=f"{command} --resume") from error
        answer = sweep_answer(spec, study, stores, engine, parent, command)
        return replace(answer, warnings=[*answer.warnings, *warm.messages, *lacking])


def _search(
    spec: Sweep,
    study: Study,
    stores: Stores,
    engine: Engine,
    material: Material,
    folder: Path,
    command: str,
    cluster: Cluster | None,
) -> tuple[str, list[str]]:
    """Run trials until the budget is used; answers the parent run's id, and what MLflow lacks for good."""
    workers = spec.file.workers or 1
    tags = {
        "podium.sweep": spec.file.name,
        "podium.study": study.name,
        "podium.engine": spec.file.engine.name,
    }
    with crew(
        stores,
        experiment=spec.file.name,
        workers=workers,
        threads=threads_each(workers),
        log_folder=folder / "logs",
        spool_folder=folder / "spool",
        cluster=cluster,
    ) as hands:
        plan = make_plan(
            material=material,
            recipe=spec.recipe,
            metric=spec.file.epoch_objective.metric,
            goal=spec.file.epoch_objective.goal,
            folder=stores.checkpoints / study.name,
            packager=hands.packager,
            tags={**tags, "podium.kind": "trial"},
        )
        plan = replace(plan, run_tags=_tags_of_warm_starts(engine))
        about = {**plan.tags, **material.data_tags(), "podium.command": command}
        with ExitStack() as held:
            held.enter_context(undisturbed())
            parent = _open_parent(hands, spec, study, engine, about)
            try:
                held.close()
                if engine.recall("source_kept") is None:
                    keep_source(stores, parent, capture_source(material.code))
                    engine.remember("source_kept", True)
                progress = _progress(spec, engine, folder)
                with progress:
                    conclusion = run_loop(
                        hands,
                        engine=engine,
                        plan=plan,
                        budget=Budget(**limits(spec)),
                        observer=progress,
                        resume_command=f"{command} --resume",
                    )
                warnings = _conclude(hands, spec, engine, plan, conclusion, command)
            except BaseException:
                hands.recorder.end_parent(status="KILLED", metrics={}, tags={"podium.state": "interrupted"})
                raise
    return parent, warnings


def _open_parent(hands: Crew, spec: Sweep, study: Study, engine: Engine, tags: Mapping[str, str]) -> str:
    if study.parent_run_id is not None:
        hands.recorder.reopen_parent(study.parent_run_id)
        return study.parent_run_id
    parameters: dict[str, Any] = {
        f"space.{key}": json.dumps(value.model_dump(exclude_defaults=True))
        for key, value in spec.file.space.items()
    }
    parameters |= {f"engine.{key}": value for key, value in spec.file.engine.model_dump().items()}
    parameters |= {f"budget.{key}": value for key, value in spec.file.budget.model_dump().items()}
    parent = hands.recorder.open_parent(
        name=study.name,
        parameters=parameters,
        tags={
            **tags,
            "podium.kind": "sweep",
            "podium.key": study.name,  # a start that was killed here finds its parent run again
            "podium.metric": spec.file.epoch_objective.metric,
            "podium.goal": spec.file.epoch_objective.goal,
            "mlflow.note.content": spec.file.question,
        },
    )
    engine.remember("parent_run_id", parent)
    return parent


def _tags_of_warm_starts(engine: Engine) -> Callable[[Proposal], Mapping[str, str]]:
    """The run that a warm-started trial's configuration comes from; such trials come right after the baseline."""
    sources = json.loads(str(engine.recall(WARM_STARTED) or "[]"))

    def tags(proposal: Proposal) -> dict[str, str]:
        if not 1 <= proposal.number <= len(sources):
            return {}
        return {"podium.warm_start_of_run": sources[proposal.number - 1]}

    return tags


def _tell(message: str) -> None:
    Console(stderr=True).print(message, highlight=False, markup=False, soft_wrap=True)


def _progress(spec: Sweep, engine: Engine, folder: Path) -> Progress:
    progress = Progress(
        console=Console(stderr=True),
        metric=spec.file.epoch_objective.metric,
        goal=spec.file.epoch_objective.goal,
        total=spec.file.budget.trials,
        status_folder=folder,
        limits=spec.file.constraints.limits,
    )
    records = engine.trials()
    best = best_trial(records, spec)
    progress.take_over(
        ended=sum(record.state != "running" for record in records),
        best=best.value if best else None,
        best_trial=best.number if best else None,
    )
    return progress


def _conclude(
    hands: Crew, spec: Sweep, engine: Engine, plan: Plan, conclusion: Conclusion, command: str
) -> list[str]:
    """Log the best trial's model, close the parent run, and drop what only a resume would need.

    Answers what MLflow lacks for good.

    Raises: SweepError if MLflow is away for so long that records are left to `--resume`.
    """
    failures = hands.packaged(engine, plan, DELIVERY_SECONDS)
    records = engine.trials()
    best = best_trial(records, spec)
    metrics = {f"trials_{name}": float(count) for name, count in counts_of(records).items()}
    metrics["seconds"] = conclusion.seconds
    if best is not None and best.value is not None:
        metrics[f"best_{spec.file.epoch_objective.metric}"] = best.value
        folder = plan.attempt_folder(best.number, int(best.attributes.get("attempts") or 1))
        if (folder / "best.keras").is_file():
            run_id = hands.recorder.wait_for_run_id(best.number, DELIVERY_SECONDS)
            sha256 = trained(best).get("model_sha256")
            model = PackageRequest(run_id=run_id, folder=folder, kind="model", model_sha256=sha256)
            hands.packager.submit(model)
    failures += hands.packager.drain(DELIVERY_SECONDS)
    tags = {"podium.state": "finished", "podium.ended_because": conclusion.reason}
    if failures:
        tags["podium.packaging_failures"] = "\n".join(failures)[:4000]
    if refused := hands.recorder.problems:
        tags["podium.not_recorded"] = "\n".join(refused)[:4000]
    hands.recorder.end_parent(status="FINISHED", metrics=metrics, tags=tags)
    if not hands.recorder.flush(DELIVERY_SECONDS):
        # Not finished: a finished sweep typed again only shows its result, and would leave them in the spool.
        raise SweepError(
            f"all trials have ended, but {hands.recorder.waiting} records are not in MLflow yet: "
            f"{hands.recorder.last_error}.",
            remedy=f"They are kept. When MLflow is back, have them written: {command} --resume",
        )
    if not failures:
        shutil.rmtree(plan.folder, ignore_errors=True)
    engine.remember(LIMITS_DONE, json.dumps(limits(spec)))
    return [*failures, *(f"not in MLflow: {problem}" for problem in hands.recorder.problems)]


def _largest_batch(spec: Sweep) -> int:
    parameter = spec.file.space.get("training.batch_size")
    sizes = [value for value in bounds(parameter) if isinstance(value, int)] if parameter else []
    return max(sizes or [spec.recipe.training.batch_size])


def _command(path: Path, assignments: Sequence[str], options: Mapping[str, object]) -> str:
    words = ["podium", "sweep", str(path), *assignments]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", str(value)]
    return shlex.join(words)
