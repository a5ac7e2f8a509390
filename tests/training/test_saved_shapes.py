"""A saved model's own description tells what it takes and gives, also of a network inside the network."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

from podium.errors import PodiumError
from podium.packager.logged_model import model_shapes

layers = keras.layers


def network(name: str) -> keras.Model:
    inputs = keras.Input((8, 6, 3))
    attention = layers.Dense(3, activation="sigmoid")(layers.GlobalAveragePooling2D()(inputs))
    x = layers.Multiply()([inputs, layers.Reshape((1, 1, 3))(attention)])
    return keras.Model(inputs, layers.Dense(7, activation="softmax")(layers.Flatten()(x)), name=name)


def saved(folder: Path, members: int) -> Path:
    inputs = keras.Input((8, 6, 3), dtype="uint8")
    scaled = layers.Rescaling(1 / 255)(inputs)
    outputs = [network(f"member_{number}")(scaled) for number in range(members)]
    model = keras.Model(inputs, layers.Average()(outputs) if members > 1 else outputs[0])
    model.save(folder / "best.keras")
    return folder / "best.keras"


@pytest.mark.parametrize("members", [1, 3])
def test_a_network_of_ones_own_and_an_average_of_several_tell_their_shapes(
    tmp_path: Path, members: int
) -> None:
    assert model_shapes(saved(tmp_path, members)) == ((8, 6, 3), 7)


def test_what_gives_no_classes_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input((8, 6, 3), dtype="uint8")
    keras.Model(inputs, layers.Rescaling(1 / 255)(inputs)).save(tmp_path / "best.keras")
    with pytest.raises(PodiumError, match="not a model from one image to class probabilities"):
        model_shapes(tmp_path / "best.keras")
