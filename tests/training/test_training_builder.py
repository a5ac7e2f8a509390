"""A user's own model: found under its root, forgotten afterwards, refused clearly when it is no model."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from training_jobs import CLASSES, PLAIN, Reports, make_job, user_code

from podium.errors import InvalidInput, TrialFailed
from podium.recipe import Recipe
from podium.result import TrainingArrays
from podium.training.builder import check_builder, import_root, load_builder
from podium.training.model import build_network
from podium.training.train import train

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"


def recipe(builder: str, **parameters: Any) -> Recipe:
    return Recipe().with_values({"model.builder": builder, "model.parameters": parameters})


def test_two_roots_with_modules_of_one_name_do_not_mix(tmp_path: Path) -> None:
    for name in ("one", "two"):
        code = user_code(
            tmp_path / name, f"from parts.inner import NAME\ndef build(*shape): return NAME, '{name}'\n"
        )
        user_code(code / "parts", f"NAME = '{name}'\n", "inner")
    before = (list(sys.path), set(sys.modules))
    for name in ("one", "two", "one"):
        with import_root(tmp_path / name):
            assert load_builder("networks:build")() == (name, name)
    assert (list(sys.path), set(sys.modules)) == before
    assert not list(tmp_path.rglob("__pycache__")), "the folder is hashed and must stay as it is"


def test_a_module_that_is_loaded_already_gives_way_and_comes_back(tmp_path: Path) -> None:
    import training_jobs

    code = user_code(tmp_path, "def build(): return 'mine'\n", "training_jobs")
    with import_root(code):
        assert load_builder("training_jobs:build")() == "mine"
    assert sys.modules["training_jobs"] is training_jobs


@pytest.mark.parametrize(
    ("builder", "text", "message"),
    [
        ("nowhere:build", "", "no module 'nowhere'"),
        ("networks:build", "import a_library_nobody_has\n", "no module 'a_library_nobody_has'"),
        ("networks:build", "x = 1\nx.y\n", r"AttributeError: .* \(.*networks\.py:2\)"),
        ("networks:build", "def build(:\n", "SyntaxError"),
        ("networks:missing", "def build(): pass\n", "has no function 'missing'"),
        ("networks:answer", "answer = 42\n", "has no function 'answer'"),
    ],
)
def test_a_builder_that_does_not_import_is_refused_early(
    tmp_path: Path, builder: str, text: str, message: str
) -> None:
    code = user_code(tmp_path, text)
    with pytest.raises(InvalidInput, match=message) as refusal:
        check_builder(recipe(builder), code)
    assert refusal.value.faults[0].key == "model.builder"
    assert refusal.value.faults[0].got == builder


def test_a_builder_that_imports_passes(tmp_path: Path) -> None:
    check_builder(recipe("networks:build"), user_code(tmp_path))
    check_builder(Recipe(), None)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("number", {}, "returned int, not a keras.Model"),
        ("wide", {}, r"gives \(2, 11\) for 2 images; expected \(2, 10\)"),
        ("build", {"softmax": False}, "does not give class probabilities"),
        ("missing", {}, "has no function 'missing'"),
    ],
)
def test_what_is_no_classifier_is_refused(
    tmp_path: Path, name: str, parameters: dict[str, Any], message: str
) -> None:
    settings = recipe(f"networks:{name}", **parameters).model
    with import_root(user_code(tmp_path)), pytest.raises(TrialFailed, match=message) as failure:
        build_network(settings, (8, 8, 1), CLASSES)
    assert failure.value.cause == "error"


@pytest.mark.slow
def test_a_network_of_stock_layers_is_saved_and_gets_its_parameters(
    arrays: TrainingArrays, tmp_path: Path
) -> None:
    values = {
        **PLAIN,
        "model.builder": "networks:build",
        "model.parameters": {"units": 3},
        "training.epochs": 1,
    }
    job = make_job(arrays, tmp_path / "attempt", values, code=user_code(tmp_path / "code"))
    result = train(job, Reports())
    assert result.parameters == 64 * 3 + 3 + 3 * CLASSES + CLASSES
    assert result.model_file is not None
    assert result.not_promotable is None


@pytest.mark.slow
def test_the_example_of_the_guide_trains_and_passes_the_gate(arrays: TrainingArrays, tmp_path: Path) -> None:
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL))
    model = yaml.safe_load(blocks["yaml"])["model"]
    values = {**PLAIN, "training.epochs": 1, **{f"model.{key}": value for key, value in model.items()}}
    code = user_code(tmp_path / "code", blocks["python"], name="squeeze")
    result = train(make_job(arrays, tmp_path / "attempt", values, code=code), Reports())
    assert (result.model_file, result.not_promotable) == (tmp_path / "attempt" / "best.keras", None)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "reason"), [("own_layer", "Twice"), ("with_lambda", "Lambda")])
def test_a_network_with_own_objects_trains_and_says_why_it_cannot_be_promoted(
    arrays: TrainingArrays, tmp_path: Path, name: str, reason: str
) -> None:
    values = {**PLAIN, "model.builder": f"networks:{name}", "training.epochs": 1}
    job = make_job(arrays, tmp_path / "attempt", values, code=user_code(tmp_path / "code"))
    result = train(job, Reports())
    assert result.status == "finished"
    assert result.model_file is None
    assert "not made of stock Keras objects" in str(result.not_promotable)
    assert reason in str(result.not_promotable)
    assert not (job.folder / "best.keras").exists()
