"""Owns one small sweep of real trainings that nothing disturbs: what the disturbed ones are held against."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from records import Trial, read_runs, read_study
from sweep_start import Place

TRIALS, EPOCHS = 2, 6
NAME = "digits-faults"
RECIPE = f"""
data: {{reference: digits, train_limit: 300, validation: {{fraction: 0.2}}}}
model: {{depth: 1, filters: 8, dense_units: 32, dropout: 0.1, dense_dropout: 0.1}}
augmentation: {{strength: 0.3}}
optimizer: {{learning_rate: 0.005}}
training: {{epochs: {EPOCHS}, batch_size: 20}}
"""
SWEEP = f"""
name: {NAME}
question: Does a killed training end as it would have?
recipe: recipe.yaml
engine: {{name: optuna, sampler: random, pruner: none, seed: 1}}
budget: {{trials: {TRIALS}}}
workers: 1
space:
  optimizer.learning_rate: {{type: float, low: 1.0e-3, high: 1.0e-2, scale: log}}
"""
# Places in MLflow's tables that hold addresses of files.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


@dataclass(frozen=True)
class Ended:
    """What a training came to: to be equal to the bit, with or without kills."""

    weights: str
    curve: dict[int, float]
    parameters: dict[str, Any]


class RealPlace(Place):
    """A place whose sweep trains for real."""

    toys: ClassVar[bool] = False

    def rewrite(self) -> None:
        (self.root / "recipe.yaml").write_text(RECIPE)
        (self.root / "sweep.yaml").write_text(SWEEP)


def reference(folder: Path, template: Path) -> RealPlace:
    """Run the sweep, undisturbed, in a Python of its own."""
    place = RealPlace(folder, name=NAME)
    place.prepare(template)
    podium(place, "sweep", "sweep.yaml")
    return place


def podium(place: Place, *words: str) -> None:
    """A command as a person gives it. Raises: RuntimeError with all that it says if it fails."""
    command = [sys.executable, "-m", "podium.cli", *words]
    done = subprocess.run(command, cwd=place.root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"podium {' '.join(words)} ended with {done.returncode}: {done.stderr}")


def ended(place: Place) -> list[Ended]:
    """What the trials came to."""
    return [_ended(trial) for trial in read_study(place)[1]]


def _ended(trial: Trial) -> Ended:
    weights = str(trial.result.get("final_weights_sha256"))
    return Ended(weights=weights, curve=trial.curve, parameters=trial.parameters)


def copy_of(source: Place, root: Path) -> RealPlace:
    """The same place elsewhere, its addresses put right."""
    root.mkdir(exist_ok=True)
    shutil.copytree(source.root / "mlruns", root / "mlruns", dirs_exist_ok=True)
    with closing(sqlite3.connect(root / "mlruns" / "mlflow.db")) as database:
        for table, column in ADDRESSES:
            database.execute(
                f"update {table} set {column} = replace({column}, ?, ?)", (str(source.root), str(root))
            )
        database.commit()
    place = RealPlace(root, name=source.name)
    place.rewrite()
    place.order({})
    return place


def run_of(place: Place, trial: int) -> str:
    """The id of a trial's run."""
    return next(run.id for run in read_runs(place)[1] if run.tags["podium.trial"] == str(trial))


def sha256_of(file: Path) -> str:
    """Of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
