"""Owns what is said of failed trials: how many by cause, and those that failed alike together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import pandas as pd
from rich.table import Table
from rich.text import Text

from podium.reporting import style
from podium.result import FailureCause

CAUSES: tuple[str, ...] = get_args(FailureCause)
NO_CAUSE = "cause missing"
MOST_NUMBERS = 12
LONGEST_LINE = 100


@dataclass(frozen=True, kw_only=True)
class AlikeFailures:
    """Trials that failed by the same cause with the same message, by number."""

    cause: str
    message: str
    trials: Sequence[int]


def listed(trials: Sequence[int]) -> str:
    """Trial numbers, as many as a line holds."""
    shown = ", ".join(str(number) for number in trials[:MOST_NUMBERS])
    more = len(trials) - MOST_NUMBERS
    return f"{shown} and {more} more" if more > 0 else shown


def by_cause(trials: pd.DataFrame) -> dict[str, int]:
    """How many trials failed by each cause: all causes that Podium knows, then what else is on record."""
    found = _failed(trials)["cause"].value_counts()
    counts = {cause: int(found.get(cause, 0)) for cause in CAUSES}
    return counts | {str(cause): int(count) for cause, count in found.items()}


def alike(trials: pd.DataFrame) -> list[AlikeFailures]:
    """All failures, the most frequent first."""
    groups = _failed(trials).groupby(["cause", "message"], sort=False)["trial"]
    found = [
        AlikeFailures(cause=str(cause), message=str(message) or "message missing", trials=sorted(numbers))
        for (cause, message), numbers in groups
    ]
    return sorted(found, key=lambda each: -len(each.trials))


def terminal_failures(trials: pd.DataFrame, *, top: int) -> Table | None:
    """The `top` most frequent failures, with the first line of each message; None where no trial failed."""
    found = alike(trials)
    if not found:
        return None
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("failed", justify="right")
    for title in ("cause", "trials", "reason"):
        table.add_column(title)
    for each in found[:top]:
        line = style.shortened(each.message.splitlines()[0], LONGEST_LINE)
        table.add_row(
            *(Text(text) for text in (str(len(each.trials)), each.cause, listed(each.trials), line))
        )
    if len(found) > top:
        table.add_row("", "", "", f"and {len(found) - top} more kinds; the report has them all")
    return table


def _failed(trials: pd.DataFrame) -> pd.DataFrame:
    failed = trials[trials["state"] == "failed"].copy()
    failed["cause"] = failed["cause"].astype(object).fillna(NO_CAUSE)
    failed["message"] = failed["message"].astype(object).fillna("").map(lambda text: str(text).strip())
    return failed
