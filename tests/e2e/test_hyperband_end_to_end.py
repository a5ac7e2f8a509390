"""A Hyperband sweep with real training: what is promoted goes on from its checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import podium
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
engine: {name: keras_tuner, oracle: hyperband, seed: 1}
budget: {epochs: 16}
workers: 1
space:
  optimizer.learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, scale: log}
  model.dropout: {type: float, low: 0.0, high: 0.5}
"""


@pytest.mark.slow
def test_what_hyperband_promotes_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    answer, done = podium(tmp_path, "sweep", "sweep.yaml")
    assert done.returncode == 0, done.stderr
    assert answer["epochs_trained"] == 16
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}")
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
    compared, _ = podium(tmp_path, "compare", "small")
    assert sum(each["epochs_trained"] for each in compared["sweeps"]) == 16
