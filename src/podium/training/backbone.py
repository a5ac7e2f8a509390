"""Owns transfer: a network of keras.applications with a new head, its weights, and when they begin to be trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from podium.errors import TrialFailed
from podium.recipe_sections import BackboneSettings, ModelSettings
from podium.training.layers import LayerKinds

BACKBONE = "backbone"
WHITE = 255.0


def backbone_outputs(
    images: Any, settings: ModelSettings, image_shape: tuple[int, int, int], classes: int, kinds: LayerKinds
) -> Any:
    """float32 probabilities (n, classes) of float images in [0, 1] (n, height, width, channels of 1 or 3).

    Stock kinds get no weights: a network in stock layers takes them from a trained one. The backbone's batch
    normalisation stays as it came, statistics, scales and offsets.
    Raises: TrialFailed if there is no such network, it takes no such images, or its weights cannot be had.
    """
    chosen = settings.backbone
    assert chosen is not None
    height, width, channels = image_shape
    if channels not in (1, 3):
        raise _failed("", f"images must have 1 or 3 channels, got {channels}")
    kind = _application(chosen.name)
    shape = (height * chosen.upscale, width * chosen.upscale, 3)
    if kinds.backbone is None:
        network = _built(kind, chosen, shape, trained=kinds.trained)
    else:
        network = _again(kinds.backbone)
    x = _prepared(images, kind, channels, trained=kinds.trained)
    if chosen.upscale > 1:
        x = keras.layers.UpSampling2D(chosen.upscale, interpolation="bilinear")(x)
    x = network(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = kinds.dropout(settings.dense_dropout)(x)
    return keras.layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(x)


def backbone_weights(network: Any) -> list[Any]:
    """What a network's backbone can be trained in; empty without one."""
    return [
        weight for layer in network.layers if layer.name == BACKBONE for weight in layer.trainable_weights
    ]


def slow_part(network: Any, settings: ModelSettings) -> dict[str, Any]:
    """What an optimizer is told of a network's backbone: its weights, and their share of the rate."""
    backbone = settings.backbone_in_use
    if backbone is None:
        return {}
    return {"slow": backbone_weights(network), "slow_rate": backbone.unfreeze_rate}


def set_trainable(backbone: Any, trained: bool) -> None:
    """Train a backbone or keep it. Its normalisation is kept: that alone makes it predict, since inside another network
    Keras overrides what it is called with."""
    backbone.trainable = trained
    for layer in backbone._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


class Unfreezing(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the backbone as it is up to an epoch (counted from 1; None: for good), and trains it from there on."""

    def __init__(self, network: Any, epoch: int | None) -> None:
        super().__init__()
        if keras.config.backend() != "tensorflow":
            raise TrialFailed("model.backbone is trained on TensorFlow alone.", cause="error")
        self._backbone, self._from = network.get_layer(BACKBONE), epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        trained = self._from is not None and epoch + 1 >= self._from
        if bool(self._backbone.trainable) != trained:
            set_trainable(self._backbone, trained)
            # What is trained is fixed when a step is compiled.
            self.model.make_train_function(force=True)


def _application(name: str) -> Any:
    kind = getattr(keras.applications, name, None)
    if not callable(kind):
        known = sorted(each for each in dir(keras.applications) if each[0].isupper())
        raise _failed(".name", f"got '{name}'. Choose one of keras.applications: {', '.join(known)}")
    return kind


def _built(kind: Any, chosen: BackboneSettings, shape: tuple[int, int, int], *, trained: bool) -> Any:
    weights = chosen.weights if trained else None
    if weights not in (None, "imagenet") and not Path(str(weights)).is_file():
        raise _failed(".weights", f"no file {Path(str(weights)).absolute()}")
    try:
        built = kind(include_top=False, weights=weights, input_shape=shape)
    except Exception as error:  # Keras says a failed download with a plain Exception
        raise _reason(kind, chosen, shape, weights, error) from error
    backbone = keras.Model(built.input, built.output, name=BACKBONE)
    set_trainable(backbone, True)
    return backbone


def _again(backbone: Any) -> Any:
    """The same layers in the precision of now. Not built by its name: with weights that it downloads Keras adds some."""

    def again(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.layers.Layer):  # an operation on tensors has none
            config["dtype"] = keras.config.dtype_policy().name
        return type(layer).from_config(config)

    copy = keras.models.clone_model(backbone, clone_function=again, recursive=True)
    set_trainable(copy, True)
    return copy


def _reason(
    kind: Any, chosen: BackboneSettings, shape: tuple[int, int, int], weights: str | None, error: Exception
) -> TrialFailed:
    try:
        kind(include_top=False, weights=None, input_shape=shape)
    except ValueError as refused:
        size = f"{shape[0]} x {shape[1]} (see upscale)"
        return _failed("", f"{chosen.name} takes no images of {size}: {refused}")
    whole = f"keras.applications.{chosen.name}(include_top=False)"
    how = (
        f"is not in Keras's cache and cannot be downloaded; name a local file of {whole} instead"
        if weights == "imagenet"
        else f"does not hold the weights of {whole}"
    )
    return _failed(".weights", f"'{weights}' {how}: {error}")


def _prepared(images: Any, kind: Any, channels: int, *, trained: bool) -> Any:
    """Images as the backbone was trained with: scale, offset and order of channels as one fixed 1x1 convolution."""
    matrix, offset = preparation(kind)
    kernel = (
        matrix if channels == 3 else matrix.sum(axis=0, keepdims=True)
    )  # grey is red, green and blue alike
    layer = keras.layers.Conv2D(
        3,
        1,
        trainable=False,
        dtype="float32",
        name="preparation",
        # Initialisers are saved with a network; one in stock layers gets its weights from a trained one.
        kernel_initializer=_Fixed(kernel[np.newaxis, np.newaxis]) if trained else "glorot_uniform",
        bias_initializer=_Fixed(offset) if trained else "zeros",
    )
    return layer(images)


def preparation(kind: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What `preprocess_input` of a backbone's module does to a pixel: a matrix (3, 3) for colours in [0, 1], an offset."""
    prepare = sys.modules[kind.__module__].preprocess_input
    colours = np.concatenate([np.zeros((1, 3)), WHITE * np.eye(3)]).astype(np.float32).reshape(4, 1, 1, 3)
    answered = np.asarray(prepare(colours.copy()), np.float32).reshape(4, 3)
    return answered[1:] - answered[0], answered[0]


class _Fixed(keras.initializers.Initializer):  # type: ignore[misc]
    """Values that are known already."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        self._values = values

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        return keras.ops.convert_to_tensor(self._values.reshape(shape), dtype)


def _failed(key: str, message: str) -> TrialFailed:
    return TrialFailed(f"model.backbone{key}: {message}.", cause="error")
