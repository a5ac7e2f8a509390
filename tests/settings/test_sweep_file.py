"""What a sweep file may say, and what a wrong one is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from podium.errors import InvalidInput
from podium.recipe import Recipe, read_recipe
from podium.sweep_file import OptunaSettings, read_sweep, recipe_with_assignments

ROOT = Path(__file__).parents[2]
GOOD: dict[str, Any] = {
    "name": "toy",
    "recipe": "recipe.yaml",
    "engine": {"name": "optuna"},
    "budget": {"trials": 4},
    "space": {
        "optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "scale": "log"},
        "model.depth": {"type": "int", "low": 1, "high": 3},
    },
}


def write(folder: Path, sweep: dict[str, Any], recipe: dict[str, Any] | None = None) -> Path:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe or {"training": {"epochs": 2}}))
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep, sort_keys=False))
    return path


def changed(**sections: Any) -> dict[str, Any]:
    return {**GOOD, **sections}


def faults(path: Path, *assignments: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        read_sweep(path, assignments)
    assert caught.value.exit_code == 2
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_of_the_repository_is_valid(path: Path) -> None:
    assert read_sweep(path).file.space


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_is_valid(path: Path) -> None:
    assert read_recipe(path).training.epochs > 0


def space_with(key: str, **parameter: Any) -> dict[str, Any]:
    return changed(space={**GOOD["space"], key: parameter})


BAD = {
    "unknown key": (changed(budgets={}), "budgets: unknown key. Did you mean 'budget'?"),
    "unknown engine": (changed(engine={"name": "optna"}), "engine"),
    "unknown sampler": (changed(engine={"name": "optuna", "sampler": "magic"}), "engine.sampler"),
    "unknown metric": (changed(objective={"metric": "val_f1"}), "objective.metric: got 'val_f1'"),
    "wrong goal": (
        changed(objective={"metric": "val_loss", "goal": "maximize"}),
        "objective.goal: val_loss is to minimize",
    ),
    "wrong type": (changed(budget={"trials": "4"}), "budget.trials: got '4'"),
    "no budget": (changed(budget={}), "budget: sets none of trials, hours and epochs"),
    "low above high": (
        space_with("model.dropout", type="float", low=0.5, high=0.1),
        "low 0.5 is above high 0.1",
    ),
    "log from 0": (
        space_with("model.dropout", type="float", low=0.0, high=0.1, scale="log"),
        "a log scale needs low above 0",
    ),
    "empty choices": (space_with("model.filters", type="categorical", choices=[]), "choices"),
    "repeated choices": (space_with("model.filters", type="categorical", choices=[8, 8]), "twice"),
    "unknown recipe key": (
        space_with("model.drop", type="float", low=0.0, high=0.1),
        "space.model.drop: no such key in a recipe",
    ),
    "range outside of the recipe": (
        space_with("model.dropout", type="float", low=0.0, high=1.5),
        "space.model.dropout: the recipe does not accept 1.5",
    ),
    "condition on nothing": (
        space_with("model.filters", type="categorical", choices=[8, 16], when={"model.width": [1]}),
        "not a parameter of this space",
    ),
    "condition on a float": (
        space_with(
            "model.filters", type="categorical", choices=[8], when={"optimizer.learning_rate": [1e-3]}
        ),
        "a condition must be on an int or categorical parameter",
    ),
    "condition that never holds": (
        space_with("model.filters", type="categorical", choices=[8], when={"model.depth": [7]}),
        "model.depth never takes the value 7",
    ),
    "missing recipe": (changed(recipe="nothing.yaml"), "recipe: no file"),
    "bad name": (changed(name="a b/c"), "name"),
    "listed key outside the space": (
        changed(engine={"name": "listed", "trials": [{"model.dropout": 0.1}]}),
        "engine.trials.0: not a parameter of this space",
    ),
    "listed value outside the space": (
        changed(engine={"name": "listed", "trials": [{"model.depth": 2}, {"model.depth": 9}]}),
        "engine.trials.1: outside the space of model.depth",
    ),
    "a list with a warm start": (
        changed(engine={"name": "listed", "trials": [{"model.depth": 2}]}, warm_start=["old"]),
        "warm_start: a list tries what it lists",
    ),
    "several objectives without a best": (
        changed(
            objective=[
                {"metric": "val_accuracy", "goal": "maximize"},
                {"metric": "parameters", "goal": "minimize"},
            ],
            stop_when={"no_improvement": 5},
        ),
        "stop_when.no_improvement: needs one objective",
    ),
    "data in the space": (
        space_with("data.train_limit", type="int", low=10, high=20),
        "cannot be searched over",
    ),
    "determinism in the space": (
        space_with("training.deterministic", type="categorical", choices=[True, False]),
        "cannot be searched over",
    ),
}


@pytest.mark.parametrize("case", BAD, ids=list(BAD))
def test_bad_sweep_file_is_refused_with_file_line_and_reason(case: str, tmp_path: Path) -> None:
    content, expected = BAD[case]
    path = write(tmp_path, content)
    found = faults(path)
    assert any(expected in fault for fault in found), found
    assert all(fault.startswith(f"{path}:") for fault in found), found


def test_circular_conditions_are_refused(tmp_path: Path) -> None:
    space = {
        "model.depth": {"type": "int", "low": 1, "high": 2, "when": {"model.filters": [8]}},
        "model.filters": {"type": "categorical", "choices": [8], "when": {"model.depth": [1]}},
    }
    assert any("circle" in fault for fault in faults(write(tmp_path, changed(space=space))))


def test_all_faults_come_at_once_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("training: {epochs: 0}\noptimizer: {name: adamm}\n")
    path = tmp_path / "sweep.yaml"
    path.write_text(
        "name: toy\nrecipe: recipe.yaml\nbudget: {trials: 0}\nextra: 1\n"
        "space:\n  model.depth: {type: int, low: 3, high: 1}\n"
    )
    with pytest.raises(InvalidInput) as caught:
        read_sweep(path)
    places = {(Path(fault.file or "").name, fault.line) for fault in caught.value.faults}
    assert places == {
        ("sweep.yaml", 3),
        ("sweep.yaml", 4),
        ("sweep.yaml", 6),
        ("recipe.yaml", 1),
        ("recipe.yaml", 2),
    }


def test_plateau_and_schedule_together_are_refused(tmp_path: Path) -> None:
    recipe = {"optimizer": {"schedule": {"name": "cosine"}}}
    assert any("both set the learning rate" in fault for fault in faults(write(tmp_path, GOOD, recipe)))


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2",
        "a: &x 1\nb: *x",
        "a: 1\na: 2",
        "- 1",
        "a: !!python/object:os.system x",
        "a: \x00",
        "? [1]\n: 2",
    ],
)
def test_what_is_not_a_plain_mapping_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput):
        read_sweep(path)


def test_deep_nesting_is_refused_without_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("a: " + "[" * 5000 + "]" * 5000)
    with pytest.raises(InvalidInput):
        read_sweep(path)


def test_assignments_reach_the_sweep_file_and_the_recipe(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    spec = read_sweep(path, ["engine.sampler=random", "training.epochs=7", "optimizer.learning_rate=1e-2"])
    assert spec.file.engine.sampler == "random"  # type: ignore[union-attr]
    assert (spec.recipe.training.epochs, spec.recipe.optimizer.learning_rate) == (7, 0.01)


def test_assignment_to_a_key_of_the_space_changes_the_space(tmp_path: Path) -> None:
    spec = read_sweep(write(tmp_path, GOOD), ["space.model.depth.high=2"])
    assert spec.file.space["model.depth"].high == 2  # type: ignore[union-attr]


def test_assignment_of_a_whole_parameter_adds_it_to_the_space(tmp_path: Path) -> None:
    spec = read_sweep(write(tmp_path, GOOD), ["space.model.dropout={type: float, low: 0.1, high: 0.2}"])
    assert spec.file.space["model.dropout"].low == 0.1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("trainin.epochs=2", "no such key"),
        ("training.epochs", "is not key=value"),
        ("code=x", "sweep file and of the recipe"),
    ],
)
def test_assignment_that_names_neither_or_both_is_refused(
    assignment: str, expected: str, tmp_path: Path
) -> None:
    assert any(expected in fault for fault in faults(write(tmp_path, GOOD), assignment))


def test_identity_ignores_budget_and_workers_and_sees_everything_else(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)

    def identity(*assignments: str) -> str:
        return read_sweep(path, assignments).identity(train_digest="d", code_digest=None)

    assert identity() == identity("budget.trials=9", "workers=3")
    assert len({identity(), identity("training.epochs=3"), identity("engine.seed=1")}) == 3
    assert identity() != read_sweep(path).identity(train_digest="other", code_digest=None)


def test_recipe_with_assignments_refuses_an_unknown_key(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    with pytest.raises(InvalidInput, match="names no key"):
        recipe_with_assignments(tmp_path / "recipe.yaml", ["model.drop=1"], data=None, seed=None)


def test_flat_recipe_round_trips() -> None:
    recipe = Recipe().with_values({"optimizer.schedule": None, "model.dropout": 0.5})
    assert recipe.flat()["model.dropout"] == 0.5
    assert Recipe().with_values({"optimizer.learning_rate": 1}).optimizer.learning_rate == 1.0


def test_schemas_beside_the_reference_are_current(tmp_path: Path) -> None:
    from podium.jobs.schema import schema

    schema(tmp_path)
    for name in ("sweep.schema.json", "recipe.schema.json"):
        assert (ROOT / "docs" / name).read_text() == (tmp_path / name).read_text(), "run: make schema"


def test_another_pruner_or_sampler_keeps_no_options_of_the_files(tmp_path: Path) -> None:
    engine = {
        "pruner": "successive_halving",
        "pruner_options": {"reduction_factor": 2},
        "sampler_options": {"group": True},
    }
    path = write(tmp_path, changed(engine=engine))
    same = read_sweep(path, ["engine.pruner=successive_halving", "engine.sampler=tpe"]).file.engine
    assert isinstance(same, OptunaSettings)
    assert (same.pruner_options, same.sampler_options) == ({"reduction_factor": 2}, {"group": True})
    other = read_sweep(path, ["engine.pruner=median", "engine.sampler=random"]).file.engine
    assert isinstance(other, OptunaSettings)
    assert (other.pruner_options, other.sampler_options) == ({}, {})
