"""Owns what is said of the checks of recipes: which trial passed which, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import pandas as pd
from rich.table import Table
from rich.text import Text

PASSED, FAILED = "✓", "✗"
SIGNS = {"at_least": "≥", "at_most": "≤"}


class Checked(Protocol):
    """One check of a trial, as a column `checks` of a trials frame holds them in lists."""

    @property
    def name(self) -> str:
        """What was checked."""

    @property
    def value(self) -> float | None:
        """What it came to."""

    @property
    def bound(self) -> str:
        """`at_least` or `at_most`."""

    @property
    def limit(self) -> float:
        """Of the value."""

    @property
    def passed(self) -> bool:
        """Whether the value is within the limit."""


def of_trials(trials: pd.DataFrame) -> list[tuple[int, Sequence[Checked]]]:
    """Trials that have checks, by number, in the frame's order."""
    if "checks" not in trials.columns:
        return []
    return [
        (int(row["trial"]), row["checks"])
        for row in trials.to_dict("records")
        if isinstance(row["checks"], list)
    ]


def table(trials: pd.DataFrame) -> dict[str, Any] | None:
    """Headings and rows of text, None where no trial has checks."""
    found = of_trials(trials)
    if not found:
        return None
    names = list(dict.fromkeys(each.name for _, checks in found for each in checks))
    rows = []
    for number, checks in found:
        by_name = {each.name: each for each in checks}
        cells = [_cell(by_name[name]) if name in by_name else "" for name in names]
        verdict = f"{PASSED} passed" if all(each.passed for each in checks) else f"{FAILED} failed"
        rows.append([str(number), verdict, *cells])
    return {"headings": ["trial", "checks", *names], "rows": rows}


def terminal_checks(trials: pd.DataFrame, *, top: int) -> Table | None:
    """The first `top` trials with checks; None where no trial has any."""
    content = table(trials)
    if content is None:
        return None
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for heading in content["headings"]:
        shown.add_column(heading, justify="left" if heading == "checks" else "right", no_wrap=True)
    for cells in content["rows"][:top]:
        shown.add_row(*(Text(cell) for cell in cells))
    return shown


def _cell(check: Checked) -> str:
    value = "?" if check.value is None else f"{check.value:.4f}"
    return f"{value} {PASSED if check.passed else FAILED} {SIGNS[check.bound]} {check.limit:g}"
