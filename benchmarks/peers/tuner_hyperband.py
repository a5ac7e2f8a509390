"""KerasTuner's Hyperband as its documentation shows, on the guide's script, until the time is up.

python tuner_hyperband.py arrays.npz watch.jsonl SECONDS SEED
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import keras
import keras_tuner
from guide_model import Watch, build, guide_callbacks
from guide_space import EPOCHS, load


class Guide(keras_tuner.HyperModel):  # type: ignore[misc]
    """The guide's network, and its batch size in `fit`, as KerasTuner's guide on tuning `fit` has it."""

    def declare_hyperparameters(self, hp: Any) -> None:
        """All of them at the start; else the tuner learns of some only once a trial has met them."""
        hp.Int("depth", 1, 4)
        with hp.conditional_scope("depth", [3, 4]):
            hp.Choice("dense_units", [128, 256])
        hp.Choice("batch_size", [32, 64, 128, 256])

    def build(self, hp: Any) -> keras.Model:
        depth = hp.Int("depth", 1, 4)
        with hp.conditional_scope("depth", [3, 4]):
            dense_units = hp.Choice("dense_units", [128, 256]) if depth >= 3 else 256
        return build(
            learning_rate=hp.Float("learning_rate", 1e-4, 1e-2, sampling="log"),
            dropout=hp.Float("dropout", 0.0, 0.6),
            strength=hp.Float("strength", 0.0, 2.0),
            depth=depth,
            dense_units=dense_units,
        )

    def fit(self, hp: Any, model: keras.Model, *args: Any, **settings: Any) -> Any:
        size = hp.Choice("batch_size", [32, 64, 128, 256])
        return model.fit(*args, batch_size=size, **settings)


def main(arrays: str, watch: str, seconds: str, seed: str) -> None:
    x_train, y_train, x_val, y_val = load(arrays)
    keras.utils.set_random_seed(int(seed))
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.Hyperband(
            Guide(),
            objective="val_accuracy",
            max_epochs=EPOCHS,
            hyperband_iterations=100,
            seed=int(seed),
            directory=folder,
            project_name="guide",
        )
        # The benchmark ends the process when the time is up.
        tuner.search(
            x_train,
            y_train,
            validation_data=(x_val, y_val),
            callbacks=[*guide_callbacks(), Watch(watch)],
            verbose=0,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
