"""What `podium sweep --plan` promises: it says what would run, by real measurements, and records nothing."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from podium.cli import cli

RECIPE: dict[str, Any] = {
    "data": {"reference": "digits", "image_size": 8, "train_limit": 200},
    "model": {"depth": 1, "filters": 4, "dense_units": 8},
    "training": {"epochs": 3, "batch_size": 32},
}
SWEEP: dict[str, Any] = {
    "name": "planned",
    "recipe": "recipe.yaml",
    "engine": {"name": "optuna", "sampler": "random", "pruner": "none"},
    "budget": {"trials": 6},
    "workers": 2,
    "code": "code",
    "space": {
        "model.builder": {"type": "categorical", "choices": [None, "nets:leave"]},
        "model.depth": {"type": "int", "low": 1, "high": 4, "when": {"model.builder": [None]}},
        "optimizer.learning_rate": {"type": "categorical", "choices": [0.001, 0.01]},
    },
}
NETS = """
import os
import keras

@keras.saving.register_keras_serializable("test")
class Untrainable(keras.layers.Layer):
    def call(self, images, training=None):
        if training:
            raise ValueError("this layer does not train")
        return images

def leave(input_shape, classes):
    os._exit(3)

def untrainable(input_shape, classes):
    inputs = keras.Input(input_shape)
    x = keras.layers.Flatten()(Untrainable()(inputs))
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(x))
"""


def write_sweep(folder: Path, recipe: dict[str, Any], sweep: dict[str, Any]) -> None:
    (folder / "code").mkdir()
    (folder / "code" / "nets.py").write_text(NETS)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "planned.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with its own dataset cache and folder for temporary files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PODIUM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path


def podium(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(cli, ["sweep", "planned.yaml", *arguments, "--json"])
    assert done.stdout.count("\n") == 1, done.output
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    assert done.exit_code == answer["exit_code"], done.output
    return answer


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder, but the dataset cache: its size and when it changed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not name.startswith("cache"):
            found[name] = (path.stat().st_size, path.stat().st_mtime_ns if path.is_file() else 0)
    return found


@pytest.mark.slow
def test_a_plan_names_what_cannot_be_built_measures_the_rest_and_writes_nothing(here: Path) -> None:
    write_sweep(here, RECIPE, SWEEP)
    before = listing(here)
    answer = podium("--plan")
    assert answer["exit_code"] == 0, answer["error"]
    assert listing(here) == before  # no mlruns, no leftovers
    assert (answer["command"], answer["status"], answer["sweep"]) == ("sweep", "done", "planned")
    plan = answer["plan"]
    assert plan["combinations"] == (4 + 1) * 2
    corners = {json.dumps(list(corner["params"].values())): corner for corner in plan["corners"]}
    assert {name: corner["trainable"] for name, corner in corners.items()} == {
        "[null, 1]": True,
        "[null, 2]": True,
        "[null, 3]": True,
        "[null, 4]": False,
        '["nets:leave"]': False,
    }
    assert "8 x 8 pixels bear 3 at most" in corners["[null, 4]"]["reason"]
    assert "ended with exit code 3" in corners['["nets:leave"]']["reason"]
    assert any("2 of 5 models" in warning for warning in answer["warnings"])
    sizes = [corner["parameters"] for corner in corners.values() if corner["trainable"]]
    assert len(set(sizes)) == 3
    assert all(corner["memory_bytes"] > 10**8 for corner in corners.values() if corner["trainable"])
    assert plan["trials"] == {"min": 6, "max": 6}
    assert plan["epochs"] == {"min": 18, "max": 18}
    assert 0 < plan["seconds"]["min"] <= plan["seconds"]["max"]
    assert (plan["workers"], plan["threads"]) == (2, max(1, len(os.sched_getaffinity(0)) // 2))
    assert plan["disk_bytes"] > 12 * 4 * max(sizes)
    assert plan["images_per_second"] > 0
    assert {one["name"] for one in plan["measured"]} == {"baseline", "most work"}
    assert plan["filled_cache"] == str(here / "cache")


@pytest.mark.slow
def test_a_recipe_that_does_not_train_fails_with_its_reason_and_leaves_records_alone(here: Path) -> None:
    recipe = {**RECIPE, "model": {"builder": "nets:untrainable"}}
    space = {"optimizer.learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2}}
    write_sweep(here, recipe, {**SWEEP, "workers": 1, "space": space})
    (here / "mlruns").mkdir()
    (here / "mlruns" / "README.md").write_text("what is what")
    before = listing(here)
    answer = podium("--plan")
    assert (answer["exit_code"], answer["status"]) == (1, "failed")
    assert "this layer does not train" in answer["error"]["message"]
    assert listing(here) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--plan", "space.model.depth.high=9"), "space.model.depth"),
        (("--plan", "engine.sampler_options.speed=3"), "speed"),
        (("--plan", "--resume"), "--resume"),
    ],
)
def test_what_a_sweep_refuses_a_plan_refuses(arguments: tuple[str, ...], expected: str, here: Path) -> None:
    write_sweep(here, RECIPE, SWEEP)
    answer = podium(*arguments)
    assert answer["exit_code"] == 2
    assert expected in json.dumps(answer["error"])
    assert not (here / "mlruns").exists()
