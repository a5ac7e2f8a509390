"""Owns the measures of a saved model on labelled images; needs Keras and numpy alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

CALIBRATION_BINS = 15
LARGEST_BATCH = 256
LAYER_VALUES = 1 << 25  # 128 MB of float32
SMALLEST_PROBABILITY = 1e-7  # A certain mistake costs 16.1, not infinity, as where Keras sees no logits.


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """`confusion[i, j]` counts images of class i that were taken for j. `class_accuracy` holds None for a class
    without images. `calibration_error`: see calibration_error()."""

    loss: float
    accuracy: float
    class_accuracy: tuple[float | None, ...]
    confusion: NDArray[np.int64]
    calibration_error: float
    probabilities: NDArray[np.float32]


def evaluate(model_file: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Evaluation:
    """Load a .keras file in safe mode and measure it.

    images: uint8 (n, height, width, channels), may be memory-mapped; labels: integers (n,).
    Raises: ValueError if there are no images, or labels that the model does not know.
    """
    model = keras.saving.load_model(model_file, compile=False, safe_mode=True)
    return measure(predict(model, images), labels)


def predict(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities, float32 (n, classes), computed in batches whose activations fit in memory."""
    batch = batch_size(model)
    parts = [model.predict_on_batch(images[start : start + batch]) for start in range(0, len(images), batch)]
    if not parts:
        raise ValueError("there are no images to evaluate.")
    return np.concatenate(parts).astype(np.float32)


def batch_size(model: Any) -> int:
    """Images at once: as many as keep a layer's output within 128 MB, 256 at most."""
    return max(1, min(LARGEST_BATCH, LAYER_VALUES // max(_values(model), default=1)))


def _values(model: Any) -> Iterator[int]:
    """How many values each layer's output has for one image, of layers that tell it."""
    for layer in model._flatten_layers():
        try:
            outputs = layer.output
        except (AttributeError, ValueError):  # called in several places, or on no symbol
            continue
        for output in outputs if isinstance(outputs, list) else [outputs]:
            if isinstance(output, keras.KerasTensor) and None not in output.shape[1:]:
                yield math.prod(output.shape[1:])


def measure(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> Evaluation:
    """All measures of predicted probabilities (n, classes) against labels (n,)."""
    count, classes = probabilities.shape
    labels = np.asarray(labels)
    if labels.shape != (count,) or not count or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must be {count} numbers from 0 to {classes - 1}, one an image; got shape {labels.shape}"
            + (f" with {labels.min()} to {labels.max()}." if labels.size else ".")
        )
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    of_truth = probabilities[np.arange(count), labels].astype(np.float64)
    return Evaluation(
        loss=float(-np.log(np.clip(of_truth, SMALLEST_PROBABILITY, 1.0)).mean()),
        accuracy=float((predicted == labels).mean()),
        class_accuracy=tuple(
            float(row[index] / row.sum()) if row.sum() else None for index, row in enumerate(confusion)
        ),
        confusion=confusion,
        calibration_error=calibration_error(probabilities, labels),
        probabilities=probabilities,
    )


def calibration_error(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Expected calibration error: how far confidence is from accuracy, weighted over 15 equal bins of confidence.

    Source: Guo et al., 2017, On Calibration of Modern Neural Networks.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    sums = np.bincount(bins, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(sums).sum() / len(labels))
