"""Owns the figures of a sweep: curves, history, parallel coordinates, slices, importance.

Every function takes a trials frame (`reporting.report` lists the columns) and returns a figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from podium.reporting import style
from podium.reporting.axis_scale import AxisScale, with_place_for_missing
from podium.result import Goal
from podium.search_space import short_names

STATE_MARKS: dict[str, dict[str, Any]] = {  # colour and shape both tell the state
    "complete": {"color": style.BLUE, "marker": "o"},
    "infeasible": {"facecolors": "none", "edgecolors": style.VERMILION, "marker": "D"},
    "pruned": {"color": style.ORANGE, "marker": "v"},
    "running": {"color": style.GREEN, "marker": "s"},
    "failed": {"color": style.VERMILION, "marker": "x"},
}
MOST_SLICES = 12
MOST_AXES = 8
MOST_LINES = 60  # in colour; with more of them none can be followed
MANY = 300  # trials, from which on their marks are smaller


def learning_curves(histories: pd.DataFrame, ranked: pd.DataFrame, *, metric: str, top: int = 5) -> Figure:
    """The objective's metric and both losses by epoch: the `top` runs in colour, all others grey."""
    figure = style.new_figure(4.4)
    left, right = figure.subplots(1, 2)
    best = ranked[ranked["state"] == "complete"].head(top)
    numbers = dict(zip(ranked["run_id"], ranked["trial"], strict=True))
    curves = {run: one.sort_values("epoch") for run, one in histories.groupby("run_id", sort=False)}
    for axes, column in ((left, metric), (right, "val_loss")):
        others = [_points(one, column) for run, one in curves.items() if run not in set(best["run_id"])]
        opacity = min(0.8, max(0.15, 30 / max(len(others), 1)))
        axes.add_collection(LineCollection(others, colors=style.GREY, linewidths=0.8, alpha=opacity))
        for line, run in zip(style.line_styles(len(best)), best["run_id"], strict=True):
            if run in curves:
                points = _points(curves[run], column)
                label = f"trial {numbers[run]}"
                marker = "o" if len(points) == 1 else None
                axes.plot(points[:, 0], points[:, 1], linewidth=1.8, label=label, marker=marker, **line)
        axes.autoscale_view()
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.finish(left, title=f"{metric} by epoch", x="epoch", y=metric)
    style.finish(right, title="Validation loss by epoch", x="epoch", y="val_loss")
    _without_outliers(right, histories["val_loss"])
    if metric.endswith("loss"):
        _without_outliers(left, histories[metric])
    handles, labels = left.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def optimisation_history(trials: pd.DataFrame, *, metric: str, goal: Goal) -> Figure:
    """Each trial's value in the order of trials, and the best so far among completed ones."""
    figure = style.new_figure(3.8)
    axes = figure.subplots()
    ordered = trials.sort_values("trial")
    for state, mark in STATE_MARKS.items():
        part = ordered[(ordered["state"] == state) & ordered["value"].notna()]
        if len(part):
            axes.scatter(part["trial"], part["value"], s=_mark_size(ordered), alpha=0.85, label=state, **mark)
    complete = ordered[(ordered["state"] == "complete") & ordered["value"].notna()]
    if len(complete):
        so_far = complete["value"].cummax() if goal == "maximize" else complete["value"].cummin()
        # The line goes on to the last trial, whether that one is complete or not.
        places = [*complete["trial"], ordered["trial"].iloc[-1]]
        values = [*so_far, so_far.iloc[-1]]
        axes.step(places, values, where="post", color=style.BLACK, linewidth=1.4, label="best so far")
    valueless = ordered[ordered["value"].isna() & (ordered["state"] == "failed")]
    if len(valueless):
        foot = axes.get_xaxis_transform()  # they have a place in the order of trials, and none in height
        mark = STATE_MARKS["failed"]
        axes.scatter(
            valueless["trial"],
            [0.03] * len(valueless),
            s=_mark_size(ordered),
            transform=foot,
            label="failed, without a value",
            **mark,
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if metric.endswith("loss"):
        _without_outliers(axes, ordered["value"])
    style.finish(axes, x="trial", y=metric)
    _legend_below(figure, axes)
    return figure


def best_so_far(sweeps: Mapping[str, pd.DataFrame], *, metric: str, goal: Goal) -> Figure:
    """The best value of several sweeps by hours of training, side by side in one picture."""
    figure = style.new_figure(3.8)
    axes = figure.subplots()
    for line, (name, trials) in zip(style.line_styles(len(sweeps)), sweeps.items(), strict=True):
        ordered = trials.sort_values("trial")
        hours = ordered["seconds"].fillna(0).cumsum() / 3600
        complete = (ordered["state"] == "complete") & ordered["value"].notna()
        value = ordered.loc[complete, "value"]
        so_far = value.cummax() if goal == "maximize" else value.cummin()
        axes.step(
            hours[complete], so_far, where="post", linewidth=1.8, label=style.shortened(name, 40), **line
        )
        axes.plot(hours[complete].tail(1), so_far.tail(1), "o", color=line["color"])
    style.finish(axes, x="hours of training, over all workers", y=f"best {metric} so far")
    _legend_below(figure, axes)
    return figure


def parallel_coordinates(
    trials: pd.DataFrame,
    parameters: Sequence[str],
    *,
    metric: str,
    goal: Goal,
    log: frozenset[str] = frozenset(),
) -> Figure:
    """One line a trial across its parameters and its value, the best `MOST_LINES` in colour.

    The best is the darkest. A parameter that a trial lacks is at "not set".
    """
    shown = trials[trials["value"].notna() & (trials["state"] != "failed")]
    shown = shown.sort_values("value", ascending=goal == "maximize")
    figure = style.new_figure(4.6)
    axes = figure.subplots()
    names = short_names(parameters)
    columns = [*parameters, metric]
    scales = [AxisScale.of(shown[f"params.{key}"], log=key in log) for key in parameters]
    scales.append(AxisScale.of(shown["value"]))
    heights = np.column_stack(
        [
            scale.positions(shown["value"] if key == metric else shown[f"params.{key}"])
            for key, scale in zip(columns, scales, strict=True)
        ]
    )
    lines = [np.column_stack([np.arange(len(columns)), row]) for row in heights]
    others, lines = lines[:-MOST_LINES], lines[-MOST_LINES:]
    axes.add_collection(LineCollection(others, colors=style.GREY, linewidths=0.5, alpha=0.3))
    colours = style.COLOUR_MAP if goal == "maximize" else style.COLOUR_MAP_REVERSED
    bundle = LineCollection(lines, cmap=colours, linewidths=np.linspace(0.8, 1.8, len(lines)), alpha=0.8)
    drawn = shown["value"].tail(MOST_LINES)
    bundle.set_array(drawn.to_numpy(dtype=float))
    # The worst quarter shares one colour, so that the good ones differ.
    worst, best = drawn.quantile(0.25 if goal == "maximize" else 0.75), drawn.iloc[-1]
    bundle.set_norm(Normalize(min(worst, best), max(worst, best, min(worst, best) + 1e-12)))
    axes.add_collection(bundle)
    for index, scale in enumerate(scales):
        axes.axvline(index, color=style.DARK, linewidth=1)
        for height, label in scale.ticks(with_missing=bool((heights[:, index] < -0.1).any())):
            axes.annotate(
                style.plain(style.shortened(label, 14)),
                (index, height),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=style.FONT_SIZE - 2,
                va="center",
                bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
            )
    labels = [style.plain(names.get(key, key)).replace("_", "_\u200b") for key in columns]
    axes.set_xticks(range(len(columns)), [_wrapped(label) for label in labels], fontsize=style.FONT_SIZE - 1)
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(columns) - 0.55)
    axes.set_ylim(-0.2, 1.06)
    axes.spines[:].set_visible(False)
    extend = "min" if goal == "maximize" else "max"
    figure.colorbar(
        bundle, ax=axes, label=style.plain(metric), pad=0.01, fraction=0.03, extend=extend, aspect=30
    )
    return figure


