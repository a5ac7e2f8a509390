"""How large a network is before it is trained, held to what it is known to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from podium.errors import TrialFailed
from podium.recipe import Recipe
from podium.training.builder import import_root
from podium.training.network_size import network_size

NETS = """
import keras

def dense(input_shape, classes):
    inputs = keras.Input(input_shape)
    x = keras.layers.Flatten()(inputs)
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(x))

class Hidden(keras.Model):
    def __init__(self, classes):
        super().__init__()
        self.flatten = keras.layers.Flatten()
        self.dense = keras.layers.Dense(classes, activation="softmax")

    def build(self, input_shape):
        self.dense.build((None, input_shape[1] * input_shape[2] * input_shape[3]))

    def call(self, images):
        return self.dense(self.flatten(images))

def hidden(input_shape, classes):
    return Hidden(classes)
"""


def recipe_of(**values: Any) -> Recipe:
    return Recipe().with_values({key.replace("__", "."): value for key, value in values.items()})


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


def test_the_guides_network_has_its_known_size() -> None:
    found = network_size(recipe_of(), (32, 32, 3), 10)
    assert found.parameters == 849_066
    # Convolutions 3-32-32 at 32 x 32, 32-64-64 at 16 x 16, 64-128-128 at 8 x 8; dense 2048-256-128-10.
    convolutions = 9 * ((3 * 32 + 32**2) * 1024 + (32 * 64 + 64**2) * 256 + (64 * 128 + 128**2) * 64)
    assert found.multiply_adds == convolutions + 2048 * 256 + 256 * 128 + 128 * 10


def test_memory_counts_weights_gradients_optimizer_and_outputs(code: Path) -> None:
    weights = 8 * 8 * 3 * 10 + 10
    with import_root(code):
        sizes = {
            name: network_size(recipe_of(model__builder="nets:dense", optimizer__name=name), (8, 8, 3), 10)
            for name in ("sgd", "adam")
        }
    assert sizes["sgd"].state_bytes == 4 * weights * 2
    assert sizes["adam"].state_bytes == 4 * weights * 4
    assert sizes["adam"].activation_bytes == 4 * (192 + 192 + 10)
    assert sizes["adam"].multiply_adds == 1920


def test_outputs_of_sixteen_bits_take_half() -> None:
    full, half = (
        network_size(recipe_of(precision=name), (32, 32, 3), 10) for name in ("float32", "bfloat16")
    )
    assert full.activation_bytes is not None
    assert half.activation_bytes == pytest.approx(full.activation_bytes / 2, rel=0.02)
    assert half.state_bytes == full.state_bytes


def test_layers_that_do_not_tell_are_not_guessed(code: Path) -> None:
    with import_root(code):
        found = network_size(recipe_of(model__builder="nets:hidden"), (8, 8, 3), 10)
    assert found.parameters == 1930
    assert (found.activation_bytes, found.multiply_adds) == (None, None)


def test_too_many_poolings_are_refused_with_what_the_image_bears() -> None:
    with pytest.raises(TrialFailed, match="8 x 8 pixels bear 3 at most"):
        network_size(recipe_of(model__depth=4), (8, 8, 3), 10)
