"""The guide's ideas as recipes, and their table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from guide import BASELINE, IDEAS, Idea, measure, recipe_of, table


@pytest.mark.parametrize("idea", IDEAS, ids=lambda idea: idea.name)
def test_each_idea_is_a_recipe_that_differs_from_the_baseline_in_that_alone(idea: Idea) -> None:
    recipe = recipe_of(idea, "digits", 2, quick=False)
    baseline = recipe_of(IDEAS[0], "digits", 2, quick=False)
    assert recipe.data == baseline.data
    assert (recipe.training.seed, recipe.callbacks.early_stopping) == (2, None)
    assert recipe.training.epochs == (15 if recipe.classical is None else 1)
    assert (recipe == baseline) == (idea.name == BASELINE)
    if idea.recipe == IDEAS[0].recipe:
        apart = {key for key, value in recipe.flat().items() if baseline.flat().get(key) != value}
        changed = tuple(f"{key}." for key in idea.values)
        assert all(f"{key}.".startswith(changed) for key in apart), apart


def test_ideas_are_compared_with_the_baseline_on_the_same_seed() -> None:
    rows = pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "val_accuracy": value, "seconds": 10.0}
            for arm, values in ((BASELINE, (0.5, 0.6)), ("mixup", (0.52, 0.61)))
            for seed, value in enumerate(values)
        ]
    )
    *_, baseline, mixup = table(rows, IDEAS).splitlines()
    assert (
        baseline == "| the guide's CNN | 75 to 80 % (all images, 50 epochs) | 55.0 (50.0 to 60.0) |  | 10 |"
    )
    assert mixup == "| mixup | +3 to 5 points | 56.5 (52.0 to 61.0) | +1.5 (+1.0 to +2.0) | 10 |"


@pytest.mark.slow
def test_what_is_measured_already_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "guide.jsonl"
    forest = [idea for idea in IDEAS if idea.name == "random forest"]
    first = measure(forest, "digits", path, seeds=1, quick=True)
    content = path.read_bytes()
    assert first["val_accuracy"].item() > 0.8
    assert measure(forest, "digits", path, seeds=1, quick=True).equals(first)
    assert path.read_bytes() == content
