"""Owns the comparison report: one HTML page of one or several sweeps that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from podium.reporting import checks, failures, pareto, pictures, ranking, sweep_plots
from podium.reporting.pictures import Picture
from podium.reporting.sweep_record import SweepRecord
from podium.search_space import short_names

ROWS_SHOWN = 20


def ranked(sweeps: Sequence[SweepRecord]) -> pd.DataFrame:
    """The ranked table of one sweep, or of several together, with a column `sweep`.

    Sweeps that differ in metric or goal are ranked each by itself, one after the other.
    Raises: ValueError if two have the same name.
    """
    names = [sweep.name for sweep in sweeps]
    if len(set(names)) < len(names):
        raise ValueError(f"sweeps side by side need names of their own, got {', '.join(names)}.")
    frames = [sweep.trials.assign(sweep=sweep.name) for sweep in sweeps]
    if len({(sweep.metric, sweep.goal) for sweep in sweeps}) > 1:
        tables = [
            ranking.ranked_table(frame, goal=sweep.goal) for frame, sweep in zip(frames, sweeps, strict=True)
        ]
        return pd.concat(tables, ignore_index=True)
    return ranking.ranked_table(pd.concat(frames, ignore_index=True), goal=sweeps[0].goal)


def render(sweeps: Sequence[SweepRecord], *, written: str, top: int = 5) -> str:
    """The page as HTML. `written` is the time that it shows, `top` how many runs its curves highlight."""
    environment = Environment(
        loader=PackageLoader("podium", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    together = _side_by_side(sweeps) if len(sweeps) > 1 else None
    return environment.get_template("report.html").render(
        title=sweeps[0].name if len(sweeps) == 1 else f"{len(sweeps)} sweeps side by side",
        written=written,
        together=together,
        sections=[_section(sweep, top) for sweep in sweeps],
    )


def _section(sweep: SweepRecord, top: int) -> dict[str, Any]:
    table = ranking.ranked_table(sweep.trials, goal=sweep.goal)
    return {
        "sweep": sweep,
        "link": sweep.compare_url if _is_web_address(sweep.compare_url) else None,
        "tiles": _tiles(sweep, table),
        "notes": _notes(ranking.account(sweep.trials)),
        "table": _table(table, sweep.metric),
        "findings": _findings(table, top),
        "checks": checks.table(table),
        "front": _front(sweep) if pareto.has_front(sweep) else None,
        "pictures": pictures.pictures(sweep, table, top),
        "causes": failures.by_cause(sweep.trials),
        "failures": [(each, failures.listed(each.trials)) for each in failures.alike(sweep.trials)],
    }


def _is_web_address(address: str | None) -> bool:
    return address is not None and address.startswith(("http://", "https://"))


def _tiles(sweep: SweepRecord, table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Name, number, and what it is, of the figures that a reader looks for first."""
    spent = ranking.account(sweep.trials)
    best = table[table["rank"] == 1]
    states = {str(state): int(count) for state, count in table["state"].value_counts().items()}
    order = sorted(states, key=lambda state: ranking.STATE_ORDER.get(state, len(states) + 3))
    words = ", ".join(f"{states[state]} {state}" for state in order)
    best_words = f"trial {best['trial'].iloc[0]}" if len(best) else "no trial is complete"
    best_value = ranking.value_cell(best["value"].iloc[0] if len(best) else None)
    hours_saved = ranking.MISSING if spent.hours_saved is None else f"{spent.hours_saved:.2f}"
    return [
        (f"best {sweep.metric}", best_value, best_words),
        ("trials", str(len(sweep.trials)), words),
        ("hours of training", f"{spent.hours_spent:.2f}", "over all workers"),
        ("epochs trained", str(spent.epochs_trained), f"{spent.epochs_saved} saved by pruning"),
        ("hours saved by pruning", hours_saved, "reckoned from each trial's seconds an epoch"),
    ]


def _notes(spent: ranking.Account) -> list[str]:
    notes = []
    if spent.without_seconds:
        notes.append(f"Trials whose time is missing, and not in the hours: {spent.without_seconds}.")
    if spent.without_epochs:
        notes.append(f"Trials whose epochs are missing, and not in the sums: {spent.without_epochs}.")
    return notes


