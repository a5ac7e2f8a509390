"""What the command line promises: help at once, JSON alone on standard output, exit codes, no traces of bad input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PODIUM = [sys.executable, "-m", "podium.cli"]


def podium(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PODIUM, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_help_takes_less_than_three_tenths_of_a_second(tmp_path: Path) -> None:
    # Processor time of the child, so that a busy machine does not decide: it starts no other process.
    seconds = []
    for _ in range(5):
        before = os.times()
        assert podium("--help", cwd=tmp_path).returncode == 0
        after = os.times()
        seconds.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    assert 0 < min(seconds) < 0.3


def test_help_loads_no_heavy_library(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['podium', '--help']\n"
        "from podium.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'tensorflow', 'keras', 'mlflow', 'optuna', 'pandas', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "[]"


def commands() -> list[str]:
    from podium.cli import cli

    return list(cli.commands)


@pytest.mark.parametrize("command", commands())
def test_every_command_has_help_an_example_and_json(command: str, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from podium.cli import cli

    text = CliRunner().invoke(cli, [command, "--help"]).output
    assert f"Example: podium {command}" in " ".join(text.split())
    assert "--json" in text
    assert cli.commands[command].help


def test_a_missing_file_is_one_json_object_and_exit_code_2(tmp_path: Path) -> None:
    done = podium("sweep", "nothing.yaml", "--json", cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert done.returncode == answer["exit_code"] == 2
    assert (answer["command"], answer["status"]) == ("sweep", "invalid")
    assert answer["error"]["message"] == "no file nothing.yaml."
    assert answer["warnings"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("sweep",),
        ("swep",),
        ("sweep", "x.yaml", "--trials", "many"),
        ("sweep", "x.yaml", "--resume", "--new"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_the_remedy(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = podium(*arguments, "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["message"]


BAD_RUNS = {
    "unknown data": ("data.reference=cifar11", "cifar11"),
    "missing data file": ("data.reference=npz:nothing.npz", "nothing.npz"),
    "batch above the training set": ("training.batch_size=5000", "batch"),
    "builder that does not import": ("model.builder=nowhere:build", "nowhere"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD_RUNS, ids=list(BAD_RUNS))
def test_bad_input_leaves_no_record(case: str, tmp_path: Path) -> None:
    assignment, expected = BAD_RUNS[case]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {reference: digits}\ntraining: {epochs: 1}\n")
    done = podium(
        "train", str(recipe), assignment, "--json", cwd=tmp_path, PODIUM_CACHE=str(tmp_path / "cache")
    )
    answer = json.loads(done.stdout)
    assert done.returncode == 2, done.stderr
    assert expected in json.dumps(answer["error"])
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.slow
def test_unwritable_mlruns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlruns").write_text("a file where the folder should be")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {reference: digits}\n")
    done = podium("train", str(recipe), "--json", cwd=tmp_path, PODIUM_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 2
    assert "cannot write" in json.loads(done.stdout)["error"]["message"]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
class TestMake:
    def test_help_lists_every_target(self) -> None:
        text = make("help").stdout
        named = (ROOT / "Makefile").read_text()
        phony = next(line for line in named.splitlines() if line.startswith(".PHONY:"))
        for target in phony.removeprefix(".PHONY:").split():
            if target not in ("help", "setup-dev"):
                assert f"make {target} " in text, target

    def test_a_recipe_key_as_a_make_variable_is_refused_with_the_right_words(self) -> None:
        done = make("-n", "sweep", "training.epochs=2")
        assert done.returncode == 2
        assert "SET='training.epochs=2'" in done.stderr

    def test_set_reaches_the_command(self) -> None:
        done = make("-n", "sweep", "SET=training.epochs=2 engine.sampler=random", "TRIALS=3", "DATA=a b.zip")
        assert "training.epochs=2 engine.sampler=random --data 'a b.zip' --trials 3" in done.stdout
