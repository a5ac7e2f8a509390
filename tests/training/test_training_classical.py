"""scikit-learn's classifiers as trainings of one epoch, and the guide's multilayer perceptron."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from training_jobs import CLASSES, Reports, make_job

from podium.recipe_sections import ModelSettings
from podium.result import TrainingArrays
from podium.training import data
from podium.training.model import build_network
from podium.training.train import Trainer


@pytest.mark.parametrize("name", ["logistic_regression", "random_forest", "svm"])
def test_a_classifier_is_one_epoch_with_the_same_metrics(
    arrays: TrainingArrays, tmp_path: Path, name: str
) -> None:
    values: dict[str, Any] = {"classical": {"name": name, "trees": 20}, "training.epochs": 1}
    first, again = Reports(), Reports()
    result = Trainer()(make_job(arrays, tmp_path / "1", values), first)
    repeated = Trainer()(make_job(arrays, tmp_path / "2", values), again)
    assert first.epochs() == [1]
    assert set(first.metrics()[0]) == {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"}
    assert result.metrics["val_accuracy"] > 3 / CLASSES
    assert (repeated.metrics, repeated.weights_sha256) == (result.metrics, result.weights_sha256)
    assert result.model_file is None
    assert result.not_promotable is not None
    history = json.loads((tmp_path / "1" / "history.json").read_text())
    assert history[0]["metrics"] == result.metrics


def test_figures_are_those_of_scikit_learn_itself(arrays: TrainingArrays, tmp_path: Path) -> None:
    values = {"classical": {"name": "logistic_regression", "c": 0.1}, "training.epochs": 1}
    result = Trainer()(make_job(arrays, tmp_path, values), Reports())
    loaded = data.load(arrays)
    pixels = loaded.images.reshape(len(loaded.images), -1).astype(np.float32) / 255
    scaler = StandardScaler().fit(pixels[loaded.train])
    model = LogisticRegression(C=0.1, max_iter=200).fit(
        scaler.transform(pixels[loaded.train]), loaded.labels[loaded.train]
    )
    held = scaler.transform(pixels[loaded.validation])
    labels = loaded.labels[loaded.validation]
    assert result.metrics["val_accuracy"] == pytest.approx(model.score(held, labels))
    assert result.metrics["val_loss"] == pytest.approx(log_loss(labels, model.predict_proba(held)), rel=1e-3)


def test_the_guides_perceptron_is_its_head_alone() -> None:
    network = build_network(ModelSettings(network="mlp", depth=4, dense_units=8), (4, 4, 1), 3)
    kinds = [type(layer).__name__ for layer in network.layers[1:]]
    assert kinds == ["Flatten", *["Dense", "BatchNormalization", "Dropout"] * 2, "Dense"]
