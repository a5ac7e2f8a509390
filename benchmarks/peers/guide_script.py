"""The guide's script in plain Keras: what Podium's trainings are timed against. It does not know Podium.

    python guide_script.py arrays.npz --epochs 10 --seed 0

`arrays.npz` holds x_train, y_train, x_val, y_val (uint8 images). Prints one JSON object at the end of each epoch and
one at the end; seconds are counted from the beginning of `fit`.
"""

from __future__ import annotations

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras import layers


def build(classes: int, shape: tuple[int, ...]) -> keras.Model:
    """Three blocks of 32, 64 and 128 filters, a dense head, the three layers of augmentation in front."""
    model = keras.Sequential([keras.Input(shape)])
    model.add(layers.RandomFlip("horizontal"))
    model.add(layers.RandomRotation(0.1))
    model.add(layers.RandomZoom(0.1))
    for filters in (32, 64, 128):
        for _ in range(2):
            model.add(layers.Conv2D(filters, (3, 3), activation="relu", padding="same"))
            model.add(layers.BatchNormalization())
        model.add(layers.MaxPooling2D((2, 2)))
        model.add(layers.Dropout(0.25))
    model.add(layers.Flatten())
    for units in (256, 128):
        model.add(layers.Dense(units, activation="relu"))
        model.add(layers.BatchNormalization())
        model.add(layers.Dropout(0.5))
    model.add(layers.Dense(classes, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Clock(keras.callbacks.Callback):  # type: ignore[misc]
    """Prints each epoch with the seconds since `fit` began."""

    began = 0.0

    def on_train_begin(self, logs: object = None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        seconds = time.perf_counter() - self.began
        print(json.dumps({"epoch": epoch + 1, "seconds": seconds, **logs}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arrays")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    keras.utils.set_random_seed(chosen.seed)
    with np.load(chosen.arrays) as arrays:
        x_train, x_val = (arrays[name].astype("float32") / 255.0 for name in ("x_train", "x_val"))
        y_train, y_val = arrays["y_train"], arrays["y_val"]
    model = build(int(y_train.max()) + 1, x_train.shape[1:])
    clock = Clock()
    history = model.fit(
        x_train,
        y_train,
        batch_size=64,
        epochs=chosen.epochs,
        validation_data=(x_val, y_val),
        callbacks=[clock],
        verbose=0,
    ).history
    seconds = time.perf_counter() - clock.began
    epochs = len(history["val_accuracy"])
    print(
        json.dumps(
            {
                "seconds": seconds,
                "images_per_second": epochs * len(x_train) / seconds,
                "val_accuracy": history["val_accuracy"],
            }
        )
    )


if __name__ == "__main__":
    main()
