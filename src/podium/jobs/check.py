"""Owns the look at what was typed before heavy libraries load, so that a wrong file is answered at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from podium.sweep_file import recipe_with_assignments, sweep_as_typed


def check_sweep(
    path: Path,
    assignments: Sequence[str],
    *,
    data: str | None,
    trials: int | None,
    hours: float | None,
    workers: int | None,
    executor: str | None = None,
) -> None:
    """Raises: InvalidInput with every fault of the sweep file, its recipe and what was typed."""
    sweep_as_typed(
        path, assignments, data=data, trials=trials, hours=hours, workers=workers, executor=executor
    )


def check_recipe(path: Path, assignments: Sequence[str], *, data: str | None, seed: int | None) -> None:
    """Raises: InvalidInput with every fault of the recipe and what was typed."""
    recipe_with_assignments(path, assignments, data=data, seed=seed)
