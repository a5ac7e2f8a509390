"""Small images, a coordinator's part, and files of user code, for the tests of the training room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from podium.digests import arrays_digest, split_digest
from podium.recipe import Recipe
from podium.result import EpochEvent, TrainingArrays, TrainingJob, Verdict

CLASSES = 10
SMALL = {
    "model.depth": 1,
    "model.filters": 4,
    "model.dense_units": 16,
    "model.dense_dropout": 0.1,
    "training.batch_size": 32,
    "optimizer.learning_rate": 1e-2,
}
# The recipe keys beyond the guide's, in three networks.
FAST: dict[str, Any] = {
    **SMALL,
    "model.network": "fast_cnn",
    "model.late_filters": 6,
    "model.depth": 2,
    "model.activation": "gelu",
    "model.dropout": 0.0,
    "model.whitening": True,
    "model.initialization": "dirac",
    "model.test_time_flip": True,
    "optimizer.name": "sgd",
    "optimizer.momentum": 0.85,
    "optimizer.nesterov": True,
    "optimizer.weight_decay": 0.01,
    "optimizer.normalization_rate": 8.0,
    "optimizer.lookahead": {"every": 2, "keep": 0.8},
    "optimizer.schedule": {"name": "one_cycle", "warmup_epochs": 1.0, "decay_rate": 0.1},
    "augmentation.alternating_flip": True,
    "augmentation.rotation": 0.0,
    "augmentation.zoom": 0.0,
    "augmentation.shift": 1,
    "callbacks.reduce_lr_on_plateau": None,
    "callbacks.early_stopping": None,
    "training.label_smoothing": 0.2,
}
GUIDE: dict[str, Any] = {
    **SMALL,
    "model.residual": True,
    "model.attention": {"ratio": 4},
    "augmentation.mixup": {"alpha": 0.2},
    "augmentation.cutmix": {"factor": 1.0},
    "augmentation.contrast": 0.2,
    "augmentation.erasing": 0.5,
    "callbacks.early_stopping": None,
}
OTHERS: dict[str, Any] = {
    **SMALL,
    "optimizer.name": "muon",
    "optimizer.weight_decay": 0.01,
    "optimizer.ema_momentum": 0.5,
    "augmentation.randaugment": {"num_ops": 1, "factor": 0.3},
    "callbacks.early_stopping": None,
}
PLAIN = {**SMALL, "augmentation.strength": 0.0, "callbacks.early_stopping": None}

LINEAR_NETWORK = """
import keras

def build(input_shape, classes, units=8, layers=1, activation=None, softmax=True):
    inputs = keras.Input(input_shape)
    x = keras.layers.Flatten()(inputs)
    for _ in range(layers):
        x = keras.layers.Dense(units, activation=activation)(x)
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax" if softmax else None)(x))

def number(input_shape, classes):
    return 3

def wide(input_shape, classes):
    return build(input_shape, classes + 1)

def greedy(input_shape, classes):
    raise MemoryError("no room for this network")

@keras.saving.register_keras_serializable("mine")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x

def own_layer(input_shape, classes):
    network = build(input_shape, classes)
    return keras.Model(network.input, network(Twice()(network.input)))

def with_lambda(input_shape, classes):
    network = build(input_shape, classes)
    return keras.Model(network.input, network(keras.layers.Lambda(lambda x: 2 * x)(network.input)))

answer = 42
"""


class Reports:
    """A coordinator that keeps what it hears and gives the verdicts that a test wants."""

    def __init__(self, verdicts: dict[int, Verdict] | None = None) -> None:
        self.events: list[EpochEvent] = []
        self._verdicts = verdicts or {}

    def __call__(self, event: EpochEvent) -> Verdict:
        self.events.append(event)
        return self._verdicts.get(event.epoch, Verdict.CONTINUE)

    def metrics(self) -> list[dict[str, float]]:
        return [event.metrics for event in self.events]

    def epochs(self) -> list[int]:
        return [event.epoch for event in self.events]


def make_job(arrays: TrainingArrays, folder: Path, values: dict[str, Any], **fields: Any) -> TrainingJob:
    recipe = Recipe().with_values(values)
    fields.setdefault("epochs", recipe.training.epochs)
    return TrainingJob(recipe=recipe, arrays=arrays, folder=folder, **fields)


def user_code(folder: Path, text: str = LINEAR_NETWORK, name: str = "networks") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


def write_arrays(folder: Path, *, images: int = 200, size: int = 8, channels: int = 1) -> TrainingArrays:
    """Noise with a bright spot whose place tells the class: learned in a few epochs."""
    generator = np.random.default_rng(7)
    labels = np.arange(images, dtype=np.int64) % CLASSES
    pixels = generator.integers(0, 120, (images, size, size, channels), dtype=np.uint8)
    for index, label in enumerate(labels):
        row, column = divmod(int(label), 5)
        pixels[index, 1 + 3 * row : 4 + 3 * row, column : column + 2] = 250
    order = generator.permutation(images)
    train, validation = np.sort(order[: images * 3 // 4]), np.sort(order[images * 3 // 4 :])
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", pixels)
    np.save(folder / "labels.npy", labels)
    np.savez(folder / "split.npz", train=train, validation=validation)
    return TrainingArrays(
        images=folder / "images.npy",
        labels=folder / "labels.npy",
        split=folder / "split.npz",
        train_digest=arrays_digest(pixels, labels),
        split_digest=split_digest(train, validation),
        class_names=tuple(str(number) for number in range(CLASSES)),
    )
