"""Sweeps of both engines with real training; Optuna's own dashboard reads what they leave."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

RECIPE = """
data: {reference: digits, train_limit: 150, validation: {fraction: 0.1}}
model: {depth: 1, filters: 4, dense_units: 16}
augmentation: {strength: 0.0}
training: {epochs: 4, batch_size: 50}
"""
SWEEP = """
name: small
recipe: recipe.yaml
engine: {name: optuna, sampler: tpe, pruner: successive_halving, seed: 1}
budget: {trials: 3}
workers: 1
space:
  optimizer.learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, scale: log}
  model.dropout: {type: float, low: 0.0, high: 0.5}
"""
METHODS = {
    "optuna": [],
    "hyperband": [
        "engine.name=keras_tuner",
        "engine.oracle=hyperband",
        "budget.trials=null",
        "budget.epochs=16",
    ],
}
START_SECONDS = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "sweep.yaml").write_text(SWEEP)
    return folder


@pytest.fixture(scope="module")
def swept(folder: Path) -> dict[str, dict[str, Any]]:
    """What each method's sweep answered."""
    answers = {}
    for name, settings in METHODS.items():
        done = subprocess.run(
            [sys.executable, "-m", "podium.cli", "sweep", "sweep.yaml", f"name={name}", *settings, "--json"],
            cwd=folder,
            env={**os.environ, "PODIUM_CACHE": str(folder / "cache")},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers[name] = json.loads(done.stdout)
    return answers


@pytest.mark.slow
def test_a_sweep_of_real_trainings_ends_with_its_budget(swept: dict[str, dict[str, Any]]) -> None:
    trials = swept["optuna"]["trials"]
    assert trials["total"] == 3
    assert trials["complete"] + trials["pruned"] + trials["duplicate"] == 3
    assert swept["optuna"]["best"]["value"] > 0.0


@pytest.mark.slow
def test_what_hyperband_promotes_goes_on_from_its_checkpoint(
    swept: dict[str, dict[str, Any]], folder: Path
) -> None:
    answer = swept["hyperband"]
    assert answer["epochs_trained"] == 16
    client = MlflowClient(f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
    parent = client.get_run(answer["parent_run_id"])
    runs = client.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    )
    promoted = [run for run in runs if "podium.continues_trial" in run.data.tags]
    assert promoted
    by_trial = {run.data.tags["podium.trial"]: run for run in runs}
    for run in promoted:
        before = by_trial[run.data.tags["podium.continues_trial"]]
        last = max(each.step for each in client.get_metric_history(before.info.run_id, "val_accuracy"))
        first = min(
            each.step for each in client.get_metric_history(run.info.run_id, "val_accuracy") if each.step > 0
        )
        assert first == last + 1


@pytest.fixture(scope="module")
def dashboard(swept: dict[str, dict[str, Any]], folder: Path) -> Iterator[str]:
    """The address of Optuna's dashboard on the sweeps' study store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = f"sqlite:///{folder / 'mlruns' / 'studies.db'}"
    command = [sys.executable, "-c", "from optuna_dashboard._cli import main; main()", store]
    log = (folder / "dashboard.log").open("w")
    server = subprocess.Popen([*command, "--port", str(port), "--quiet"], stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                _get(f"{address}/api/studies")
                break
            except urllib.error.URLError:
                assert server.poll() is None, (folder / "dashboard.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()
        log.close()


def _get(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.slow
@pytest.mark.parametrize("method", list(METHODS))
def test_optunas_dashboard_shows_the_study_with_its_curves(
    method: str, dashboard: str, swept: dict[str, dict[str, Any]]
) -> None:
    studies = {
        study["study_name"]: study["study_id"]
        for study in _get(f"{dashboard}/api/studies")["study_summaries"]
    }
    study = _get(f"{dashboard}/api/studies/{studies[swept[method]['study']]}")
    assert len(study["trials"]) == swept[method]["trials"]["total"]
    assert (
        sum(len(trial["intermediate_values"]) for trial in study["trials"]) == swept[method]["epochs_trained"]
    )
    searched = {parameter["name"] for trial in study["trials"] for parameter in trial["params"]}
    assert searched == {"optimizer.learning_rate", "model.dropout"}
