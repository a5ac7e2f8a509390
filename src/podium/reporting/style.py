"""Owns how figures look: colours that colour-blind readers tell apart, sizes, and figures as PNG."""

from __future__ import annotations

import base64
import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito, 2008. Yellow is left out: a thin yellow line is too faint on white.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK = "#CC79A7", "#56B4E9", "#000000"
COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK)
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 2)), "-")  # told apart in black and white
GREY, DARK = "#B4B4B4", "#444444"
# Even in lightness, and the same to colour-blind readers; the greatest value is the darkest on white.
COLOUR_MAP, COLOUR_MAP_REVERSED = "cividis_r", "cividis"

WIDTH_INCHES = 10.0
DOTS_PER_INCH = 130
FONT_SIZE = 10.0


def new_figure(height_inches: float, width_inches: float = WIDTH_INCHES) -> Figure:
    """An empty white figure that is no part of pyplot's global state and keeps its labels apart."""
    return Figure(figsize=(width_inches, height_inches), facecolor="white", layout="constrained")


def finish(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Titles, labels, a light grid and no frame on top and right."""
    axes.set_title(plain(title), fontsize=FONT_SIZE + 1, loc="left")
    axes.set_xlabel(plain(x), fontsize=FONT_SIZE)
    axes.set_ylabel(plain(y), fontsize=FONT_SIZE)
    axes.tick_params(labelsize=FONT_SIZE - 1)
    axes.grid(color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def line_styles(count: int) -> list[dict[str, Any]]:
    """So many line styles, each differing in colour and, from the second on, in dashes."""
    return [
        {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}
        for index in range(count)
    ]


def plain(text: str) -> str:
    """Text as it is: matplotlib would set what lies between dollar signs as a formula."""
    return text.replace("$", r"\$")


def shortened(text: str, longest: int = 18) -> str:
    """Text of at most so many characters, cut in the middle."""
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def to_data_uri(png: bytes) -> str:
    """A picture as text that a page holds by itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
