"""Owns `podium sweep`: search a space, record every trial, rank them."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from podium import live
from podium.answer import Answer
from podium.coordinator.bookkeeping import trained
from podium.coordinator.trial import Budget, Conclusion, Plan
from podium.engines.base import Engine, TrialRecord
from podium.engines.make import make_engine, option_faults
from podium.engines.study import prepare_storage
from podium.errors import InvalidInput
from podium.packager.packager import PackageRequest
from podium.reporting.ranking import terminal_table
from podium.reporting.report import ranked
from podium.reporting.sweep_record import SweepRecord
from podium.search_space import bounds
from podium.session.assembly import Crew, Material, cores, crew, gather, make_plan, run_loop
from podium.session.continuation import Study, choose_study
from podium.session.evidence import sweep_record
from podium.session.progress import Progress
from podium.stores import Stores, stores_here
from podium.sweep_file import Sweep, read_sweep
from podium.tracking.run_record import capture_source, keep_source
from podium.tracking.runs import prepare_store

DELIVERY_SECONDS = 300.0
ROWS_SHOWN = 20


def sweep(
    path: Path,
    assignments: Sequence[str],
    *,
    data: str | None = None,
    trials: int | None = None,
    hours: float | None = None,
    workers: int | None = None,
    resume: bool = False,
    new: bool = False,
) -> Answer:
    """Run a sweep file to the end of its budget; a finished one only shows its result."""
    limits = {"budget.trials": trials, "budget.hours": hours, "workers": workers}
    given = [f"{key}={value}" for key, value in limits.items() if value is not None]
    spec = read_sweep(path, [*assignments, *given], data=data)
    faults = option_faults(spec.file)
    if faults:
        raise InvalidInput(f"{path}: the engine's options have faults.", faults=faults)
    material = gather(spec.recipe, code=spec.code, largest_batch=_largest_batch(spec))
    stores = stores_here()
    stores.prepare()
    identity = spec.identity(train_digest=material.dataset.train_digest, code_digest=material.code_digest)
    command = _command(
        path, assignments, {"data": data, "trials": trials, "hours": hours, "workers": workers}
    )
    study = choose_study(spec, stores.study_url, identity, resume=resume, new=new, command=command)
    folder = stores.sweeps / study.name
    with live.locked(folder):
        prepare_store(stores)
        prepare_storage(stores.study_url)
        engine = make_engine(
            spec,
            study_name=study.name,
            study_url=stores.study_url,
            epochs=spec.recipe.training.epochs,
            create=study.create,
        )
        parent = study.parent_run_id
        # Not part of the identity, and needed by `podium confirm`, which has no sweep file.
        settings = spec.file.model_dump_json(include={"budget", "workers", "executor", "confirm"})
        engine.remember("settings", settings)
        if not study.finished or parent is None:
            if study.create:
                engine.remember("identity", identity)
                engine.remember("document", json.dumps(spec.document(), sort_keys=True))
            parent = _search(spec, study, stores, engine, material, folder, command)
        return _answer(spec, study, stores, engine, parent, command)


def _search(
    spec: Sweep, study: Study, stores: Stores, engine: Engine, material: Material, folder: Path, command: str
) -> str:
    """Run trials until the budget is used; answers the parent run's id."""
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
        threads=max(1, cores() // workers),
        log_folder=folder / "logs",
        spool_folder=folder / "spool",
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
        about = {**plan.tags, **material.data_tags(), "podium.command": command}
        parent = _open_parent(hands, spec, study, engine, about)
        if engine.recall("source_kept") is None:
            keep_source(stores, parent, capture_source(material.code))
            engine.remember("source_kept", True)
        progress = _progress(spec, engine, folder)
        try:
            with progress:
                conclusion = run_loop(
                    hands,
                    engine=engine,
                    plan=plan,
                    budget=Budget(trials=spec.file.budget.trials, hours=spec.file.budget.hours),
                    observer=progress,
                    resume_command=f"{command} --resume",
                )
        except BaseException:
            hands.recorder.end_parent(status="KILLED", metrics={}, tags={"podium.state": "interrupted"})
            raise
        _conclude(hands, spec, engine, plan, conclusion)
    return parent


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


def _progress(spec: Sweep, engine: Engine, folder: Path) -> Progress:
    progress = Progress(
        console=Console(stderr=True),
        metric=spec.file.epoch_objective.metric,
        goal=spec.file.epoch_objective.goal,
        total=spec.file.budget.trials,
        status_folder=folder,
    )
    records = engine.trials()
    best = _best(records, spec)
    progress.take_over(
        ended=sum(record.state != "running" for record in records),
        best=best.value if best else None,
        best_trial=best.number if best else None,
    )
    return progress


def _conclude(hands: Crew, spec: Sweep, engine: Engine, plan: Plan, conclusion: Conclusion) -> None:
    """Log the best trial's model, close the parent run, and drop what only a resume would need."""
    records = engine.trials()
    best = _best(records, spec)
    metrics = {f"trials_{name}": float(count) for name, count in _counts(records).items()}
    metrics["seconds"] = conclusion.seconds
    if best is not None and best.value is not None:
        metrics[f"best_{spec.file.epoch_objective.metric}"] = best.value
        folder = plan.attempt_folder(best.number, int(best.attributes.get("attempts") or 1))
        if (folder / "best.keras").is_file():
            run_id = hands.recorder.wait_for_run_id(best.number, DELIVERY_SECONDS)
            hands.packager.submit(PackageRequest(run_id=run_id, folder=folder, kind="model"))
    failures = hands.packager.drain(DELIVERY_SECONDS)
    tags = {"podium.state": "finished", "podium.ended_because": conclusion.reason}
    if failures:
        tags["podium.packaging_failures"] = "\n".join(failures)[:4000]
    hands.recorder.end_parent(status="FINISHED", metrics=metrics, tags=tags)
    delivered = hands.recorder.flush(DELIVERY_SECONDS)
    engine.remember("budget_done", json.dumps(spec.file.budget.model_dump()))
    if delivered and not failures:
        shutil.rmtree(plan.folder, ignore_errors=True)


def _answer(spec: Sweep, study: Study, stores: Stores, engine: Engine, parent: str, command: str) -> Answer:
    records = engine.trials()
    record = sweep_record(stores, parent)
    best = _best(records, spec)
    run_ids = dict(zip(record.trials["trial"], record.trials["run_id"], strict=True))
    values = {
        "sweep": spec.file.name,
        "study": study.name,
        "parent_run_id": parent,
        "trials": {"total": len(records), **_counts(records)},
        "best": None
        if best is None
        else {
            "trial": best.number,
            "run_id": run_ids.get(best.number),
            "value": best.value,
            "params": dict(best.parameters),
        },
        "epochs_trained": sum(len(trial.curve) for trial in records),
        "epochs_saved": _epochs_saved(records, spec),
        "seconds": float(engine.recall("seconds_used") or 0.0),
        "compare_url": record.compare_url,
        "resume_command": f"{command} --resume",
    }
    return Answer(values=values, shown=_shown(values, record), exit_code=0 if best else 1)


def _shown(values: Mapping[str, Any], record: SweepRecord) -> list[object]:
    counts = values["trials"]
    shown: list[object] = [
        terminal_table(ranked([record]), metric=record.metric, top=ROWS_SHOWN),
        f"{counts['complete']} complete, {counts['pruned']} pruned, {counts['failed']} failed, "
        f"{counts['duplicate']} duplicates; {values['epochs_trained']} epochs trained, "
        f"{values['epochs_saved']} saved by pruning; {values['seconds']:.0f} s",
    ]
    if values["best"] is not None:
        shown.append(f"best: trial {values['best']['trial']}, {record.metric} {values['best']['value']:.4f}")
        shown += [f"  {key} = {value}" for key, value in values["best"]["params"].items()]
    return [
        *shown,
        f"curves side by side (after `make ui`): {values['compare_url']}",
        f"next: podium compare {values['sweep']}, then podium confirm {values['sweep']}",
    ]


def _best(records: Sequence[TrialRecord], spec: Sweep) -> TrialRecord | None:
    complete = [record for record in records if record.state == "complete" and record.value is not None]
    pick = max if spec.file.epoch_objective.goal == "maximize" else min
    return pick(complete, key=lambda record: record.value or 0.0, default=None)


def _counts(records: Sequence[TrialRecord]) -> dict[str, int]:
    duplicate = sum("duplicate_of" in record.attributes for record in records)
    counts = {
        state: sum(record.state == state for record in records) for state in ("complete", "pruned", "failed")
    }
    return {**counts, "complete": counts["complete"] - duplicate, "duplicate": duplicate}


def _epochs_saved(records: Sequence[TrialRecord], spec: Sweep) -> int:
    planned = spec.recipe.training.epochs
    return sum(
        int(trained(record).get("epochs_planned") or planned) - len(record.curve)
        for record in records
        if record.state == "pruned"
    )


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
