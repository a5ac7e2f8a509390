"""Owns the layers of the networks that a recipe can name, on a tensor of images."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from podium.errors import TrialFailed
from podium.recipe_sections import ModelSettings
from podium.training.backbone import backbone_outputs
from podium.training.layers import STOCK, AdjustableDropout, LayerKinds

WHITENING = "whitening"
_PATCH = 2  # pixels a side
# Keeps directions in which patches hardly differ from being blown up.
_SMALLEST_VARIANCE = 3e-5
_LOGIT_SCALE = 1 / 9


def network_outputs(
    images: Any,
    settings: ModelSettings,
    image_shape: tuple[int, int, int],
    classes: int,
    kinds: LayerKinds = STOCK,
) -> Any:
    """float32 probabilities (n, classes) of float images in [0, 1] (n, height, width, channels).

    Raises: TrialFailed if the image is too small for `settings.depth`.
    """
    if not settings.test_time_flip:
        return _outputs_of_one_view(images, settings, image_shape, classes, kinds)
    views = kinds.both_views(images)
    return kinds.mean_of_views(_outputs_of_one_view(views, settings, image_shape, classes, kinds))


def _outputs_of_one_view(
    images: Any, settings: ModelSettings, image_shape: tuple[int, int, int], classes: int, kinds: LayerKinds
) -> Any:
    if settings.network == "transfer":
        return backbone_outputs(images, settings, image_shape, classes, kinds)
    side = min(image_shape[:2])
    if settings.network != "mlp" and side >> settings.depth == 0:
        raise TrialFailed(
            f"model.depth: got {settings.depth}, but each block halves the image and {image_shape[0]} x "
            f"{image_shape[1]} pixels bear {side.bit_length() - 1} at most.",
            cause="error",
        )
    parts = _Parts(settings, kinds)
    x = images
    if settings.whitening:
        x = parts.whitening(image_shape[2])(x)
    if settings.network == "fast_cnn":
        return _fast_cnn(x, settings, classes, parts)
    return _guide_cnn(x, settings, classes, parts)


def whiten(network: Any, images: NDArray[np.uint8]) -> None:
    """Set the fixed first convolution so that patches of images (n, height, width, channels) become decorrelated.

    Each filter comes with its negative. Source: Coates and Ng, 2012; as the first layer of airbench (Jordan, 2024).
    """
    layer = network.get_layer(WHITENING)
    channels = images.shape[-1]
    values = _PATCH * _PATCH * channels
    count, total, products = 0, np.zeros(values), np.zeros((values, values))
    for image in images:  # all patches at once would take 32 times the memory of the images
        windows = np.lib.stride_tricks.sliding_window_view(image / 255.0, (_PATCH, _PATCH), axis=(0, 1))
        patches = windows.transpose(0, 1, 3, 4, 2).reshape(-1, values)
        count += len(patches)
        total += patches.sum(0)
        products += patches.T @ patches
    mean = total / count
    covariance = products / count - np.outer(mean, mean)
    variances, directions = np.linalg.eigh(covariance)
    filters = directions / np.sqrt(np.maximum(variances, 0.0) + _SMALLEST_VARIANCE)
    kernel = np.concatenate([filters, -filters], axis=1)
    shape = (_PATCH, _PATCH, channels, kernel.shape[1])
    layer.kernel.assign(kernel.reshape(shape).astype(np.float32))
    layer.bias.assign((-mean @ kernel).astype(np.float32))


class Dirac(keras.initializers.Initializer):  # type: ignore[misc]
    """Kernels that hand their first inputs on unchanged; further filters begin small and random."""

    def __init__(self) -> None:
        self._rest = keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        height, width, inputs, outputs = shape
        kept = min(inputs, outputs)
        identity = np.zeros((height, width, inputs, kept), np.float32)
        identity[height // 2, width // 2, range(kept), range(kept)] = 1.0
        return ops.concatenate([ops.cast(identity, dtype), self._rest(shape, dtype)[..., kept:]], axis=-1)


class _Parts:
    """Makes the layers of a network, as its settings want them."""

    def __init__(self, settings: ModelSettings, kinds: LayerKinds) -> None:
        self._settings, self._kinds = settings, kinds
        self._made: Counter[str] = Counter()

    def name(self, kind: str) -> str:
        """As Keras names the layers of a process's first network, whatever was built before: kind, kind_1, kind_2."""
        number = self._made[kind]
        self._made[kind] += 1
        return f"{kind}_{number}" if number else kind

    def convolution(self, filters: int, *, activation: str | None = None, bias: bool = True) -> Any:
        # A network in stock layers gets its weights from a trained one; its initialisers are saved with it.
        dirac = self._settings.initialization == "dirac" and self._kinds.trained
        return keras.layers.Conv2D(
            filters,
            3,
            padding="same",
            activation=activation,
            use_bias=bias,
            kernel_initializer=Dirac() if dirac else "glorot_uniform",
            name=self.name("conv2d"),
        )

    def whitening(self, channels: int) -> Any:
        filters = 2 * _PATCH * _PATCH * channels
        return keras.layers.Conv2D(filters, _PATCH, trainable=False, name=WHITENING)

    def activation(self) -> Any:
        return keras.layers.Activation(self._settings.activation, name=self.name("activation"))

    def normalization(self, *, scale: bool = True) -> Any:
        return self._kinds.normalization(
            momentum=self._settings.normalization_momentum, scale=scale, name=self.name("batch_normalization")
        )

    def dropout(self, setting: Literal["dropout", "dense_dropout"]) -> Any:
        made = self._kinds.dropout(getattr(self._settings, setting), name=self.name("dropout"))
        if isinstance(made, AdjustableDropout):
            made.setting = setting
        return made

    def dense(self, units: int, activation: str | None) -> Any:
        return keras.layers.Dense(units, activation=activation, name=self.name("dense"))

    def pooling(self) -> Any:
        return keras.layers.MaxPooling2D(2, name=self.name("max_pooling2d"))

    def attended(self, x: Any) -> Any:
        """Squeeze and excitation, where the settings ask for it."""
        settings = self._settings.attention
        if settings is None or not settings.enabled:
            return x
        maps = int(x.shape[-1])
        mean = keras.layers.GlobalAveragePooling2D(keepdims=True, name=self.name("global_average_pooling2d"))
        weights = self.dense(max(1, maps // settings.ratio), "relu")(mean(x))
        weights = self.dense(maps, "sigmoid")(weights)
        return keras.layers.Multiply(name=self.name("multiply"))([x, weights])

    def joined(self, x: Any, entered: Any) -> Any:
        """What entered a block added to what left it, where the settings ask for it."""
        if not self._settings.residual:
            return x
        if entered.shape[-1] != x.shape[-1]:
            fitted = keras.layers.Conv2D(int(x.shape[-1]), 1, use_bias=False, name=self.name("conv2d"))
            entered = self.normalization()(fitted(entered))
        return keras.layers.Add(name=self.name("add"))([x, entered])


def _guide_cnn(x: Any, settings: ModelSettings, classes: int, parts: _Parts) -> Any:
    for block in range(settings.depth if settings.network == "guide_cnn" else 0):
        entered = x
        for _ in range(2):
            x = parts.convolution(settings.filters << block, activation=settings.activation)(x)
            x = parts.normalization()(x)
        x = parts.joined(parts.attended(x), entered)
        x = parts.pooling()(x)
        x = parts.dropout("dropout")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for units in (settings.dense_units, settings.dense_units // 2):
        x = parts.dense(units, settings.activation)(x)
        x = parts.normalization()(x)
        x = parts.dropout("dense_dropout")(x)
    # Probabilities of 16 bits would round the loss away.
    last = keras.layers.Dense(classes, activation="softmax", dtype="float32", name=parts.name("dense"))
    return last(x)


def _fast_cnn(x: Any, settings: ModelSettings, classes: int, parts: _Parts) -> Any:
    """Source: airbench94 (Jordan, 2024), with fewer filters."""
    if settings.whitening:
        x = parts.activation()(x)
    for block in range(settings.depth):
        filters = settings.filters if block == 0 else settings.late_filters
        x = parts.convolution(filters, bias=False)(x)
        # Before normalisation and activation, which then have a quarter of the values to go through.
        x = parts.pooling()(x)
        x = parts.activation()(parts.normalization(scale=False)(x))
        entered = x
        x = parts.convolution(filters, bias=False)(x)
        x = parts.activation()(parts.normalization(scale=False)(x))
        x = parts.joined(parts.attended(x), entered)
    x = keras.layers.GlobalMaxPooling2D(name="global_max_pooling2d")(x)
    if settings.dropout:
        x = parts.dropout("dropout")(x)
    x = keras.layers.Rescaling(_LOGIT_SCALE, name="logit_scale")(x)
    return keras.layers.Dense(
        classes, activation="softmax", use_bias=False, dtype="float32", name="probabilities"
    )(x)
