"""Owns which pictures the report holds of a sweep, and what is said below each or in place of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from podium.reporting import pareto_plots, ranking, style, sweep_plots
from podium.reporting.sweep_record import SweepRecord


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as the page holds it; `uri` is None where there is nothing to draw, and `caption` says why."""

    title: str
    caption: str
    uri: str | None = None


def pictures(sweep: SweepRecord, table: pd.DataFrame, top: int) -> list[Picture]:
    """All pictures of a sweep, in the page's order. `table`: its ranked trials."""
    trials = sweep.trials.assign(state=ranking.shown_states(sweep.trials))
    valued = trials[trials["value"].notna() & ~trials["state"].isin(("failed", "infeasible"))]
    infeasible = " Infeasible trials are left out." if (trials["state"] == "infeasible").any() else ""
    parameters = _shown_parameters(sweep, valued)
    nothing = None if len(valued) else "No trial has a value, so there is nothing to draw."
    no_parameters = nothing or (None if parameters else "No parameter varies, so there is nothing to draw.")
    no_curves = None if len(sweep.histories) else "No epoch is on record, so there is nothing to draw."
    unimportant = None if sweep.importances is not None and len(sweep.importances) else ""
    return [
        picture(
            "Learning curves",
            f"The best {top} completed runs in colour, all others grey.",
            no_curves,
            lambda: sweep_plots.learning_curves(sweep.histories, table, metric=sweep.metric, top=top),
        ),
        picture(
            "Optimisation history",
            "Each trial's best epoch; a pruned trial shows the best that it reached.",
            nothing,
            lambda: sweep_plots.optimisation_history(trials, metric=sweep.metric, goal=sweep.goal),
        ),
        picture(
            "Parallel coordinates",
            f"One line a trial, the better the darker{_only_best(valued)}.{infeasible} "
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
        picture(
            "Slices",
            "Each parameter against the objective; circles are complete, triangles pruned. "
            f"Marks of one place are moved apart a little.{infeasible} "
            + _left_out(parameters, valued, sweep_plots.MOST_SLICES),
            no_parameters,
            lambda: sweep_plots.slices(
                valued, parameters[: sweep_plots.MOST_SLICES], metric=sweep.metric, log=sweep.log_parameters
            ),
        ),
        picture(
            "Parameter importance",
            f"By {sweep.importance_evaluator}." if unimportant is None else "",
            None if unimportant is None else f"Missing: {sweep.importance_evaluator}",
            lambda: sweep_plots.importance(_importances(sweep), evaluator=sweep.importance_evaluator),
        ),
    ]


def pareto_picture(sweep: SweepRecord) -> Picture:
    """Where the trials of a sweep with several objectives lie."""
    valued = pareto_plots.drawable(sweep.trials, sweep.objectives)
    without = int((~valued & (sweep.trials["state"] != "running")).sum())
    two = len(sweep.objectives) == 2
    caption = (
        "Numbers are those of the trials on the front; the line parts what was reached from what was not."
        if two
        else "Every pair of objectives. A trial of the front need not stand out in each of them."
    )
    if without:
        caption += f" Not shown, for lack of a value: {without} of {len(sweep.trials)} trials."
    return picture(
        "Objectives against each other",
        caption,
        None if valued.any() else "No trial has a value of every objective, so there is nothing to draw.",
        lambda: pareto_plots.pareto(sweep.trials, sweep.objectives, sweep.limits),
    )


def picture(title: str, caption: str, nothing: str | None, draw: Callable[[], Figure]) -> Picture:
    """A figure for the page; it is not drawn where `nothing` says why there is none."""
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
