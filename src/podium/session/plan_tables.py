"""Owns how a plan is shown in a terminal: the space, the models at its corners, and what the sweep would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from podium.reporting.ranking import duration
from podium.search_space import CategoricalParameter, Parameter
from podium.session.corner_sizes import Built
from podium.session.progress import short
from podium.session.space_survey import Corner, Survey

CORNERS_SHOWN = 12
CONTINUOUS = "continuous"
AS_IN_RECIPE = "as in the recipe"
UNKNOWN = "not known"


def space_table(space: Mapping[str, Parameter]) -> Table:
    """One row a parameter."""
    table = _table("parameter", "type", "values", "scale", "only if")
    for key, parameter in space.items():
        scale = "" if isinstance(parameter, CategoricalParameter) else parameter.scale
        conditions = [f"{other} is {_listed(values)}" for other, values in parameter.when.items()]
        _add(table, key, parameter.type, _values(parameter), scale, " and ".join(conditions))
    return table


def corner_table(survey: Survey, *, most_parameters: int | None) -> Table:
    """The smallest and the largest model, those that cannot be trained, and some of the others."""
    table = _table("model", "parameters", "multiply-adds", "memory", "remark", numbers=(1, 2, 3))
    for corner in _shown_first(survey.corners):
        built = corner.built
        remarks = [corner.problem] if corner.problem else []
        if isinstance(built, Built):
            remarks += _place(built, survey.corners)
            if most_parameters is not None and built.parameters > most_parameters:
                remarks.append(f"infeasible: above {most_parameters:,} parameters")
        _add(
            table,
            short(corner.parameters) or AS_IN_RECIPE,
            f"{built.parameters:,}" if isinstance(built, Built) else "-",
            _count(built.multiply_adds) if isinstance(built, Built) else "-",
            (UNKNOWN if corner.memory_bytes is None else decimal(corner.memory_bytes))
            if isinstance(built, Built)
            else "-",
            "; ".join(remarks),
        )
    return table


def measured_table(survey: Survey) -> Table:
    """What was trained for a moment."""
    table = _table("measured", "changes", "images/s", "epoch", "besides", "peak memory", numbers=(2, 3, 4, 5))
    for name, one in survey.calibration.measured.items():
        _add(
            table,
            name,
            short(survey.changes[name]) or AS_IN_RECIPE,
            f"{one.images_per_second:,.0f}",
            f"{one.epoch_seconds:.2g} s" if one.epoch_seconds < 10 else duration(one.epoch_seconds),
            f"{one.start_seconds:.2g} s" if one.start_seconds < 10 else duration(one.start_seconds),
            decimal(one.peak_bytes),
        )
    return table


def hidden_corners(survey: Survey) -> int:
    """How many corners the table leaves out."""
    return survey.corner_count - len(_shown_first(survey.corners))


def total_table(rows: Sequence[tuple[str, str]]) -> Table:
    """What the sweep would take, a line each."""
    table = Table.grid(padding=(0, 2))
    for name, text in rows:
        _add(table, name, text)
    return table


def span_text(least: Any, most: Any, form: Any = lambda value: f"{value:,}") -> str:
    """'12', or '71 to 144'."""
    low, high = form(least), form(most)
    return str(low) if low == high else f"{low} to {high}"


def _shown_first(corners: Sequence[Corner]) -> list[Corner]:
    """In their order, those with a remark before all others."""
    marked = [
        corner
        for corner in corners
        if corner.problem or (isinstance(corner.built, Built) and _place(corner.built, corners))
    ]
    rest = [corner for corner in corners if corner not in marked]
    chosen = [*marked, *rest][: max(CORNERS_SHOWN, len(marked))]
    return [corner for corner in corners if corner in chosen]


def _place(built: Built, corners: Sequence[Corner]) -> list[str]:
    sizes = [corner.built.parameters for corner in corners if isinstance(corner.built, Built)]
    if min(sizes) == max(sizes):
        return []
    return [
        *(["smallest"] if built.parameters == min(sizes) else []),
        *(["largest"] if built.parameters == max(sizes) else []),
    ]


def _table(*columns: str, numbers: Sequence[int] = ()) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index in numbers else "left")
    return table


def _add(table: Table, *cells: str) -> None:
    """A row as it is: what looks like rich's markup in a name is none."""
    table.add_row(*(Text(cell) for cell in cells))


def _values(parameter: Parameter) -> str:
    if isinstance(parameter, CategoricalParameter):
        return ", ".join(map(_word, parameter.choices))
    step = f" in steps of {parameter.step}" if parameter.step else ""
    return f"{parameter.low} to {parameter.high}{step}"


def _listed(values: Sequence[object]) -> str:
    return " or ".join(map(_word, values))


def _word(value: object) -> str:
    """As it stands in a sweep file."""
    names = {None: "null", True: "true", False: "false"}
    return names[value] if value is None or isinstance(value, bool) else str(value)


def _count(number: int | None) -> str:
    if number is None:
        return UNKNOWN
    return f"{number / 1e6:,.1f} M" if number >= 1e5 else f"{number:,}"
