"""Owns the table in which a confirmation is shown in a terminal."""

from __future__ import annotations

from rich.table import Table

from podium.selection.confirm import Confirmation, Confirmed
from podium.session.progress import short


def confirmation_table(result: Confirmation) -> Table:
    """One row a configuration, the best mean first."""
    table = Table("configuration", "parameters", title_justify="left")
    table.title = f"{result.metric} over {len(result.seeds)} fresh seeds"
    for column in ("mean", "std", "values", "to the baseline (95 %)", "significant"):
        table.add_column(column, justify="right")
    sign = -1.0 if result.goal == "maximize" else 1.0
    rows = sorted(
        (result.baseline, *result.candidates),
        key=lambda one: (one.mean is None, sign * (one.mean or 0.0)),
    )
    for one in rows:
        name = f"{one.name} (winner)" if one is result.winner else one.name
        table.add_row(
            name,
            short(one.params),
            _number(one.mean),
            _number(one.std),
            " ".join("failed" if value is None else f"{value:.4f}" for value in one.values),
            _interval(one),
            "" if one is result.baseline else ("yes" if one.significant else "no"),
        )
    return table


def _interval(one: Confirmed) -> str:
    if one.ci95_vs_baseline is None or one.difference is None:
        return ""
    low, high = one.ci95_vs_baseline
    return f"{one.difference:+.4f} ({low:+.4f} to {high:+.4f})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
