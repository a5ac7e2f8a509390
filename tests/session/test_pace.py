"""`precision: auto`: what is chosen, that it is measured once, and what is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toy_sweeps import toy_sweep

from podium.datasets.prepare import prepare
from podium.datasets.splits import split
from podium.recipe import Recipe
from podium.session.assembly import cores
from podium.session.material import Material
from podium.session.pace import Pace, fastest, measure, resolved, settled
from podium.sweep_file import Sweep

ENGINE = {"name": "optuna", "sampler": "random"}
RECORDED = json.dumps(
    {"precision": "bfloat16", "workers": 2, "threads": 1, "measured": {"bfloat16 x 2": 900.0}}
)


@pytest.fixture
def material(tmp_path: Path) -> Material:
    data = Recipe().data
    dataset = prepare(data, cache=tmp_path / "cache")
    return Material(
        dataset=dataset, arrays=split(dataset, data, cache=tmp_path / "cache"), code=None, code_digest=None
    )


def auto_sweep(folder: Path, **more: Any) -> Sweep:
    return toy_sweep(folder, ENGINE, recipe={"precision": "auto"}, **more)


def test_fewer_bits_are_taken_only_where_they_are_worth_their_rounding() -> None:
    assert fastest({("float32", 1): 100.0, ("bfloat16", 1): 109.0}) == ("float32", 1)
    assert fastest({("float32", 1): 100.0, ("bfloat16", 1): 111.0}) == ("bfloat16", 1)
    assert fastest({("float32", 1): 100.0, ("float32", 2): 101.0, ("bfloat16", 1): 108.0}) == ("float32", 2)
    assert fastest({("bfloat16", 1): 5.0}) == ("bfloat16", 1)


def test_an_earlier_starts_choice_is_kept_and_nothing_is_measured(tmp_path: Path, material: Material) -> None:
    said: list[str] = []
    sweep, remembered = settled(auto_sweep(tmp_path), material, RECORDED, said.append)
    assert (sweep.recipe.precision, sweep.file.workers) == ("bfloat16", 2)
    assert remembered is not None
    assert json.loads(remembered) == json.loads(RECORDED)
    assert said == []
    asked, _ = settled(auto_sweep(tmp_path, workers=3), material, RECORDED, said.append)
    assert asked.file.workers == 3


def test_a_named_precision_is_left_alone(tmp_path: Path, material: Material) -> None:
    sweep = toy_sweep(tmp_path, ENGINE)
    assert settled(sweep, material, None, pytest.fail) == (sweep, None)


def test_workers_elsewhere_are_not_measured_here(tmp_path: Path, material: Material) -> None:
    said: list[str] = []
    sweep, _ = settled(auto_sweep(tmp_path, executor="ray"), material, None, said.append)
    assert (sweep.recipe.precision, sweep.file.workers) == ("float32", None)
    assert "workers are on others" in said[0]


def test_a_recorded_sweep_is_read_with_what_it_settled_on() -> None:
    recipe = Recipe().model_copy(update={"precision": "auto"}).model_dump()
    read, settings = resolved(recipe, {"workers": None}, RECORDED)
    assert (read["precision"], settings["workers"]) == ("bfloat16", 2)
    assert resolved(recipe, {"workers": 4}, RECORDED)[1]["workers"] == 4
    assert resolved({"precision": "float32"}, {"workers": 1}, None) == (
        {"precision": "float32"},
        {"workers": 1},
    )


@pytest.mark.slow
def test_each_precision_and_division_is_measured_by_real_workers(
    material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Measuring once more on more images, where it was over too soon, has a test of its own.
    monkeypatch.setattr("podium.session.calibration.SHORT_SECONDS", 0.0)
    small = {"depth": 1, "filters": 4, "dense_units": 16}
    recipe = Recipe.model_validate({"precision": "auto", "model": small})
    said: list[str] = []
    pace = measure(recipe, material, metric="val_accuracy", goal="maximize", workers=None, say=said.append)
    assert isinstance(pace, Pace)
    divisions = {1, cores()}
    assert set(pace.measured) == {f"{name} x {n}" for name in ("float32", "bfloat16") for n in divisions}
    assert pace.workers in divisions
    assert pace.threads == cores() // pace.workers
    assert min(pace.measured.values()) > 0
    assert pace.precision in ("float32", "bfloat16")
    assert pace.in_words() == said[-1]
