"""Owns the picture of several objectives: trials by two objectives at a time, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from podium.reporting import ranking, style
from podium.reporting.pareto import BETTER
from podium.sweep_file import ObjectiveSettings

LOG_FROM = 20.0  # times the least value: from there on the greatest one would hide the differences
LABEL_PIXELS = (34.0, 15.0)  # the room that a label takes
FRONT = "on the Pareto front"
# Shape, size and filling tell the kinds apart, and colour only adds to that. The last one is drawn on top.
MARKS: dict[str, dict[str, Any]] = {
    "complete": {"marker": "o", "facecolors": "none", "edgecolors": style.BLUE, "s": 28.0},
    "pruned": {"marker": "v", "facecolors": style.ORANGE, "edgecolors": style.DARK, "s": 34.0},
    "infeasible": {"marker": "D", "facecolors": "none", "edgecolors": style.VERMILION, "s": 34.0},
    FRONT: {"marker": "o", "facecolors": style.BLUE, "edgecolors": style.BLACK, "s": 62.0},
}
NAMES = {"complete": "complete, not on the front", "infeasible": "infeasible (beyond a limit)"}
SMALLER = 0.45  # of a mark's size, in small multiples and with many trials
MANY = 300


def pareto(
    trials: pd.DataFrame, objectives: Sequence[ObjectiveSettings], limits: Mapping[str, int]
) -> Figure:
    """The first objective against the second; with three or four, every pair in a picture of its own.

    trials: columns state, feasible, front, trial and objective.<metric>. Trials that lack one of the
    objectives are left out. With two objectives a step line joins the front: nothing that was found is
    better on both sides of it. `limits`: what a feasible trial keeps within, by metric.
    """
    drawn = trials[drawable(trials, objectives)]
    shown = drawn.assign(kind=_kinds(drawn))
    pairs = list(combinations(objectives, 2))
    across = min(3, len(pairs))
    down = math.ceil(len(pairs) / across)
    figure = style.new_figure(5.2 if len(pairs) == 1 else 3.1 * down + 0.5)
    grid = figure.subplots(down, across, squeeze=False)
    for axes, (vertical, horizontal) in zip(grid.flat, pairs, strict=True):
        small = len(pairs) > 1 or len(shown) >= MANY
        _scatter(axes, shown, vertical, horizontal, size=SMALLER if small else 1.0)
        if len(pairs) == 1:
            _step_line(axes, shown, vertical, horizontal)
        _limit_lines(axes, vertical, horizontal, limits)
        style.finish(axes, x=_label(horizontal, "→←"), y=_label(vertical, "↑↓"))
    if len(pairs) == 1:
        figure.draw_without_rendering()  # labels keep clear of each other in pixels
        _number_front(grid[0, 0], shown, *pairs[0])
    shown_marks = {
        label: handle
        for axes in grid.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if shown_marks:
        figure.legend(
            shown_marks.values(),
            shown_marks.keys(),
            loc="outside lower center",
            ncols=len(shown_marks),
            frameon=False,
            columnspacing=1.4,
        )
    return figure


def drawable(trials: pd.DataFrame, objectives: Sequence[ObjectiveSettings]) -> pd.Series:
    """Which trials have a finite value of every objective."""
    columns = [ranking.OBJECTIVE + each.metric for each in objectives]
    finite = np.isfinite(trials[columns].to_numpy(dtype=float)).all(axis=1)
    return pd.Series(finite, index=trials.index)


def _kinds(trials: pd.DataFrame) -> pd.Series:
    return ranking.shown_states(trials).mask(trials["front"].astype(bool), FRONT)


def _scatter(
    axes: Axes,
    shown: pd.DataFrame,
    vertical: ObjectiveSettings,
    horizontal: ObjectiveSettings,
    *,
    size: float,
) -> None:
    x, y = (ranking.OBJECTIVE + each.metric for each in (horizontal, vertical))
    for place, (kind, mark) in enumerate(MARKS.items()):
        part = shown[shown["kind"] == kind]
        if len(part):
            look = {**mark, "s": mark["s"] * size}
            axes.scatter(
                part[x], part[y], label=NAMES.get(kind, kind), linewidths=1.2, zorder=3 + place, **look
            )
    _scale(axes, shown[x], horizontal, "x", short=size < 1.0)
    _scale(axes, shown[y], vertical, "y", short=size < 1.0)


def _scale(axes: Axes, values: pd.Series, objective: ObjectiveSettings, side: str, *, short: bool) -> None:
    """A logarithmic axis for what spans orders of magnitude; counts in full, or `short` as 10k and 2M."""
    axis = axes.xaxis if side == "x" else axes.yaxis
    spans = len(values) > 0 and values.min() > 0 and values.max() >= LOG_FROM * values.min()
    if spans:
        axes.set(**{f"{side}scale": "log"})
        axis.set_major_locator(
            LogLocator(subs=(1.0, 2.0, 5.0) if values.max() < 200 * values.min() else (1.0,))
        )
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if objective.metric == "parameters":
        axis.set_major_formatter(EngFormatter(sep="") if short else StrMethodFormatter("{x:,.0f}"))
    elif spans:
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _limit_lines(
    axes: Axes, vertical: ObjectiveSettings, horizontal: ObjectiveSettings, limits: Mapping[str, int]
) -> None:
    """Where what is feasible ends; only where trials lie on both sides, so that a far limit squeezes no picture."""
    look: dict[str, Any] = {"color": style.DARK, "linestyle": ":", "linewidth": 1.2, "label": "limit"}
    if horizontal.metric in limits and _lies_within(limits[horizontal.metric], axes.get_xlim()):
        axes.axvline(limits[horizontal.metric], **look)
    if vertical.metric in limits and _lies_within(limits[vertical.metric], axes.get_ylim()):
        axes.axhline(limits[vertical.metric], **look)


def _lies_within(value: float, ends: tuple[float, float]) -> bool:
    return min(ends) < value < max(ends)


def _step_line(
    axes: Axes, shown: pd.DataFrame, vertical: ObjectiveSettings, horizontal: ObjectiveSettings
) -> None:
    x, y = (ranking.OBJECTIVE + each.metric for each in (horizontal, vertical))
    front = shown[shown["kind"] == FRONT].sort_values(x)
    # Between two trials of the front, what was reached is the one that is better horizontally.
    where: Literal["post", "pre"] = "post" if horizontal.goal == "minimize" else "pre"
    axes.step(
        front[x], front[y], where=where, color=style.BLACK, linewidth=1.2, zorder=2.5, label="Pareto front"
    )


def _number_front(
    axes: Axes, shown: pd.DataFrame, vertical: ObjectiveSettings, horizontal: ObjectiveSettings
) -> None:
    """Trial numbers at the side that is better, where nothing feasible lies; those that find no room are left out."""
    x, y = (ranking.OBJECTIVE + each.metric for each in (horizontal, vertical))
    front = shown[shown["kind"] == FRONT].sort_values(x)
    left, up = horizontal.goal == "minimize", vertical.goal == "maximize"
    taken: list[tuple[float, float]] = []
    for row in front.to_dict("records"):
        place = tuple(axes.transData.transform((row[x], row[y])))
        clear = all(
            abs(place[0] - other[0]) > LABEL_PIXELS[0] or abs(place[1] - other[1]) > LABEL_PIXELS[1]
            for other in taken
        )
        if clear:
            taken.append((float(place[0]), float(place[1])))
            axes.annotate(
                str(row["trial"]),
                (row[x], row[y]),
                xytext=(-5 if left else 5, 5 if up else -5),
                textcoords="offset points",
                ha="right" if left else "left",
                va="bottom" if up else "top",
                fontsize=style.FONT_SIZE - 1,
            )


def _label(objective: ObjectiveSettings, arrows: str) -> str:
    """The metric, and where on its axis the better values lie."""
    return f"{objective.metric}, {BETTER[objective.goal]} {arrows[objective.goal == 'minimize']}"
