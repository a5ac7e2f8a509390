"""A whole sweep through the command line: real data, real workers, real stores; seen with MLflow's own client."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from command_line import podium
from mlflow.tracking import MlflowClient

ROOT = Path(__file__).parents[2]
RECIPE = """
data: {reference: digits, train_limit: 200, validation: {fraction: 0.2}}
model: {depth: 1, filters: 4, dense_units: 16}
augmentation: {strength: 0.0}
training: {epochs: 2, batch_size: 50}
checks: {val_accuracy: {at_least: 0.999}, gap: {at_most: 1.0}}
"""
SWEEP = """
name: small
question: Does it run?
recipe: recipe.yaml
engine: {name: optuna, sampler: random, pruner: none, seed: 1}
budget: {trials: 4}
workers: 2
space:
  optimizer.learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, scale: log}
  model.depth: {type: int, low: 1, high: 2}
  model.dense_units: {type: categorical, choices: [8, 16], when: {model.depth: [1]}}
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "sweep.yaml").write_text(SWEEP)
    answer, done = podium(folder, "sweep", "sweep.yaml")
    assert done.returncode == 0, done.stderr
    return folder, answer


@pytest.fixture
def client(swept: tuple[Path, dict[str, Any]]) -> MlflowClient:
    return MlflowClient(f"sqlite:///{swept[0] / 'mlruns' / 'mlflow.db'}")


@pytest.mark.slow
class TestSweep:
    def test_answer_has_the_fixed_keys(self, swept: tuple[Path, dict[str, Any]]) -> None:
        answer = swept[1]
        assert answer["trials"] == {"total": 4, "complete": 4, "pruned": 0, "failed": 0, "duplicate": 0}
        assert set(answer["best"]) == {"trial", "run_id", "value", "params"}
        assert (answer["epochs_trained"], answer["epochs_saved"], answer["error"]) == (8, 0, None)
        assert set(answer) >= {"sweep", "study", "parent_run_id", "seconds", "compare_url", "resume_command"}

    def test_mlflow_holds_one_parent_and_its_children_with_curves(
        self, swept: tuple[Path, dict[str, Any]], client: MlflowClient
    ) -> None:
        [experiment] = [each for each in client.search_experiments() if each.name == "small"]
        runs = client.search_runs([experiment.experiment_id])
        parents = [run for run in runs if run.data.tags.get("mlflow.parentRunId") is None]
        children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
        assert (len(parents), len(children)) == (1, 4)
        for run in children:
            assert run.info.status == "FINISHED"
            for metric in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
                steps = [point.step for point in client.get_metric_history(run.info.run_id, metric)]
                assert steps == [1, 2], metric
            assert run.data.params["data.reference"] == "digits"
            assert {"podium.train_digest", "podium.split_digest", "podium.test_digest"} <= set(run.data.tags)
            assert run.inputs.dataset_inputs

    def test_each_child_has_its_files_and_the_best_one_a_model(
        self, swept: tuple[Path, dict[str, Any]], client: MlflowClient
    ) -> None:
        folder, answer = swept
        experiment = client.get_experiment_by_name("small")
        assert experiment is not None
        for run in client.search_runs([experiment.experiment_id], "tags.`podium.kind` = 'trial'"):
            names = {item.path for item in client.list_artifacts(run.info.run_id)}
            assert names >= {"recipe.yaml", "curves.png", "summary.txt", "best.keras", "predictions.npz"}
        best = client.get_run(answer["best"]["run_id"])
        file = Path(client.download_artifacts(best.info.run_id, "best.keras"))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert best.data.tags["podium.model_sha256"] == digest
        [model] = client.search_logged_models([experiment.experiment_id])
        assert model.source_run_id == best.info.run_id
        inside = next((folder / "mlruns" / "artifacts").rglob("data/model.keras"))
        assert hashlib.sha256(inside.read_bytes()).hexdigest() == digest

    def test_typed_again_it_prints_its_result_and_trains_nothing(
        self, swept: tuple[Path, dict[str, Any]]
    ) -> None:
        folder, answer = swept
        again, done = podium(folder, "sweep", "sweep.yaml")
        assert done.returncode == 0
        assert again == answer

    def test_a_grown_budget_asks_for_resume_and_then_counts_on(
        self, swept: tuple[Path, dict[str, Any]]
    ) -> None:
        folder, answer = swept
        refused, done = podium(folder, "sweep", "sweep.yaml", "--trials", "5")
        assert done.returncode == 2
        assert "--resume" in refused["error"]["remedy"]
        # Checks judge a training afterwards: others are no other sweep.
        grown, done = podium(
            folder, "sweep", "sweep.yaml", "checks.gap.at_most=0.9", "--trials", "5", "--resume"
        )
        assert done.returncode == 0, done.stderr
        assert grown["trials"]["total"] == 5
        assert grown["parent_run_id"] == answer["parent_run_id"]

    def test_resume_of_a_changed_file_names_the_difference(self, swept: tuple[Path, dict[str, Any]]) -> None:
        refused, done = podium(swept[0], "sweep", "sweep.yaml", "training.epochs=3", "--resume")
        assert done.returncode == 2
        assert "recipe.training.epochs" in {fault["key"] for fault in refused["error"]["faults"]}

    def test_compare_ranks_and_writes_a_page(self, swept: tuple[Path, dict[str, Any]]) -> None:
        folder, _ = swept
        answer, done = podium(folder, "compare", "small", "--report", "report.html")
        assert done.returncode == 0, done.stderr
        values = [row["value"] for row in answer["sweeps"][0]["ranking"]]
        assert values == sorted(values, reverse=True)
        checked = answer["sweeps"][0]["checks"]
        assert len(checked) == len(values)
        for trial in checked:
            assert trial["passed"] is False
            assert [(each["name"], each["passed"]) for each in trial["checks"]] == [
                ("val_accuracy", False),
                ("gap", True),
            ]
        page = (folder / "report.html").read_text()
        assert "Checks of the recipe" in page
        assert "≥ 0.999" in page
        assert "<html" in (folder / "report.html").read_text()

    def test_status_knows_that_it_is_over(self, swept: tuple[Path, dict[str, Any]]) -> None:
        answer, done = podium(swept[0], "status", "small")
        assert done.returncode == 0
        assert answer["running"] is False
        _, stopped = podium(swept[0], "stop", "small")
        assert stopped.returncode == 2
