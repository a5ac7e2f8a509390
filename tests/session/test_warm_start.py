"""What of earlier sweeps is tried first, and how it is made to fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from pydantic import TypeAdapter

from podium.errors import InvalidInput
from podium.recipe import Recipe
from podium.search_space import Space
from podium.session.warm_start import carry_over, find_warm_start
from podium.stores import Stores, stores_here
from podium.sweep_file import Sweep, read_sweep
from podium.tracking.runs import prepare_store

RATE = "optimizer.learning_rate"
BATCH = "training.batch_size"
UNITS = "model.dense_units"


def space(**parameters: dict[str, Any]) -> Space:
    named = {key.replace("__", "."): value for key, value in parameters.items()}
    return TypeAdapter(Space).validate_python(named)


FLOAT = {"type": "float", "low": 1e-4, "high": 1e-2, "scale": "log"}
STEPS = {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25}
DEPTH = {"type": "int", "low": 1, "high": 3}
BATCHES = {"type": "categorical", "choices": [32, 64]}


@pytest.mark.parametrize(
    ("key", "parameter", "text", "value", "told"),
    [
        (RATE, FLOAT, "0.003", 0.003, False),
        (RATE, FLOAT, "0.5", 1e-2, True),
        (RATE, FLOAT, "nan", 1e-3, True),
        ("augmentation.strength", STEPS, "0.6", 0.5, True),
        ("augmentation.strength", STEPS, "0.75", 0.75, False),
        ("model.depth", DEPTH, "4", 3, True),
        ("model.depth", DEPTH, "2", 2, False),
        (BATCH, BATCHES, "32", 32, False),
        (BATCH, BATCHES, "256", 64, True),
        (BATCH, BATCHES, "large", 64, True),
        ("augmentation.flip", {"type": "categorical", "choices": [True, False]}, "False", False, False),
        ("optimizer.clipnorm", {"type": "categorical", "choices": [None, 1.0]}, "None", None, False),
        ("optimizer.name", {"type": "categorical", "choices": ["adam", "sgd"]}, "nadam", "adam", True),
    ],
)
def test_a_value_becomes_the_nearest_of_the_new_space_and_that_is_said(
    key: str, parameter: dict[str, Any], text: str, value: object, told: bool
) -> None:
    carried = carry_over(TypeAdapter(Space).validate_python({key: parameter}), Recipe(), {key: text})
    assert carried.parameters == {key: value}
    assert bool(carried.messages) == told
    assert all(key in message for message in carried.messages)


def test_conditions_are_those_of_the_new_space() -> None:
    units = {"type": "categorical", "choices": [128, 256], "when": {"model.depth": [3]}}
    new = space(model__depth=DEPTH, model__dense_units=units)
    assert carry_over(new, Recipe(), {"model.depth": "2", UNITS: "128"}).parameters == {"model.depth": 2}
    assert carry_over(new, Recipe(), {"model.depth": "3", UNITS: "128"}).parameters == {
        "model.depth": 3,
        UNITS: 128,
    }


def test_a_key_that_was_not_on_record_takes_the_recipes_own_value() -> None:
    carried = carry_over(space(optimizer__learning_rate=FLOAT), Recipe(), {})
    assert carried.parameters == {RATE: 1e-3}
    assert "not on record" in carried.messages[0]


def test_what_cannot_be_carried_over_is_left_out_with_a_reason() -> None:
    names = {"type": "categorical", "choices": ["sgd", "rmsprop"]}
    carried = carry_over(space(optimizer__name=names), Recipe(), {"optimizer.name": "adamw"})
    assert carried.parameters is None
    assert "left out" in carried.messages[-1]


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stores:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = stores_here(tmp_path / "mlruns")
    made.prepare()
    prepare_store(made)
    return made


def record_sweep(stores: Stores, name: str, trials: list[tuple[str, float, dict[str, object]]]) -> None:
    """Runs as a sweep leaves them: state, best val_accuracy and settings of each trial."""
    client = MlflowClient(stores.tracking_uri)
    experiment = client.create_experiment(name)
    tags = {"podium.kind": "sweep", "podium.metric": "val_accuracy", "podium.goal": "maximize"}
    parent = client.create_run(experiment, tags=tags).info.run_id
    for number, (state, value, settings) in enumerate(trials):
        own = {"mlflow.parentRunId": parent, "podium.trial": str(number), "podium.state": state}
        run = client.create_run(experiment, tags=own).info.run_id
        client.log_metric(run, "best_val_accuracy", value)
        for key, setting in settings.items():
            client.log_param(run, key, setting)


def new_sweep(folder: Path, *names: str) -> Sweep:
    (folder / "recipe.yaml").write_text("{}")
    warm = ", ".join(names)
    (folder / "new.yaml").write_text(
        "name: new\nrecipe: recipe.yaml\nbudget: {trials: 5}\n"
        f"warm_start: [{warm}]\n"
        f"space:\n  {RATE}: {{type: float, low: 1.0e-4, high: 1.0e-2, scale: log}}\n"
    )
    return read_sweep(folder / "new.yaml")


@pytest.mark.slow
def test_the_best_complete_trials_of_each_sweep_come_first_and_once(stores: Stores, tmp_path: Path) -> None:
    record_sweep(
        stores,
        "first",
        [
            ("complete", 0.5, {RATE: 0.001}),  # the new baseline
            ("complete", 0.7, {RATE: 0.002}),
            ("pruned", 0.9, {RATE: 0.003}),
            ("complete", 0.8, {RATE: 0.05}),  # beyond the range: becomes its end
            ("complete", 0.75, {RATE: 0.5}),  # the same point then
            ("complete", 0.6, {RATE: 0.004}),
            ("complete", 0.55, {RATE: 0.005}),  # the fourth
        ],
    )
    record_sweep(stores, "second", [("complete", 0.3, {RATE: 0.002}), ("complete", 0.2, {RATE: 0.006})])
    warm = find_warm_start(stores, new_sweep(tmp_path, "first", "second"))
    assert [trial.parameters[RATE] for trial in warm.trials] == [0.01, 0.002, 0.004, 0.006]
    assert "trial 3 of first: optimizer.learning_rate 0.05 is outside this space" in warm.messages[0]


@pytest.mark.slow
def test_an_unknown_sweep_is_refused_and_an_empty_one_is_said(stores: Stores, tmp_path: Path) -> None:
    record_sweep(stores, "empty", [("failed", 0.1, {})])
    warm = find_warm_start(stores, new_sweep(tmp_path, "empty"))
    assert list(warm.trials) == []
    assert "empty has no complete trial" in warm.messages[0]
    with pytest.raises(InvalidInput, match="no sweep named 'emty'"):
        find_warm_start(stores, new_sweep(tmp_path, "emty"))
