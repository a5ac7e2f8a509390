"""Damaged sweep files and recipes are read or refused with words; nothing else happens."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import IS_LONG, WORDS, damaged_yaml, fuzzed

from podium.cli import cli
from podium.engines.make import option_faults
from podium.errors import InvalidInput
from podium.recipe import Recipe, read_recipe
from podium.sweep_file import Sweep, read_sweep, recipe_with_assignments

ROOT = Path(__file__).parents[2]
SWEEPS = [path.read_text() for path in sorted((ROOT / "sweeps").glob("*.yaml"))]
RECIPES = [path.read_text() for path in sorted((ROOT / "experiments").glob("*.yaml"))]
ASSIGNMENTS = (
    *(
        "training.epochs=2",
        "training.epochs=",
        "training.epochs=x",
        "training.epochs=1e3",
        "training.epochs=9" * 50,
    ),
    *(
        "=",
        "a",
        "a=",
        ".=1",
        "..=1",
        "model=1",
        "model.=1",
        "model..depth=1",
        "model.depth.x=1",
        "model.parameters.a=1",
    ),
    *(
        "space=1",
        "space.=1",
        "space.model.depth=3",
        "space.model.depth.low=2",
        "space.x={type: int}",
        "space.a.b=[]",
    ),
    *(
        "engine=optuna",
        "engine.name=keras_tuner",
        "engine.name=[]",
        "engine.name.x=1",
        "engine.sampler=gp",
        "name=x",
    ),
    *(
        "budget=3",
        "budget.trials=null",
        "objective=[]",
        "objective.0.metric=x",
        "confirm.top.x=1",
        "workers={}",
    ),
    *(
        "recipe=../..",
        "recipe=/dev/zero",
        "code=..",
        "data.reference=&a [*a]",
        "optimizer.schedule.name=cosine",
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the repository has it: recipes in experiments/, sweeps beside them."""
    root = tmp_path_factory.mktemp("settings")
    (root / "experiments").mkdir()
    (root / "sweeps").mkdir()
    for path in (ROOT / "experiments").glob("*.yaml"):
        (root / "experiments" / path.name).write_text(path.read_text())
    return root


def read(path: Path, assignments: list[str]) -> Sweep | InvalidInput:
    try:
        sweep = read_sweep(path, assignments)
        # Checking KerasTuner's options imports TensorFlow.
        faults = option_faults(sweep.file) if IS_LONG or sweep.file.engine.name != "keras_tuner" else []
    except InvalidInput as error:
        return error
    return InvalidInput("the engine's options have faults.", faults=faults) if faults else sweep


def check_words(error: InvalidInput) -> None:
    assert error.message.strip()
    assert all(fault.message.strip() for fault in error.faults)
    str(error).encode("utf-8", errors="surrogatepass")


@fuzzed
@given(text=st.sampled_from(SWEEPS), random=st.randoms(use_true_random=False))
def test_a_damaged_sweep_file_is_read_or_refused(folder: Path, text: str, random: Random) -> None:
    path = folder / "sweeps" / "damaged.yaml"
    path.write_bytes(damaged_yaml(text, random))
    result = read(path, [])
    if isinstance(result, InvalidInput):
        check_words(result)
    else:
        # What is accepted can be put on record.
        assert len(result.identity(train_digest="0" * 64, code_digest=None)) == 64
        json.dumps(result.document(), allow_nan=False)


@fuzzed
@given(text=st.sampled_from(RECIPES), random=st.randoms(use_true_random=False))
def test_a_damaged_recipe_is_read_or_refused(folder: Path, text: str, random: Random) -> None:
    path = folder / "experiments" / "damaged.yaml"
    path.write_bytes(damaged_yaml(text, random))
    try:
        recipe = read_recipe(path)
    except InvalidInput as error:
        check_words(error)
    else:
        assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
        json.dumps(recipe.flat(), allow_nan=False)


@fuzzed
@example(assignments=["training.epochs="], more=[b"!!timestamp "])
@example(assignments=["engine.name.x=1"], more=[])
@example(assignments=["objective.0.metric=x"], more=[])
@example(assignments=["space.model.depth.high=1"], more=[b"0" * 400])
@given(
    assignments=st.lists(st.sampled_from(ASSIGNMENTS), min_size=1, max_size=4),
    more=st.lists(st.sampled_from(WORDS), max_size=2),
)
def test_assignments_are_taken_or_refused(folder: Path, assignments: list[str], more: list[bytes]) -> None:
    tail = b"".join(more).decode("latin-1")
    words = [*assignments[:-1], assignments[-1] + tail]
    path = folder / "sweeps" / "whole.yaml"
    path.write_text(SWEEPS[-1])
    result = read(path, words)
    if isinstance(result, InvalidInput):
        check_words(result)
    try:
        recipe_with_assignments(folder / "experiments" / "baseline.yaml", words, data=None, seed=None)
    except InvalidInput as error:
        check_words(error)


@fuzzed
@given(command=st.sampled_from(("sweep", "train")), random=st.randoms(use_true_random=False))
def test_the_command_refuses_with_exit_code_2_and_leaves_no_record(
    folder: Path, command: str, random: Random
) -> None:
    place = "sweeps" if command == "sweep" else "experiments"
    path = folder / place / "damaged.yaml"
    path.write_bytes(damaged_yaml(random.choice(SWEEPS if command == "sweep" else RECIPES), random))
    if _is_accepted(command, path):
        return  # it would train
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PODIUM_CACHE", str(folder / "cache"))
        ended = CliRunner().invoke(cli, [command, str(path), "--json"])
    assert ended.exit_code == 2, ended.output
    answer = json.loads(ended.stdout)
    assert answer["status"] == "invalid"
    assert answer["error"]["message"]
    assert sorted(each.name for each in folder.iterdir()) == ["experiments", "sweeps"]


def _is_accepted(command: str, path: Path) -> bool:
    if command == "sweep":
        return isinstance(read(path, []), Sweep)
    try:
        read_recipe(path)
    except InvalidInput:
        return False
    return True
