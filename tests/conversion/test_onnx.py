"""What the ONNX converter has to be told of."""

from pathlib import Path

import keras
import numpy as np

from podium.conversion.processes import convert, measure


def test_an_exact_gelu_becomes_a_file_that_onnx_runtime_runs(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Conv2D(4, 3, activation="gelu")(keras.layers.Rescaling(1 / 255)(inputs))
    outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(x))
    network = keras.Model(inputs, outputs)
    network.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    assert not convert(
        tmp_path / "model.keras", {"onnx": tmp_path / "model.onnx"}, calibration=tmp_path / "images.npy"
    )
    found = measure(tmp_path / "model.onnx", "onnx", tmp_path / "images.npy")
    np.testing.assert_allclose(found.probabilities, network.predict(images, verbose=0), atol=1e-5)
