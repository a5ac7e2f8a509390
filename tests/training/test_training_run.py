"""One training from job to result: curve, verdicts, best epoch, repeats, failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml
from training_jobs import CLASSES, PLAIN, Reports, make_job, user_code, write_arrays

from podium.digests import weights_digest
from podium.errors import DatasetError, TrialFailed
from podium.recipe import Recipe
from podium.result import EpochEvent, TrainingArrays, Verdict
from podium.training import checkpoint
from podium.training.train import train

pytestmark = pytest.mark.slow


def test_each_epoch_is_reported_once_with_all_metrics(finished: Any) -> None:
    events = finished.reports.events
    assert finished.reports.epochs() == [1, 2, 3, 4, 5]
    for event in events:
        assert set(event.metrics) == {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"}
        assert event.images == 150
        assert event.seconds > 0.0


def test_reported_rate_is_the_one_that_the_epoch_was_trained_with(finished: Any) -> None:
    losses = [metrics["val_loss"] for metrics in finished.reports.metrics()]
    rate, best, expected = 0.3, np.inf, []
    for loss in losses:  # ReduceLROnPlateau with patience 1, by hand
        expected.append(rate)
        if loss < best - 1e-4:
            best = loss
        else:
            rate /= 2
    assert expected[0] != expected[-1], "the training is to show a plateau"
    assert [metrics["learning_rate"] for metrics in finished.reports.metrics()] == pytest.approx(expected)


def test_result_is_of_the_first_best_epoch(finished: Any) -> None:
    values = [metrics["val_accuracy"] for metrics in finished.reports.metrics()]
    result = finished.result
    assert result.status == "finished"
    assert result.epochs == 5
    assert result.best_epoch == values.index(max(values)) + 1
    assert result.metrics == finished.reports.metrics()[result.best_epoch - 1]
    assert result.images_per_second > 150 / finished.reports.events[0].seconds


def test_the_job_folder_holds_history_recipe_and_summary(finished: Any) -> None:
    folder = finished.job.folder
    history = json.loads((folder / "history.json").read_text())
    assert [record["metrics"] for record in history] == finished.reports.metrics()
    assert Recipe.model_validate(yaml.safe_load((folder / "recipe.yaml").read_text())) == finished.job.recipe
    assert f"{finished.result.parameters:,}" in (folder / "summary.txt").read_text()
    assert not list(folder.glob(".*"))
    assert not (folder / "best.weights.h5").exists()


def test_final_weights_are_those_before_early_stopping_puts_the_best_back(
    arrays: TrainingArrays, tmp_path: Path
) -> None:
    values = {
        **PLAIN,
        "callbacks.early_stopping": {"monitor": "val_loss", "patience": 1},
        "training.epochs": 30,
    }
    job = make_job(
        arrays,
        tmp_path / "attempt",
        {**values, "optimizer.learning_rate": 1.0},
        metric="val_loss",
        goal="minimize",
    )
    reports = Reports()
    result = train(job, reports)
    losses = [metrics["val_loss"] for metrics in reports.metrics()]
    assert result.status == "finished"
    assert result.epochs == len(losses) < 30
    assert result.best_epoch == losses.index(min(losses)) + 1 < result.epochs
    state = checkpoint.newest(job.folder, last_epoch=30).state
    assert state is not None
    assert state.stopped
    # The training model's weights are the network's and the rates of its dropout, which are single numbers.
    last, best = ([each for each in held if each.ndim] for held in (state.weights, state.best.weights))
    assert result.final_weights_sha256 == weights_digest(last) != result.weights_sha256
    assert result.weights_sha256 == weights_digest(best)
    assert result.model_file is not None
    assert result.weights_sha256 == weights_digest(keras.saving.load_model(result.model_file).get_weights())


def test_a_repeat_in_a_used_process_is_the_same_to_the_bit(finished: Any, tmp_path: Path) -> None:
    # Something else in between, with other layers, precision and seed.
    other = {**PLAIN, "precision": "bfloat16", "training.seed": 5, "training.epochs": 1}
    between = train(make_job(finished.job.arrays, tmp_path / "other", other), Reports())
    assert between.weights_sha256 != finished.result.weights_sha256
    reports = Reports()
    job = make_job(finished.job.arrays, tmp_path / "again", finished.job.recipe.model_dump())
    again = train(job, reports)
    assert reports.metrics() == finished.reports.metrics()
    assert again.weights_sha256 == finished.result.weights_sha256
    assert again.final_weights_sha256 == finished.result.final_weights_sha256


def test_pruned_training_stops_at_once_and_keeps_its_curve(arrays: TrainingArrays, tmp_path: Path) -> None:
    reports = Reports({2: Verdict.PRUNE})
    job = make_job(arrays, tmp_path / "attempt", {**PLAIN, "training.epochs": 6})
    result = train(job, reports)
    assert (result.status, result.epochs, reports.epochs()) == ("pruned", 2, [1, 2])
    assert result.model_file is None
    assert result.not_promotable == "the training was pruned"
    assert len(json.loads((job.folder / "history.json").read_text())) == 2


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_reduced_precision_trains_on_colour_and_is_saved_in_float32(tmp_path: Path, precision: str) -> None:
    colour = write_arrays(tmp_path / "arrays", images=80, size=10, channels=3)
    values = {**PLAIN, "precision": precision, "training.epochs": 1}
    result = train(make_job(colour, tmp_path / "attempt", values), Reports())
    assert result.model_file is not None
    model = keras.saving.load_model(result.model_file)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert (model.input_shape, model.output_shape) == ((None, 10, 10, 3), (None, CLASSES))
    assert float(result.details["export_largest_difference"]) < 1e-2
    assert keras.config.dtype_policy().name == "float32"


def test_scheduled_rate_is_reported_for_each_epoch(scheduled: Any) -> None:
    found = [metrics["learning_rate"] for metrics in scheduled.reports.metrics()]
    # The rate of each epoch's last step, of 5 an epoch; the schedule is over 4 epochs, of which 2 are trained.
    assert found == pytest.approx([0.01 * 0.5 ** (4 / 20), 0.01 * 0.5 ** (9 / 20)], rel=1e-5)


def test_a_loss_that_is_no_number_ends_the_trial_at_that_batch(
    arrays: TrainingArrays, tmp_path: Path
) -> None:
    values = {
        **PLAIN,
        "model.builder": "networks:build",
        "model.parameters": {"layers": 2, "activation": "exponential"},
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 100.0,
        "training.epochs": 3,
    }
    reports = Reports()
    job = make_job(arrays, tmp_path / "attempt", values, code=user_code(tmp_path / "code"))
    with pytest.raises(TrialFailed, match=r"loss is (nan|inf) at batch \d") as failure:
        train(job, reports)
    assert failure.value.cause == "nan"
    assert "Traceback" in failure.value.traceback
    assert reports.events == []


def test_running_out_of_memory_is_told_apart(arrays: TrainingArrays, tmp_path: Path) -> None:
    code = user_code(tmp_path / "code")
    raised = make_job(arrays, tmp_path / "a", {**PLAIN, "model.builder": "networks:greedy"}, code=code)
    with pytest.raises(TrialFailed, match="no room for this network") as failure:
        train(raised, Reports())
    assert failure.value.cause == "memory"
    assert "in greedy" in failure.value.traceback
    values = {**PLAIN, "model.builder": "networks:build", "model.parameters": {"units": 10**13}}
    with pytest.raises(TrialFailed) as allocation:
        train(make_job(arrays, tmp_path / "b", values, code=code), Reports())
    assert allocation.value.cause == "memory"


def test_wrong_data_and_a_small_image_end_it_before_training(arrays: TrainingArrays, tmp_path: Path) -> None:
    deep = make_job(arrays, tmp_path / "deep", {**PLAIN, "model.depth": 4})
    with pytest.raises(TrialFailed, match=r"model\.depth"):
        train(deep, Reports())
    altered = write_arrays(tmp_path / "arrays")
    np.save(altered.labels, np.zeros(200, dtype=np.int64))
    with pytest.raises(DatasetError, match="train digest"):
        train(make_job(altered, tmp_path / "wrong", PLAIN), Reports())


def test_what_the_coordinator_raises_comes_through(arrays: TrainingArrays, tmp_path: Path) -> None:
    class Gone(Exception):
        pass

    def report(event: EpochEvent) -> Verdict:
        raise Gone(event.epoch)

    with pytest.raises(Gone):
        train(make_job(arrays, tmp_path / "attempt", {**PLAIN, "training.epochs": 2}), report)