def slices(
    trials: pd.DataFrame, parameters: Sequence[str], *, metric: str, log: frozenset[str] = frozenset()
) -> Figure:
    """The value against each parameter, one small picture each; later trials are darker."""
    shown = trials[trials["value"].notna() & (trials["state"] != "failed")]
    names = short_names(parameters)
    columns = min(3, len(parameters))
    rows = math.ceil(len(parameters) / columns)
    figure = style.new_figure(2.7 * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    numbers = Normalize(shown["trial"].min(), max(shown["trial"].max(), shown["trial"].min() + 1))
    dots: Any = None
    for index, axes in enumerate(grid.flat):
        if index >= len(parameters):
            axes.set_visible(False)
            continue
        key = parameters[index]
        values = with_place_for_missing(shown[f"params.{key}"])
        part = shown.loc[values.index]
        scale = AxisScale.of(values, log=key in log)
        for state, marker in (("pruned", "v"), ("complete", "o")):
            one = part[part["state"] == state]
            dots = axes.scatter(
                scale.spread(values.loc[one.index]),
                one["value"],
                c=one["trial"],
                norm=numbers,
                cmap=style.COLOUR_MAP,
                marker=marker,
                s=_mark_size(shown),
                alpha=0.9,
                linewidths=0.3 if len(shown) < MANY else 0.0,
                edgecolors=style.DARK,
            )
        scale.apply_to(axes)
        style.finish(axes, x=style.shortened(names[key], 32), y=metric if index % columns == 0 else "")
    if metric.endswith("loss"):
        _without_outliers(grid[0, 0], shown["value"])
    figure.colorbar(dots, ax=grid, label="trial", pad=0.01, fraction=0.03, aspect=40)
    return figure


def importance(importances: pd.DataFrame, *, evaluator: str) -> Figure:
    """Bars of columns `parameter` and `importance`, the greatest on top; the evaluator's name below."""
    ordered = importances.sort_values("importance")
    figure = style.new_figure(0.34 * len(ordered) + 1.1)
    axes = figure.subplots()
    bars = axes.barh(
        [style.plain(style.shortened(name, 40)) for name in ordered["parameter"]],
        ordered["importance"],
        color=style.BLUE,
        height=0.65,
    )
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=style.FONT_SIZE - 1)
    axes.margins(x=0.08)
    style.finish(axes, x=f"importance ({evaluator})")
    axes.grid(visible=False, axis="y")
    return figure


