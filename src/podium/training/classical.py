"""Owns training of scikit-learn's classifiers on pixels, for comparison: one epoch, the same metrics, no model file."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from podium.recipe_sections import ClassicalSettings
from podium.result import EpochEvent, TrainingJob, TrainingResult, Verdict
from podium.training import data
from podium.training.data import LoadedArrays

_SMALLEST_PROBABILITY = 1e-7


def train_classical(job: TrainingJob, report: Callable[[EpochEvent], Verdict]) -> TrainingResult:
    """Fit a recipe's classifier and report it as one epoch.

    `weights_sha256` hashes its validation probabilities, as it has no weights of a common form. The loss is the log
    loss; of `svm` that of the softmax of its decision values, which are no probabilities.
    """
    assert job.recipe.classical is not None
    arrays = data.load(job.arrays)
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "recipe.yaml").write_text(yaml.safe_dump(job.recipe.model_dump(), sort_keys=False))
    classifier = build(job.recipe.classical, seed=job.recipe.training.seed)
    began = time.perf_counter()
    train_pixels, train_labels = _flat(arrays, arrays.train)
    classifier.fit(train_pixels, train_labels)
    trained = time.perf_counter() - began
    validated = _probabilities(classifier, _flat(arrays, arrays.validation)[0], arrays.classes)
    fitted = _probabilities(classifier, train_pixels, arrays.classes)
    metrics = {
        **_scores("", fitted, train_labels),
        **_scores("val_", validated, np.asarray(arrays.labels[arrays.validation])),
        "learning_rate": 0.0,
    }
    seconds = time.perf_counter() - began
    images = len(arrays.train)
    _write_history(job, metrics, seconds, images)
    verdict = report(EpochEvent(epoch=1, metrics=metrics, seconds=seconds, images=images))
    digest = hashlib.sha256(np.ascontiguousarray(validated, dtype="<f8").tobytes()).hexdigest()
    return TrainingResult(
        status="pruned" if verdict is Verdict.PRUNE else "finished",
        best_epoch=1,
        metrics=metrics,
        epochs=1,
        seconds=seconds,
        images_per_second=images / trained,
        weights_sha256=digest,
        final_weights_sha256=digest,
        parameters=0,
        device="processor",
        threads=1,
        not_promotable="it is a scikit-learn classifier, trained for comparison",
    )


def build(settings: ClassicalSettings, *, seed: int) -> Any:
    """The classifier, on pixels in [0, 1]."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    match settings.name:
        case "logistic_regression":
            return make_pipeline(
                StandardScaler(), LogisticRegression(C=settings.c, max_iter=settings.iterations)
            )
        case "random_forest":
            return RandomForestClassifier(settings.trees, random_state=seed)
        case "svm":
            return make_pipeline(StandardScaler(), SVC(C=settings.c, decision_function_shape="ovr"))


def _flat(arrays: LoadedArrays, indices: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    images = arrays.images[indices]
    return images.reshape(len(images), -1).astype(np.float32) / 255.0, np.asarray(arrays.labels[indices])


def _probabilities(classifier: Any, pixels: NDArray[np.float32], classes: int) -> NDArray[np.float64]:
    if hasattr(classifier, "predict_proba"):
        found = np.asarray(classifier.predict_proba(pixels), dtype=np.float64)
    else:
        values = np.asarray(classifier.decision_function(pixels), dtype=np.float64)
        if values.ndim == 1:  # two classes have one value
            values = np.stack([-values, values], axis=1)
        shifted = np.exp(values - values.max(axis=1, keepdims=True))
        found = shifted / shifted.sum(axis=1, keepdims=True)
    # Classes that the training images do not have are not in the answer.
    all_classes = np.zeros((len(found), classes))
    all_classes[:, classifier.classes_] = found
    return all_classes


def _scores(prefix: str, probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    right = probabilities[np.arange(len(labels)), labels]
    return {
        f"{prefix}loss": float(-np.log(np.maximum(right, _SMALLEST_PROBABILITY)).mean()),
        f"{prefix}accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
    }


def _write_history(job: TrainingJob, metrics: dict[str, float], seconds: float, images: int) -> None:
    history = [{"epoch": 1, "metrics": metrics, "seconds": seconds, "images": images}]
    (job.folder / "history.json").write_text(json.dumps(history, allow_nan=False))
