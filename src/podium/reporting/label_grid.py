"""Owns the picture of predictions without a truth: images, each with its label and confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from podium.reporting.style import BLACK, BLUE, FONT_SIZE, GREY, new_figure, plain, shortened

COLUMNS = 5
MOST_IMAGES = 50
ROW_INCHES = 2.45
BAR_HEIGHT = 0.045


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """One image with what was predicted. image: uint8 (height, width, 3)."""

    image: NDArray[np.uint8]
    name: str
    label: str
    confidence: float


def label_grid(images: Sequence[Labelled], *, title: str) -> Figure:
    """Images in rows of five, each under its label and confidence, over its file's name."""
    columns = min(COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    figure = new_figure(ROW_INCHES * rows + 0.5, max(4.0, 2.0 * columns))
    grid = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axes in grid[len(images) :]:
        axes.set_axis_off()
    for axes, one in zip(grid, images, strict=False):
        axes.imshow(one.image, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        for side in axes.spines.values():
            side.set_visible(False)
        # How sure it is, as a length below the image.
        for width, colour in ((1.0, GREY), (one.confidence, BLUE)):
            axes.add_patch(
                Rectangle(
                    (0, -BAR_HEIGHT - 0.01),
                    width,
                    BAR_HEIGHT,
                    transform=axes.transAxes,
                    clip_on=False,
                    color=colour,
                    linewidth=0,
                )
            )
        text = f"{shortened(one.label, 16)}\n{one.confidence:.0%} sure"
        axes.set_title(plain(text), fontsize=FONT_SIZE, color=BLACK)
        axes.set_xlabel(plain(shortened(one.name, 22)), fontsize=FONT_SIZE - 2, labelpad=8)
    figure.suptitle(plain(title), fontsize=FONT_SIZE + 1)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    return figure
