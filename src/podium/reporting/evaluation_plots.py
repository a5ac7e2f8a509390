"""Owns the pictures of a test: which class was taken for which, and some images with what was predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from podium.reporting.style import BLACK, FONT_SIZE, finish, new_figure, plain, shortened

# Up to so many classes the cells hold their counts and the axes all names.
CLASSES_WITH_NUMBERS = 20
MOST_NAMES = 40
COLUMNS = 5
# Green and red as the guide has them, but told apart by lightness and by the sign in front too.
RIGHT, WRONG = "#007A33", "#C00000"


@dataclass(frozen=True, kw_only=True)
class Example:
    """One test image with its true and its predicted class. image: uint8 (height, width, 3)."""

    image: NDArray[np.uint8]
    label: str
    predicted: str
    confidence: float


def confusion_matrix(confusion: NDArray[np.int64], class_names: Sequence[str], *, title: str) -> Figure:
    """The confusion matrix as a picture; colours are shares of the true class, numbers are images.

    confusion: (classes, classes), rows are the true class.
    """
    count = len(class_names)
    size = min(12.0, max(6.0, 2.0 + 0.62 * count))
    figure = new_figure(size * 0.92, size)
    axes = figure.subplots()
    totals = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    shares = confusion / totals
    picture = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    finish(axes, title=title, x="predicted class", y="true class")
    axes.grid(visible=False)
    step = max(1, math.ceil(count / MOST_NAMES))
    places = range(0, count, step)
    names = [plain(shortened(class_names[place], 14)) for place in places]
    size_of_names = FONT_SIZE - 1 if count <= CLASSES_WITH_NUMBERS else FONT_SIZE - 3
    upright = max(len(name) for name in names) > 3
    axes.set_xticks(places, names, rotation=90 if upright else 0, fontsize=size_of_names)
    axes.set_yticks(places, names, fontsize=size_of_names)
    if count <= CLASSES_WITH_NUMBERS:
        for row, column in np.ndindex(*confusion.shape):
            if confusion[row, column]:
                colour = "white" if shares[row, column] > 0.5 else BLACK
                axes.text(
                    column,
                    row,
                    str(confusion[row, column]),
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize=FONT_SIZE - 1,
                )
    bar = figure.colorbar(picture, ax=axes, shrink=0.75)
    bar.set_label("share of the true class", fontsize=FONT_SIZE)
    return figure


def prediction_grid(examples: Sequence[Example], *, title: str) -> Figure:
    """Images with true and predicted class and confidence: right ones green with ✓, wrong ones red with ✗."""
    rows = math.ceil(len(examples) / COLUMNS)
    figure = new_figure(2.35 * rows + 0.5)
    grid = np.atleast_1d(figure.subplots(rows, COLUMNS, squeeze=False)).ravel()
    for axes in grid[len(examples) :]:
        axes.set_axis_off()
    for axes, example in zip(grid, examples, strict=False):
        _draw(axes, example)
    figure.suptitle(plain(title), fontsize=FONT_SIZE + 1)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    return figure


def _draw(axes: Axes, example: Example) -> None:
    right = example.label == example.predicted
    colour, sign = (RIGHT, "✓") if right else (WRONG, "✗")
    axes.imshow(example.image, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    axes.add_patch(
        Rectangle(
            (0, 0),
            1,
            1,
            transform=axes.transAxes,
            fill=False,
            clip_on=False,
            edgecolor=colour,
            linewidth=3,
            linestyle="-" if right else "--",
        )
    )
    text = (
        f"{sign} predicted {shortened(example.predicted, 14)}\n"
        f"true {shortened(example.label, 14)}, {example.confidence:.0%} sure"
    )
    axes.set_title(plain(text), fontsize=FONT_SIZE - 0.5, color=colour)
