"""Owns the comparison report: one HTML page of one or several sweeps that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from podium.reporting import ranking, style, sweep_plots
from podium.reporting.sweep_record import SweepRecord

ROWS_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as the page holds it; `uri` is None where there is nothing to draw, and `caption` says why."""

    title: str
    caption: str
    uri: str | None = None


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
        "pictures": _pictures(sweep, table, top),
        "failures": _failures(sweep.trials),
    }


def _is_web_address(address: str | None) -> bool:
    return address is not None and address.startswith(("http://", "https://"))


def _tiles(sweep: SweepRecord, table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Name, number, and what it is, of the figures that a reader looks for first."""
    spent = ranking.account(sweep.trials)
    best = table[table["rank"] == 1]
    states = sorted(spent.states, key=lambda state: ranking.STATE_ORDER.get(state, len(spent.states) + 3))
    words = ", ".join(f"{spent.states[state]} {state}" for state in states)
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


def _table(table: pd.DataFrame, metric: str) -> dict[str, Any]:
    parameters = ranking.parameters_of(table)
    names = style.short_names(parameters)
    several = "sweep" in table.columns
    has_finding = "finding" in table.columns
    rows = [
        {
            "state": str(row["state"]),
            "finding": ranking.cell(row["finding"], absent="") if has_finding else "",
            "diagnosis": ranking.cell(row["diagnosis"]),
            "run_id": ranking.cell(row["run_id"], absent=ranking.MISSING),
            "sweep": row["sweep"] if several else None,
            "cells": [
                ranking.cell(row["rank"], absent=""),
                ranking.cell(row["trial"]),
                ranking.value_cell(row["value"]),
                ranking.epochs_cell(row["epochs"], row["epochs_planned"]),
                ranking.duration(row["seconds"]),
            ],
            "parameters": [ranking.cell(row[f"params.{key}"]) for key in parameters],
        }
        for row in table.to_dict("records")
    ]
    return {
        "several": several,
        "headings": ["rank", "trial", metric, "epochs", "time"],
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


def _failures(trials: pd.DataFrame) -> list[dict[str, str]]:
    """Failed trials, those of the same cause and message together."""
    failed = trials[trials["state"] == "failed"].copy()
    failed["cause"] = failed["cause"].fillna("reason missing")
    failed["message"] = failed["message"].fillna("").map(lambda text: str(text).strip())
    groups = failed.groupby(["cause", "message"], sort=False)["trial"]
    return [
        {
            "cause": str(cause),
            "message": str(message) or "message missing",
            "trials": ", ".join(str(number) for number in sorted(numbers)[:12])
            + (f" and {len(numbers) - 12} more" if len(numbers) > 12 else ""),
            "count": str(len(numbers)),
        }
        for (cause, message), numbers in groups
    ]


def _pictures(sweep: SweepRecord, table: pd.DataFrame, top: int) -> list[Picture]:
    valued = sweep.trials[sweep.trials["value"].notna() & (sweep.trials["state"] != "failed")]
    parameters = _shown_parameters(sweep, valued)
    nothing = None if len(valued) else "No trial has a value, so there is nothing to draw."
    no_parameters = nothing or (None if parameters else "No parameter varies, so there is nothing to draw.")
    no_curves = None if len(sweep.histories) else "No epoch is on record, so there is nothing to draw."
    unimportant = None if sweep.importances is not None and len(sweep.importances) else ""
    return [
        _picture(
            "Learning curves",
            f"The best {top} completed runs in colour, all others grey.",
            no_curves,
            lambda: sweep_plots.learning_curves(sweep.histories, table, metric=sweep.metric, top=top),
        ),
        _picture(
            "Optimisation history",
            "Each trial's best epoch; a pruned trial shows the best that it reached.",
            nothing,
            lambda: sweep_plots.optimisation_history(sweep.trials, metric=sweep.metric, goal=sweep.goal),
        ),
        _picture(
            "Parallel coordinates",
            f"One line a trial, the better the darker{_only_best(valued)}. "
            + _left_out(parameters, valued, sweep_plots.MOST_AXES),
            no_parameters,
            lambda: sweep_plots.parallel_coordinates(
                valued,
                parameters[: sweep_plots.MOST_AXES],
                metric=sweep.metric,
                goal=sweep.goal,
                log=sweep.log_parameters,
            ),
        ),
        _picture(
            "Slices",
            "Each parameter against the objective; circles are complete, triangles pruned. "
            "Marks of one place are moved apart a little. "
            + _left_out(parameters, valued, sweep_plots.MOST_SLICES),
            no_parameters,
            lambda: sweep_plots.slices(
                valued, parameters[: sweep_plots.MOST_SLICES], metric=sweep.metric, log=sweep.log_parameters
            ),
        ),
        _picture(
            "Parameter importance",
            f"By {sweep.importance_evaluator}." if unimportant is None else "",
            None if unimportant is None else f"Missing: {sweep.importance_evaluator}",
            lambda: sweep_plots.importance(_importances(sweep), evaluator=sweep.importance_evaluator),
        ),
    ]


def _picture(title: str, caption: str, nothing: str | None, draw: Callable[[], Figure]) -> Picture:
    if nothing is not None:
        return Picture(title=title, caption=nothing)
    return Picture(title=title, caption=caption.strip(), uri=style.to_data_uri(style.to_png(draw())))


def _importances(sweep: SweepRecord) -> pd.DataFrame:
    assert sweep.importances is not None
    return sweep.importances.nlargest(15, "importance")


def _shown_parameters(sweep: SweepRecord, valued: pd.DataFrame) -> list[str]:
    """Parameters that vary, the most important first where importances are known."""
    varying = [
        key for key in ranking.parameters_of(valued) if valued[f"params.{key}"].nunique(dropna=False) > 1
    ]
    if sweep.importances is None:
        return varying
    known: dict[Any, float] = sweep.importances.set_index("parameter")["importance"].to_dict()
    return sorted(varying, key=lambda key: -known.get(key, 0.0))


def _only_best(valued: pd.DataFrame) -> str:
    most = sweep_plots.MOST_LINES
    return f"; the best {most} in colour, all others grey" if len(valued) > most else ""


def _left_out(parameters: Sequence[str], valued: pd.DataFrame, most: int) -> str:
    constant = [key for key in ranking.parameters_of(valued) if key not in parameters]
    words = []
    if len(parameters) > most:
        words.append(f"{len(parameters) - most} less important parameters are left out.")
    if constant:
        words.append(f"Not shown because they never varied: {', '.join(constant)}.")
    return " ".join(words)


def _side_by_side(sweeps: Sequence[SweepRecord]) -> dict[str, Any]:
    comparable = len({(sweep.metric, sweep.goal) for sweep in sweeps}) == 1
    table = ranked(sweeps)
    picture = Picture(
        title="Best so far", caption="The sweeps differ in objective, so no picture joins them."
    )
    if comparable:
        frames = {sweep.name: sweep.trials for sweep in sweeps}
        first = sweeps[0]
        picture = _picture(
            "Best so far",
            "The best completed trial by hours of training, in the order of trials.",
            None,
            lambda: sweep_plots.best_so_far(frames, metric=first.metric, goal=first.goal),
        )
    return {
        "comparable": comparable,
        "picture": picture,
        "tiles": [
            (sweep, _tiles(sweep, ranking.ranked_table(sweep.trials, goal=sweep.goal))) for sweep in sweeps
        ],
        "table": _table(table, sweeps[0].metric if comparable else "value"),
    }