def _front(sweep: SweepRecord) -> dict[str, Any]:
    """The Pareto front: its table, what it is of, and its picture."""
    found = pareto.front(sweep)
    parameters = ranking.parameters_of(found)
    names = short_names(parameters)
    return {
        "heading": pareto.heading(sweep),
        "summary": pareto.summary(sweep),
        "headings": ["trial", *(each.metric for each in sweep.objectives), "epochs", "time"],
        "parameters": [(key, names[key]) for key in parameters],
        "rows": [
            {
                "cells": pareto.cells(sweep, row, parameters),
                "run_id": ranking.cell(row["run_id"], absent=ranking.MISSING),
            }
            for row in found.to_dict("records")
        ],
        "picture": pictures.pareto_picture(sweep),
    }


def _table(table: pd.DataFrame, metric: str) -> dict[str, Any]:
    parameters, others = ranking.parameters_of(table), ranking.further_objectives(table, metric)
    on_front, failed = "front" in table.columns, bool(table["cause"].notna().any())
    names = short_names(parameters)
    several = "sweep" in table.columns
    has_finding = "finding" in table.columns
    rows = [
        {
            "state": str(row["state"]),
            "finding": ranking.cell(row["finding"], absent="") if has_finding else "",
            "diagnosis": ranking.cell(row["diagnosis"]),
            "run_id": ranking.cell(row["run_id"], absent=ranking.MISSING),
            "sweep": row["sweep"] if several else None,
            "cause": ranking.cell(row["cause"], absent=""),
            "cells": [
                ranking.cell(row["rank"], absent=""),
                *([ranking.front_cell(row["front"])] if on_front else []),
                ranking.cell(row["trial"]),
                ranking.value_cell(row["value"]),
                *(ranking.objective_cell(name, row[ranking.OBJECTIVE + name]) for name in others),
                ranking.epochs_cell(row["epochs"], row["epochs_planned"]),
                ranking.duration(row["seconds"]),
            ],
            "parameters": [ranking.cell(row[f"params.{key}"]) for key in parameters],
        }
        for row in table.to_dict("records")
    ]
    return {
        "several": several,
        "failed": failed,
        "headings": ["rank", *(["front"] if on_front else []), "trial", metric, *others, "epochs", "time"],
        "parameters": [(key, names[key]) for key in parameters],
        "first": rows[:ROWS_SHOWN],
        "rest": rows[ROWS_SHOWN:],
    }


def _findings(table: pd.DataFrame, top: int) -> list[dict[str, str]]:
    if not {"finding", "remedy"} <= set(table.columns):
        return []
    best = table[table["rank"].notna() & table["finding"].notna()].head(top)
    return [
        {name: str(row[name]) for name in ("trial", "diagnosis", "finding", "remedy")}
        for row in best.to_dict("records")
    ]


def _side_by_side(sweeps: Sequence[SweepRecord]) -> dict[str, Any]:
    comparable = len({(sweep.metric, sweep.goal) for sweep in sweeps}) == 1
    table = ranked(sweeps)
    picture = Picture(
        title="Best so far", caption="The sweeps differ in objective, so no picture joins them."
    )
    if comparable:
        frames = {
            sweep.name: sweep.trials.assign(state=ranking.shown_states(sweep.trials)) for sweep in sweeps
        }
        first = sweeps[0]
        picture = pictures.picture(
            "Best so far",
            "The best completed trial by hours of training, in the order of trials.",
            None,
            lambda: sweep_plots.best_so_far(frames, metric=first.metric, goal=first.goal),
        )
    counts = [failures.by_cause(sweep.trials) for sweep in sweeps]
    tiles = [_tiles(sweep, ranking.ranked_table(sweep.trials, goal=sweep.goal)) for sweep in sweeps]
    return {
        "comparable": comparable,
        "picture": picture,
        "tiles": list(zip(sweeps, tiles, counts, strict=True)),
        "causes": list(dict.fromkeys(cause for each in counts for cause in each)),
        "table": _table(table, sweeps[0].metric if comparable else "value"),
    }
