"""Owns the picture of replayed searches: best value against epochs spent, and all methods at a fifth of them."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from search_methods import Methods
from search_summary import Target

from podium.reporting.style import BLUE, DARK, GREY, ORANGE, finish, line_styles, new_figure, plain

CURVES_INCHES, METHOD_INCHES = 5.0, 0.36


def picture(curves: pd.DataFrame, summary: pd.DataFrame, methods: Methods, target: Target) -> Figure:
    """`curves` and `summary` as search_summary gives them; bands and bars span the middle half of the repeats."""
    inches = METHOD_INCHES * (len(summary) + 2)
    figure = new_figure(CURVES_INCHES + inches)
    above, below = figure.subplots(2, 1, height_ratios=(CURVES_INCHES, inches))
    _against_epochs(above, curves, methods, target)
    _at_fifth(below, summary, methods, target)
    return figure


def _against_epochs(axes: Axes, curves: pd.DataFrame, methods: Methods, target: Target) -> None:
    compared = [each.other for each in target.comparisons]
    shown = list(dict.fromkeys([methods.default, methods.unpruned_tpe, *compared]))
    for name, style in zip(shown, line_styles(len(shown)), strict=True):
        rows = curves[curves["method"] == name]
        label = plain(name + _mark(name, methods))
        axes.plot(rows["epochs"], 100 * rows["mean"], label=label, drawstyle="steps-post", **style)
        if name in (methods.default, methods.unpruned_tpe):
            axes.fill_between(
                rows["epochs"],
                100 * rows["q25"],
                100 * rows["q75"],
                step="post",
                color=style["color"],
                alpha=0.15,
                linewidth=0,
            )
    axes.axhline(100 * target.final, color=GREY, linewidth=1)
    axes.axvline(target.epochs, color=GREY, linewidth=1)
    axes.legend(frameon=False, loc="lower right")
    finish(
        axes,
        title="Best validation accuracy so far: mean over repeats, band: middle half",
        x="epochs trained, over all trials",
        y="val_accuracy %",
    )


def _at_fifth(axes: Axes, summary: pd.DataFrame, methods: Methods, target: Target) -> None:
    rows = summary[summary["fifth_mean"].notna()].iloc[::-1].reset_index(drop=True)
    for place, (_, row) in enumerate(rows.iterrows()):
        colour = {methods.default: BLUE, methods.unpruned_tpe: ORANGE}.get(row["method"], DARK)
        axes.plot([row["fifth_q25"], row["fifth_q75"]], [place, place], color=colour, linewidth=2)
        axes.plot([row["fifth_mean"]], [place], "o", color=colour)
    axes.axvline(100 * target.final, color=GREY, linewidth=1)
    axes.set_ylim(-0.8, len(rows) - 0.2)
    axes.set_yticks(
        range(len(rows)), [plain(_in_lines(name) + _mark(name, methods)) for name in rows["method"]]
    )
    finish(
        axes,
        title=f"After {target.epochs} epochs: mean and middle half; line: {methods.unpruned_tpe} at the end",
        x="best val_accuracy so far %",
    )


def _mark(name: str, methods: Methods) -> str:
    return " (default)" if name == methods.default else ""


def _in_lines(name: str) -> str:
    """A method with options on two lines: one would take half of the picture."""
    return name.replace(" (", "\n(")
