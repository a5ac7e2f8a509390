"""Owns the networks: the guide's CNN, a user's own, and the model that is trained around either."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from podium.errors import InvalidInput, TrialFailed
from podium.recipe import ModelSettings, Recipe
from podium.training import augmentation
from podium.training.builder import load_builder
from podium.training.layers import STOCK, LayerKinds

PIXEL_SCALE = 1.0 / 255.0


def build_network(
    settings: ModelSettings, image_shape: tuple[int, int, int], classes: int, kinds: LayerKinds = STOCK
) -> Any:
    """A model from float images in [0, 1] (n, height, width, channels) to probabilities (n, classes).

    A user's own is as it is, whatever `kinds` says.
    Raises: TrialFailed if the image is too small for the depth, or a builder does not give such a model.
    """
    if settings.builder is not None:
        return _built_by_user(settings, image_shape, classes)
    inputs = keras.Input(image_shape, dtype="float32")
    outputs = guide_cnn(inputs, settings, image_shape, classes, kinds)
    return keras.Model(inputs, outputs, name="guide_cnn")


def build_training_model(network: Any, recipe: Recipe, image_shape: tuple[int, int, int]) -> Any:
    """The model that is trained: uint8 images, changed at random, scaled to [0, 1], then the network."""
    inputs = keras.Input(image_shape, dtype="uint8")
    images = inputs
    for layer in augmentation.layers(recipe.augmentation, recipe.training.seed):
        images = layer(images)
    images = keras.layers.Rescaling(PIXEL_SCALE, dtype="float32")(images)
    return keras.Model(inputs, network(images), name="training")


def guide_cnn(
    images: Any,
    settings: ModelSettings,
    image_shape: tuple[int, int, int],
    classes: int,
    kinds: LayerKinds = STOCK,
) -> Any:
    """The guide's layers on a float tensor of images; returns float32 probabilities.

    Blocks of two 3x3 convolutions, each followed by batch normalisation, 2x2 max-pooling and dropout,
    then two dense layers. Raises: TrialFailed if the image is too small for `settings.depth`.
    """
    side = min(image_shape[:2])
    if side >> settings.depth == 0:
        raise TrialFailed(
            f"model.depth: got {settings.depth}, but each block halves the image and {image_shape[0]} x "
            f"{image_shape[1]} pixels bear {side.bit_length() - 1} at most.",
            cause="error",
        )
    layers = keras.layers
    x = images
    for block in range(settings.depth):
        filters = settings.filters << block
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
            x = kinds.normalization(momentum=settings.normalization_momentum)(x)
        x = layers.MaxPooling2D(2)(x)
        x = kinds.dropout(settings.dropout)(x)
    x = layers.Flatten()(x)
    for units in (settings.dense_units, settings.dense_units // 2):
        x = layers.Dense(units, activation="relu")(x)
        x = kinds.normalization(momentum=settings.normalization_momentum)(x)
        x = kinds.dropout(settings.dense_dropout)(x)
    # Probabilities of 16 bits would round the loss away.
    return layers.Dense(classes, activation="softmax", dtype="float32")(x)


def _built_by_user(settings: ModelSettings, image_shape: tuple[int, int, int], classes: int) -> Any:
    assert settings.builder is not None
    try:
        builder = load_builder(settings.builder)
    except InvalidInput as error:
        raise TrialFailed(str(error), cause="error") from error
    network = builder(image_shape, classes, **settings.parameters)
    if not isinstance(network, keras.Model):
        raise _unusable(settings, f"returned {type(network).__name__}, not a keras.Model")
    if not network.built:
        network.build((None, *image_shape))
    probe = np.linspace(0.0, 1.0, 2 * int(np.prod(image_shape)), dtype=np.float32).reshape(2, *image_shape)
    output = network(probe, training=False)
    if isinstance(output, dict | list | tuple) or tuple(output.shape) != (2, classes):
        got = type(output).__name__ if isinstance(output, dict | list | tuple) else tuple(output.shape)
        raise _unusable(settings, f"gives {got} for 2 images; expected (2, {classes}) for {classes} classes")
    values = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(output, "float32")))
    if not (np.isfinite(values).all() and (values >= 0).all() and np.allclose(values.sum(1), 1.0, atol=0.02)):
        raise _unusable(
            settings,
            "does not give class probabilities (each row at least 0, summing to 1); "
            f"two images gave rows that sum to {values.sum(1).tolist()}. End the model with a softmax",
        )
    return network


def _unusable(settings: ModelSettings, problem: str) -> TrialFailed:
    return TrialFailed(f"model.builder: {settings.builder} {problem}.", cause="error")
