"""Owns a recipe's network, one of ours or a user's own, and the model that is trained around it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from podium.errors import InvalidInput, TrialFailed
from podium.recipe import Recipe
from podium.recipe_sections import ModelSettings
from podium.training import augmentation
from podium.training.builder import load_builder
from podium.training.layers import STOCK, LayerKinds
from podium.training.networks import network_outputs

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
    inputs = keras.Input(image_shape, dtype="float32", name="input_layer")
    outputs = network_outputs(inputs, settings, image_shape, classes, kinds)
    return keras.Model(inputs, outputs, name=settings.network)


def build_training_model(
    network: Any, recipe: Recipe, image_shape: tuple[int, int, int], classes: int
) -> Any:
    """The model that is trained: uint8 images, changed at random, scaled to [0, 1], then the network.

    Where a recipe mixes images it also takes their labels, as {"images", "labels"}, and answers both mixed.
    """
    settings, seed = recipe.augmentation, recipe.training.seed
    inputs = keras.Input(image_shape, dtype="uint8", name="images")
    images = inputs
    for layer in augmentation.layers(settings, seed):
        images = layer(images)
    mixing = augmentation.mixing(settings, seed)
    scale = keras.layers.Rescaling(PIXEL_SCALE, dtype="float32")
    if not mixing:
        trained = TrainedModel(inputs, network(scale(images)), name="training")
    else:
        labels = keras.Input((), dtype="int32", name="labels")
        mixed = {
            "images": keras.ops.cast(images, "float32"),
            "labels": keras.ops.one_hot(labels, classes, dtype="float32"),
        }
        for layer in mixing:
            mixed = layer(mixed)
        outputs = {"probabilities": network(scale(mixed["images"])), "labels": mixed["labels"]}
        trained = TrainedModel({"images": inputs, "labels": labels}, outputs, name="training")
    trained.label_smoothing = recipe.training.label_smoothing
    return trained


class TrainedModel(keras.Model):  # type: ignore[misc]
    """In training labels are mixed where images are, and smoothed; the validation loss is of plain labels."""

    label_smoothing = 0.0

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        probabilities = _probabilities(y_pred)
        mixed = isinstance(y_pred, dict)
        if not training or (self.label_smoothing == 0.0 and not mixed):
            return super().compute_loss(x, y, probabilities, sample_weight, training)
        plain = keras.ops.one_hot(keras.ops.cast(y, "int32"), probabilities.shape[-1], dtype="float32")
        losses = keras.losses.categorical_crossentropy(
            y_pred["labels"] if mixed else plain, probabilities, label_smoothing=self.label_smoothing
        )
        # What layers add, as the regularisers of a user's network do.
        return sum((keras.ops.sum(loss) for loss in self.losses), start=keras.ops.mean(losses))

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return super().compute_metrics(x, y, _probabilities(y_pred), sample_weight)


def _probabilities(outputs: Any) -> Any:
    return outputs["probabilities"] if isinstance(outputs, dict) else outputs


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
