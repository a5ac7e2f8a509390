"""Owns `podium compare`: a ranked table, and one HTML page that opens from disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from podium.answer import Answer
from podium.errors import InvalidInput
from podium.reporting import checks, failures, pareto, report
from podium.reporting.ranking import account, terminal_account, terminal_table
from podium.reporting.sweep_record import SweepRecord
from podium.session.evidence import runs_record, sweep_record
from podium.stores import Stores, stores_here
from podium.tracking import query
from podium.tracking.artifacts import log_text

REPORT_NAME = "report.html"


def compare(names: Sequence[str], *, top: int, out: Path | None) -> Answer:
    """Compare sweeps (by name or parent run), or single runs; the latest sweep if none is named."""
    stores = stores_here()
    records = _records(stores, names)
    ranked = report.ranked(records)
    written = time.strftime("%Y-%m-%d %H:%M")
    page = report.render(records, written=written, top=top)
    for record in records:
        if record.parent_run_id is not None:
            log_text(stores, record.parent_run_id, page, REPORT_NAME)
    if out is not None:
        _write(out, page)
    values = {
        "sweeps": [_summary(record, top) for record in records],
        "report": str(out) if out is not None else None,
        "compare_url": records[0].compare_url,
    }
    shown = _shown(records, ranked, top)
    if records[0].compare_url is not None:
        shown.append(query.side_by_side(records[0].compare_url))
    shown.append(
        f"report: {out}"
        if out is not None
        else "report: an artifact of the sweep's run; --report FILE.html writes it"
    )
    return Answer(values=values, shown=shown)


def _shown(records: Sequence[SweepRecord], ranked: pd.DataFrame, top: int) -> list[object]:
    """Fronts, the ranked trials, what failed, and what the sweeps cost."""
    shown: list[object] = [part for record in records for part in pareto.shown(record)]
    shown.append(terminal_table(ranked, metric=records[0].metric, top=top))
    if len(ranked) > top:
        shown.append(f"the first {top} of {len(ranked)}; --top shows more")
    for record in records:
        table = checks.terminal_checks(report.ranked([record]), top=top)
        if table is not None:
            shown += ["", *([f"{record.name}:"] if len(records) > 1 else []), table]
    for record in records:
        failed = failures.terminal_failures(record.trials, top=top)
        if failed is not None:
            shown += ["", *([f"{record.name}:"] if len(records) > 1 else []), failed]
    return [*shown, "", terminal_account({record.name: record.trials for record in records}), ""]


def _records(stores: Stores, names: Sequence[str]) -> list[SweepRecord]:
    if not names:
        return [sweep_record(stores, query.find_parent(stores, None))]
    names = [query.whole_run_id(stores, name) for name in names]
    single = [name for name in names if query.is_single_run(stores, name)]
    if single and len(single) < len(names):
        raise InvalidInput("sweeps and single runs cannot be compared in one table.", remedy="Name one kind.")
    if single:
        return [runs_record(stores, single)]
    records = [sweep_record(stores, query.find_parent(stores, name)) for name in names]
    taken: dict[str, int] = {}
    unique = []
    for record in records:
        taken[record.name] = taken.get(record.name, 0) + 1
        unique.append(record if taken[record.name] == 1 else _renamed(record, taken[record.name]))
    return unique


def _renamed(record: SweepRecord, number: int) -> SweepRecord:
    return replace(record, name=f"{record.name} ({number})")


def _summary(record: SweepRecord, top: int) -> dict[str, Any]:
    spent = account(record.trials)
    failed = record.trials[record.trials["state"] == "failed"]
    return {
        "sweep": record.name,
        "parent_run_id": record.parent_run_id,
        "metric": record.metric,
        "objectives": [each.model_dump() for each in record.objectives] or None,
        "trials": spent.states,
        "infeasible": spent.infeasible,
        "failures": spent.causes,
        "epochs_trained": spent.epochs_trained,
        "epochs_saved": spent.epochs_saved,
        "hours_spent": spent.hours_spent,
        "hours_saved": spent.hours_saved,
        "pareto": pareto.values(record),
        "ranking": _rows(report.ranked([record]).drop(columns="checks", errors="ignore").head(top)),
        "checks": _checks(record),
        "failed": _rows(failed[["trial", "run_id", "cause", "message"]]),
    }


def _checks(record: SweepRecord) -> list[dict[str, Any]]:
    return [
        {
            "trial": trial,
            "passed": all(each.passed for each in found),
            "checks": [
                {
                    "name": each.name,
                    "value": each.value,
                    "bound": each.bound,
                    "limit": each.limit,
                    "passed": each.passed,
                }
                for each in found
            ],
        }
        for trial, found in checks.of_trials(record.trials)
    ]


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(key): None if pd.isna(value) else value for key, value in row.items()}
        for row in frame.to_dict("records")
    ]


def _write(path: Path, page: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from error
