"""Owns the picture of one run: its training curves."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from podium.reporting.style import BLACK, BLUE, VERMILION, finish, plain

PICTURE_INCHES = (9.0, 3.6)
DOTS_PER_INCH = 100
# Up to so many epochs each one gets a dot; a single epoch would show nothing without.
EPOCHS_WITH_DOTS = 30


def training_curves(history: pd.DataFrame, *, best_epoch: int | None, title: str) -> Figure:
    """Loss and accuracy over epochs, of training and validation, 900 pixels wide.

    history: columns epoch, loss, val_loss, accuracy, val_accuracy; a missing column is left out.
    `best_epoch` is marked in both panels.
    """
    figure = Figure(figsize=PICTURE_INCHES, dpi=DOTS_PER_INCH)
    left, right = figure.subplots(1, 2)
    _panel(left, history, "loss", best_epoch)
    _panel(right, history, "accuracy", best_epoch)
    right.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    figure.suptitle(plain(title), fontsize=12)
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.14, top=0.83, wspace=0.2)
    return figure


def _panel(axes: Axes, history: pd.DataFrame, metric: str, best_epoch: int | None) -> None:
    marker = "o" if len(history) <= EPOCHS_WITH_DOTS else ""
    curves = ((metric, "training", BLUE, "--"), (f"val_{metric}", "validation", VERMILION, "-"))
    for column, label, colour, line in curves:
        if column in history:
            axes.plot(
                history["epoch"],
                history[column],
                line,
                marker=marker,
                markersize=4,
                linewidth=1.8,
                color=colour,
                label=label,
            )
    if best_epoch is not None:
        axes.axvline(
            best_epoch, color=BLACK, linestyle=":", linewidth=1.2, label=f"best epoch ({best_epoch})"
        )
    finish(axes, title=metric.capitalize(), x="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=9, frameon=False)
