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
from podium.reporting import report
from podium.reporting.ranking import account, terminal_table
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
    metric = records[0].metric
    shown: list[object] = [terminal_table(ranked, metric=metric, top=top)]
    if len(ranked) > top:
        shown.append(f"the first {top} of {len(ranked)}; --top shows more")
    shown += [_cost(record) for record in records]
    shown.append(f"curves side by side (after `make ui`): {records[0].compare_url}")
    shown.append(
        f"report: {out}"
        if out is not None
        else "report: an artifact of the sweep's run; --report FILE.html writes it"
    )
    return Answer(values=values, shown=shown)


def _records(stores: Stores, names: Sequence[str]) -> list[SweepRecord]:
    if not names:
        return [sweep_record(stores, query.find_parent(stores, None))]
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
    rows = report.ranked([record]).head(top).to_dict("records")
    return {
        "sweep": record.name,
        "parent_run_id": record.parent_run_id,
        "metric": record.metric,
        "trials": spent.states,
        "epochs_trained": spent.epochs_trained,
        "epochs_saved": spent.epochs_saved,
        "hours_spent": spent.hours_spent,
        "hours_saved": spent.hours_saved,
        "ranking": [{key: None if pd.isna(value) else value for key, value in row.items()} for row in rows],
    }


def _cost(record: SweepRecord) -> str:
    spent = account(record.trials)
    saved = "unknown" if spent.hours_saved is None else f"{spent.hours_saved:.2f} h"
    return (
        f"{record.name}: {len(record.trials)} trials, {spent.epochs_trained} epochs in {spent.hours_spent:.2f} h; "
        f"pruning saved {spent.epochs_saved} epochs ({saved})"
    )


def _write(path: Path, page: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from error
