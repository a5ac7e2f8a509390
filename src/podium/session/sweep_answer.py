"""Owns what `podium sweep` answers when it has come to its end: counts, the best trial, what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from podium.answer import Answer
from podium.coordinator.outcomes import trained
from podium.engines.base import Engine, TrialRecord
from podium.reporting import pareto
from podium.reporting.ranking import terminal_table
from podium.reporting.report import ranked
from podium.reporting.sweep_record import SweepRecord
from podium.session.continuation import Study
from podium.session.evidence import sweep_record
from podium.stores import Stores
from podium.sweep_file import Sweep
from podium.tracking.query import side_by_side

ROWS_SHOWN = 20


def sweep_answer(
    spec: Sweep, study: Study, stores: Stores, engine: Engine, parent: str, command: str
) -> Answer:
    """The JSON keys and the text of a sweep that has come to its end, from the study and the runs."""
    records = engine.trials()
    record = sweep_record(stores, parent)
    best = best_trial(records, spec)
    run_ids = dict(zip(record.trials["trial"], record.trials["run_id"], strict=True))
    values = {
        "sweep": spec.file.name,
        "study": study.name,
        "parent_run_id": parent,
        "trials": {"total": len(records), **counts_of(records)},
        "best": None
        if best is None
        else {
            "trial": best.number,
            "run_id": run_ids.get(best.number),
            "value": best.value,
            "params": dict(best.parameters),
        },
        "pareto": pareto.values(record),
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
        *pareto.shown(record),
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
        side_by_side(values["compare_url"]),
        f"next: podium compare {values['sweep']}, then podium confirm {values['sweep']}",
    ]


def best_trial(records: Sequence[TrialRecord], spec: Sweep) -> TrialRecord | None:
    """The best complete, feasible trial by the epoch objective; the first of equal ones."""
    complete = [
        record
        for record in records
        if record.state == "complete" and record.feasible and record.value is not None
    ]
    pick = max if spec.file.epoch_objective.goal == "maximize" else min
    return pick(complete, key=lambda record: record.value or 0.0, default=None)


def counts_of(records: Sequence[TrialRecord]) -> dict[str, int]:
    """Trials by what became of them; a duplicate counts as that alone."""
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
