"""How many configurations a space holds: conditions counted, ranges without end said to be so, grids as they are laid."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from toy_sweeps import FINITE_SPACE, SPACE, play, toy_engine, toy_sweep

from podium.engines.grid_points import combinations, grid_size
from podium.engines.optuna_space import finite_values
from podium.search_space import Space, is_active, ordered

CHAINED: dict[str, Any] = {
    "model.depth": {"type": "int", "low": 1, "high": 4},
    "model.filters": {"type": "int", "low": 8, "high": 32, "step": 8, "when": {"model.depth": [2, 4]}},
    "model.dense_units": {"type": "categorical", "choices": [64, 128, 256], "when": {"model.filters": [16]}},
    "augmentation.flip": {"type": "categorical", "choices": [True, False]},
    "augmentation.zoom": {
        "type": "float",
        "low": 0.0,
        "high": 0.3,
        "step": 0.1,
        "when": {"augmentation.flip": [True], "model.depth": [1, 2]},
    },
}


def space_of(content: dict[str, Any]) -> Space:
    return TypeAdapter(Space).validate_python(content)


def counted_one_by_one(space: Space) -> int:
    points = set()
    for values in itertools.product(*(finite_values(space[key]) for key in ordered(space))):
        active: dict[str, Any] = {}
        for key, value in zip(ordered(space), values, strict=True):
            if is_active(space[key], active):
                active[key] = value
        points.add(repr(active))
    return len(points)


@pytest.mark.parametrize(("content", "count"), [(FINITE_SPACE, 12), (CHAINED, 49)])
def test_what_is_not_active_does_not_count(content: dict[str, Any], count: int) -> None:
    space = space_of(content)
    assert combinations(space) == counted_one_by_one(space) == count


def test_a_range_without_a_step_has_no_end() -> None:
    assert combinations(space_of(SPACE)) is None
    one_value = {"model.dropout": {"type": "float", "low": 0.1, "high": 0.1}}
    assert combinations(space_of(one_value)) == 1


def test_large_ranges_are_counted_without_being_laid_out() -> None:
    space = space_of(
        {
            "training.batch_size": {"type": "int", "low": 1, "high": 1_000_000},
            "model.dense_units": {"type": "int", "low": 2, "high": 60_001},
            "model.depth": {"type": "int", "low": 1, "high": 4, "when": {"training.batch_size": [64, 7]}},
        }
    )
    assert combinations(space) == 60_000 * (999_998 + 2 * 4)


def test_an_optuna_grid_has_the_points_that_it_proposes(tmp_path: Path) -> None:
    ranged = {"model.dropout": {"type": "float", "low": 0.0, "high": 0.5, "when": {"model.depth": [2, 3]}}}
    recipe = {"model": {"depth": 1}, "optimizer": {"name": "adam"}}  # one of the grid's points
    sweep = toy_sweep(
        tmp_path,
        {"name": "optuna", "sampler": "grid", "pruner": "none"},
        space={**FINITE_SPACE, **ranged},
        recipe=recipe,
    )
    assert grid_size(sweep.file.engine, sweep.file.space) == len(play(toy_engine(sweep), 100).proposals)
    other = toy_sweep(tmp_path, {"name": "optuna", "sampler": "random"}, space=FINITE_SPACE)
    assert grid_size(other.file.engine, other.file.space) is None
