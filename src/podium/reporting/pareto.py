"""Owns the Pareto front of a sweep with several objectives, as a table and as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from podium.reporting import failures, ranking
from podium.reporting.sweep_record import SweepRecord
from podium.search_space import short_names
from podium.sweep_file import ObjectiveSettings

BETTER = {"maximize": "higher is better", "minimize": "lower is better"}


def has_front(sweep: SweepRecord) -> bool:
    """Whether the sweep has several objectives, so that its best is a front and no single trial."""
    return len(sweep.objectives) > 1


def front(sweep: SweepRecord) -> pd.DataFrame:
    """The trials on the front, best by the first objective first; no other is better in all objectives."""
    first = sweep.objectives[0]
    shown = sweep.trials[sweep.trials["front"].astype(bool)]
    return shown.sort_values(
        [ranking.OBJECTIVE + first.metric, "trial"], ascending=[first.goal == "minimize", True]
    ).reset_index(drop=True)


def values(sweep: SweepRecord) -> list[dict[str, Any]] | None:
    """The front as plain values: trial, run_id, values by metric, params; None with a single objective."""
    if not has_front(sweep):
        return None
    found = front(sweep)
    parameters = ranking.parameters_of(found)
    return [
        {
            "trial": int(row["trial"]),
            "run_id": row["run_id"],
            "values": {each.metric: float(row[ranking.OBJECTIVE + each.metric]) for each in sweep.objectives},
            "params": {
                key: row[f"params.{key}"] for key in parameters if not _is_missing(row[f"params.{key}"])
            },
        }
        for row in found.to_dict("records")
    ]


def heading(sweep: SweepRecord) -> str:
    """What the front is of: the objectives with the direction that is better, and the limits."""
    words = ", ".join(objective_words(each) for each in sweep.objectives)
    return words + "".join(
        f"; feasible with at most {limit:,} {name}" for name, limit in sweep.limits.items()
    )


def objective_words(objective: ObjectiveSettings) -> str:
    """An objective with the direction that is better."""
    return f"{objective.metric} ({BETTER[objective.goal]})"


def summary(sweep: SweepRecord) -> str:
    """How many trials the front holds, and which trials are no part of it for being infeasible."""
    complete = sweep.trials[sweep.trials["state"] == "complete"]
    beyond = sorted(complete.loc[ranking.shown_states(complete) == "infeasible", "trial"])
    words = f"{int(sweep.trials['front'].sum())} of {len(complete)} complete trials are on the Pareto front"
    if beyond:
        words += f"; {len(beyond)} are infeasible, and therefore not on it: {failures.listed(beyond)}"
    return words + "."


def shown(sweep: SweepRecord) -> list[object]:
    """The front for the terminal: what it is of, its table, its size; nothing with a single objective."""
    if not has_front(sweep):
        return []
    found = front(sweep)
    parameters = ranking.parameters_of(found)
    names = short_names(parameters)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("trial", *(each.metric for each in sweep.objectives), "epochs", "time"):
        table.add_column(title, justify="right", no_wrap=True)
    for key in parameters:
        table.add_column(Text(names[key]), justify="right")
    table.add_column("run", no_wrap=True)
    for row in found.to_dict("records"):
        run_id = ranking.cell(row["run_id"], absent=ranking.MISSING)[:8]
        table.add_row(*(Text(text) for text in (*cells(sweep, row, parameters), run_id)))
    title = f"Pareto front of {sweep.name}: {heading(sweep)}"
    return [title, *([table] if len(found) else []), summary(sweep), ""]


def cells(sweep: SweepRecord, row: Mapping[Any, Any], parameters: list[str]) -> list[str]:
    """A trial of the front: number, objectives, epochs, time, parameters."""
    return [
        ranking.cell(row["trial"]),
        *(
            ranking.objective_cell(each.metric, row[ranking.OBJECTIVE + each.metric])
            for each in sweep.objectives
        ),
        ranking.epochs_cell(row["epochs"], row["epochs_planned"]),
        ranking.duration(row["seconds"]),
        *(ranking.cell(row[f"params.{key}"]) for key in parameters),
    ]


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)
