"""Owns the guide's CNN with the space of the comparison, in plain Keras, and the watch that all other tools carry."""

from __future__ import annotations

import json
import os
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from keras import layers

# experiments/baseline.yaml's: with Keras's own a first epoch validates at chance, and every pruner would choose blindly.
MOMENTUM = 0.9


def build(
    *, learning_rate: float, dropout: float, strength: float, depth: int, dense_units: int, classes: int = 10
) -> keras.Model:
    """The guide's network and optimizer, for images of 32 x 32."""
    model = keras.Sequential([keras.Input((32, 32, 3))])
    if strength > 0.0:
        model.add(layers.RandomFlip("horizontal"))
        model.add(layers.RandomRotation(0.1 * strength))
        model.add(layers.RandomZoom(0.1 * strength))
    for block in range(depth):
        for _ in range(2):
            model.add(layers.Conv2D(32 << block, (3, 3), activation="relu", padding="same"))
            model.add(layers.BatchNormalization(momentum=MOMENTUM))
        model.add(layers.MaxPooling2D((2, 2)))
        model.add(layers.Dropout(dropout))
    model.add(layers.Flatten())
    for units in (dense_units, dense_units // 2):
        model.add(layers.Dense(units, activation="relu"))
        model.add(layers.BatchNormalization(momentum=MOMENTUM))
        model.add(layers.Dropout(0.5))
    model.add(layers.Dense(classes, activation="softmax"))
    model.compile(
        keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def guide_callbacks() -> list[Any]:
    """The guide's: a rate that halves on a plateau, and early stopping."""
    return [
        keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=3, min_lr=1e-7),
        keras.callbacks.EarlyStopping(monitor="val_loss", patience=10, restore_best_weights=True),
    ]


class Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Writes a line an epoch to a file that all processes of a search share: when, and the validation accuracy."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        with open(self._path, "a", encoding="utf-8") as lines:
            lines.write(json.dumps({"at": time.time(), "val_accuracy": float(logs["val_accuracy"])}) + "\n")
