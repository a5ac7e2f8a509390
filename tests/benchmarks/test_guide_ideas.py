"""Ideas as recipes that differ from one in a part, and their table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from ablation import FAST
from ablation import IDEAS as PARTS
from ablation import comparison as parts_compared
from ablation import recipe_of as part
from guide import IDEAS, comparison, recipe_of
from ideas import Idea

from podium.recipe import Recipe, read_recipe

GUIDE = comparison("digits", quick=True)


@pytest.mark.parametrize("idea", IDEAS, ids=lambda idea: idea.name)
def test_each_idea_is_a_recipe_that_differs_from_the_baseline_in_that_alone(idea: Idea) -> None:
    recipe = recipe_of(idea, 2, images="digits", quick=False)
    baseline = recipe_of(IDEAS[0], 2, images="digits", quick=False)
    assert recipe.data == baseline.data
    assert (recipe.training.seed, recipe.callbacks.early_stopping) == (2, None)
    assert recipe.training.epochs == (15 if recipe.classical is None else 1)
    assert (recipe == baseline) == (idea == IDEAS[0])
    if idea.recipe == IDEAS[0].recipe:
        assert_apart_in(idea, recipe, baseline)


@pytest.mark.parametrize("idea", PARTS, ids=lambda idea: idea.name)
def test_each_part_of_the_fast_recipe_is_changed_alone(idea: Idea) -> None:
    recipe, whole = (part(each, 2, images="digits", quick=False) for each in (idea, PARTS[0]))
    assert (recipe == whole) == (idea == PARTS[0])
    assert_apart_in(idea, recipe, whole)


def test_parts_are_changed_in_the_fast_recipe_itself() -> None:
    whole, fast = part(PARTS[0], 2, images="digits", quick=False).flat(), read_recipe(FAST, {}).flat()
    apart = {key for key in whole.keys() | fast.keys() if whole.get(key) != fast.get(key)}
    schedule = {"optimizer.schedule.warmup_epochs", "training.epochs"}
    assert apart == {"data.reference", "data.train_limit", "training.seed", "precision"} | schedule
    shares = [
        settings["optimizer.schedule.warmup_epochs"] / settings["training.epochs"]
        for settings in (whole, fast)
    ]
    assert shares[0] == pytest.approx(shares[1], rel=0.1)


def assert_apart_in(idea: Idea, recipe: Recipe, other: Recipe) -> None:
    """All that an idea sets differs, and nothing else."""
    one, two = recipe.flat(), other.flat()
    apart = {key for key in one.keys() | two.keys() if one.get(key, "absent") != two.get(key, "absent")}
    assert all(f"{key}.".startswith(tuple(f"{key}." for key in idea.values)) for key in apart), apart
    assert all(any(f"{key}.".startswith(f"{each}.") for key in apart) for each in idea.values), apart


def test_ideas_are_compared_with_the_baseline_on_the_same_seed() -> None:
    rows = pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "val_accuracy": value, "seconds": 10.0}
            for arm, values in ((GUIDE.baseline, (0.5, 0.6)), ("mixup", (0.52, 0.61)))
            for seed, value in enumerate(values)
        ]
    )
    *_, baseline, mixup = GUIDE.table(rows).splitlines()
    assert (
        baseline == "| the guide's CNN | 75 to 80 % (all images, 50 epochs) | 55.0 (50.0 to 60.0) |  | 10 |"
    )
    assert mixup == "| mixup | +3 to 5 points | 56.5 (52.0 to 61.0) | +1.5 (+1.0 to +2.0) | 10 |"


def test_parts_make_a_table_without_claims_that_names_what_failed() -> None:
    rows = pd.DataFrame(
        [
            {"arm": "fast.yaml", "seed": 0, "val_accuracy": 0.8, "seconds": 10.0},
            {"arm": "AdamW, rate 0.003", "seed": 0, "failed": "nan"},
        ]
    )
    headings, _, fast, adamw = parts_compared("digits", quick=True).table(rows).splitlines()
    assert headings == (
        "| changed | val_accuracy % (smallest to largest) | to fast.yaml, points | seconds, fastest |"
    )
    assert fast == "| fast.yaml | 80.0 (80.0 to 80.0) |  | 10 |"
    assert adamw == "| AdamW, rate 0.003 |  1 of 1 failed |  |  |"
    assert parts_compared("digits", quick=True).picture(rows).startswith(b"\x89PNG")


@pytest.mark.slow
def test_what_is_measured_already_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "guide.jsonl"
    names = ("random forest", "logistic regression")
    classical = replace(GUIDE, ideas=tuple(idea for idea in IDEAS if idea.name in names))
    first = classical.measure(path, seeds=1, only=["logistic"])
    assert set(first["arm"]) == set(names)  # the first in any case
    assert (first["val_accuracy"] > 0.8).all()
    content = path.read_bytes()
    assert classical.measure(path, seeds=1).equals(first)
    assert path.read_bytes() == content
    others = replace(classical, recipe_of=lambda idea, seed: classical.recipe_of(idea, seed + 1))
    with pytest.raises(SystemExit, match="made otherwise"):
        others.measure(path, seeds=1)
