"""The guide's script in plain Keras, with the same seeds and batches, gives the same losses as Podium's training."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from training_jobs import Reports, make_job, write_arrays

from podium.training import device
from podium.training.train import train

# A rate so small that roundings do not grow into differences.
EPOCHS, BATCH, RATE = 2, 32, 1e-5


def guide_model() -> keras.Model:
    """As the guide writes it, without augmentation: that has random numbers and a test of its own."""
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
    return body


@pytest.mark.slow
def test_losses_equal_those_of_the_guides_script(tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path, size=32, channels=3)
    reports = Reports()
    values = {
        "training.epochs": EPOCHS,
        "training.batch_size": BATCH,
        "training.seed": 3,
        "optimizer.learning_rate": RATE,
        "augmentation.strength": 0.0,
    }
    train(make_job(arrays, tmp_path, values), reports)

    images = np.load(arrays.images).astype("float32") / 255.0
    labels = keras.utils.to_categorical(np.load(arrays.labels), 10)
    with np.load(arrays.split) as split:
        chosen, held_out = split["train"], split["validation"]
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    device.make_deterministic()
    model = guide_model()
    assert model.count_params() == 849_066
    model.compile(
        optimizer=keras.optimizers.Adam(RATE), loss="categorical_crossentropy", metrics=["accuracy"]
    )
    assert len(reports.metrics()) == EPOCHS
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
        assert metrics["loss"] == pytest.approx(history["loss"][0], rel=3e-4)
        assert metrics["val_loss"] == pytest.approx(history["val_loss"][0], rel=3e-4)
        assert metrics["accuracy"] == pytest.approx(history["accuracy"][0], abs=1e-6)
