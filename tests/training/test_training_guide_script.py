"""The guide's script in plain Keras, with the same seeds and batches, gives the same losses as Podium's training."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from training_jobs import Reports, make_job, write_arrays

from podium.training import device
from podium.training.train import train

EPOCHS, BATCH = 2, 32


def guide_model(seed: int) -> keras.Model:
    """As the guide writes it: a Sequential of stock layers, with the three layers of augmentation first."""
    layers = keras.layers
    body = keras.Sequential([keras.Input((32, 32, 3))])
    for filters in (32, 64, 128):
        for _ in range(2):
            body.add(layers.Conv2D(filters, (3, 3), activation="relu", padding="same"))
            body.add(layers.BatchNormalization())
        body.add(layers.MaxPooling2D((2, 2)))
        body.add(layers.Dropout(0.25))
    body.add(layers.Flatten())
    for units in (256, 128):
        body.add(layers.Dense(units, activation="relu"))
        body.add(layers.BatchNormalization())
        body.add(layers.Dropout(0.5))
    body.add(layers.Dense(10, activation="softmax"))
    augmentation = [
        layers.RandomFlip("horizontal", seed=seed),
        layers.RandomRotation(0.1, seed=seed + 1),
        layers.RandomZoom(0.1, seed=seed + 2),
    ]
    return keras.Sequential([keras.Input((32, 32, 3)), *augmentation, body])


@pytest.mark.slow
def test_losses_equal_those_of_the_guides_script(tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path, size=32, channels=3)
    reports = Reports()
    values = {"training.epochs": EPOCHS, "training.batch_size": BATCH, "training.seed": 3}
    train(make_job(arrays, tmp_path, values), reports)

    images = np.load(arrays.images).astype("float32") / 255.0
    labels = keras.utils.to_categorical(np.load(arrays.labels), 10)
    with np.load(arrays.split) as split:
        chosen, held_out = split["train"], split["validation"]
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    device.make_deterministic()
    model = guide_model(3)
    assert model.count_params() == 849_066
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3), loss="categorical_crossentropy", metrics=["accuracy"]
    )
    for epoch, metrics in enumerate(reports.metrics()):
        order = np.random.default_rng([3, epoch]).permutation(chosen)
        history = model.fit(
            images[order],
            labels[order],
            batch_size=BATCH,
            shuffle=False,
            epochs=1,
            verbose=0,
            validation_data=(images[held_out], labels[held_out]),
        ).history
        # Rounding differs a little (pixels are divided here, multiplied there), and grows from step to step.
        assert metrics["loss"] == pytest.approx(history["loss"][0], rel=2e-3 * (1 + 4 * epoch))
        assert metrics["val_loss"] == pytest.approx(history["val_loss"][0], rel=2e-3 * (1 + 4 * epoch))
        assert metrics["accuracy"] == pytest.approx(history["accuracy"][0], abs=0.02 * epoch + 1e-6)