def _points(history: pd.DataFrame, column: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    points: np.ndarray[Any, np.dtype[np.float64]] = history[["epoch", column]].to_numpy(dtype=float)
    finite = np.isfinite(points).all(axis=1)
    return np.asarray(points[finite], dtype=float)


def _without_outliers(axes: Axes, values: pd.Series) -> None:
    """Limit a loss axis to what can be read: one exploded run would flatten all others."""
    finite = values[np.isfinite(values.to_numpy(dtype=float))]
    if len(finite) > 4:
        low, middle, high = finite.quantile([0.0, 0.5, 0.98])
        if finite.max() > high + 3 * (high - middle):
            margin = 0.05 * (high - low)
            axes.set_ylim(low - margin, high + margin)


def _mark_size(trials: pd.DataFrame) -> float:
    """In square points."""
    return 26.0 if len(trials) < MANY else 10.0


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False)


def _wrapped(label: str, longest: int = 14) -> str:
    """A parameter's name over two lines, broken at an underscore, if it is long."""
    label = label.replace("\u200b", "")
    if len(label) <= longest or "_" not in label:
        return style.shortened(label, 18)
    parts = label.split("_")
    cut = min(range(1, len(parts)), key=lambda i: abs(len("_".join(parts[:i])) - len(label) / 2))
    return "_".join(parts[:cut]) + "_\n" + "_".join(parts[cut:])
