"""Owns the layers that trainings use in place of stock ones: the same results from less work, and rates as variables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

# Positions of height and width beside batch and channels, as the fused operation wants them.
_IMAGE_AXES = 4


class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Batch normalisation by TensorFlow's fused operation, which also takes 16-bit activations as they are.

    Statistics are float32 in every precision. On other backends it is the stock layer.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if keras.config.backend() != "tensorflow":
            return super().call(inputs, training=training, mask=mask)
        shape = ops.shape(inputs)
        images = inputs if len(shape) == _IMAGE_AXES else ops.reshape(inputs, (-1, 1, 1, shape[-1]))
        outputs = self._fused(images, training=bool(training) and self.trainable)
        return outputs if len(shape) == _IMAGE_AXES else ops.reshape(outputs, shape)

    def _fused(self, images: Any, *, training: bool) -> Any:
        import tensorflow as tf

        mean, variance = self.moving_mean, self.moving_variance
        empty = tf.zeros([0])
        normalized, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=ops.cast(images, self.compute_dtype),
            scale=ops.cast(self.gamma, "float32") if self.scale else ops.ones(mean.shape),
            offset=ops.cast(self.beta, "float32") if self.center else ops.zeros(mean.shape),
            mean=empty if training else tf.convert_to_tensor(mean),
            variance=empty if training else tf.convert_to_tensor(variance),
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            count = ops.cast(ops.size(images) // images.shape[-1], "float32")
            # The operation answers the unbiased variance; Keras's moving average is of the biased one.
            biased = batch_variance * (ops.maximum(count - 1.0, 1.0) / count)
            kept = self.momentum
            mean.assign(mean * kept + batch_mean * (1.0 - kept))
            variance.assign(variance * kept + biased * (1.0 - kept))
        return normalized


class AdjustableDropout(keras.layers.Layer):  # type: ignore[misc]
    """Dropout whose rate is a variable, so that a compiled training serves another trial's rate.

    `setting`: which of a recipe's `model` it has the rate of.
    """

    setting: str | None = None

    def __init__(self, rate: float, name: str | None = None) -> None:
        super().__init__(name=name)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator()
        self.rate_in_use = self.add_weight(
            name="rate_in_use",
            shape=(),
            initializer=keras.initializers.Constant(rate),
            dtype="float32",
            trainable=False,
            autocast=False,
        )

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        if not training:
            return inputs
        drawn = keras.random.uniform(ops.shape(inputs), seed=self.seed_generator, dtype="float32")
        rate = ops.convert_to_tensor(self.rate_in_use)
        scaled = inputs * ops.cast(1.0 / (1.0 - rate), inputs.dtype)
        # As Keras's own dropout has it, so that the same seed drops the same units.
        kept = drawn >= rate if keras.config.backend() == "tensorflow" else drawn < 1.0 - rate
        return ops.where(kept, scaled, ops.zeros_like(scaled))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


def both_views(images: Any) -> Any:
    """Images (n, height, width, channels) and then their mirror images: (2n, height, width, channels)."""
    mirrored = _named("mirror_image", ops.flip(images, axis=2))
    return _named("both_views", ops.concatenate([images, mirrored], axis=0))


def mean_of_views(probabilities: Any) -> Any:
    """Means (n, classes) of what a network makes of both views (2n, classes)."""
    views = _named("by_view", ops.reshape(probabilities, (2, -1, probabilities.shape[-1])))
    return _named("mean_of_views", ops.mean(views, axis=0))


def _named(name: str, made: Any) -> Any:
    """What an operation made; as a part of a network it has this name, and not one that counts what was built before."""
    if isinstance(made, keras.KerasTensor):
        made._keras_history.operation.name = name
    return made


class AtTest(keras.layers.Layer):  # type: ignore[misc]
    """In training the inputs as they are, otherwise what a function makes of them; it may change their number alone."""

    def __init__(self, function: Callable[[Any], Any], *, dtype: str | None = None) -> None:
        super().__init__(name=function.__name__, dtype=dtype)
        self._function = function

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        return inputs if training else self._function(inputs)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (None, *input_shape[1:])


@dataclass(frozen=True, kw_only=True)
class LayerKinds:
    """Which classes a network is built from, and whether it is for training: others get their weights from a trained one.

    `both_views`, `mean_of_views`: what makes two views of an image, and one prediction of two.
    `backbone`: the one that was trained, whose layers a network in stock layers has again.
    """

    normalization: type
    dropout: type
    both_views: Callable[[Any], Any]
    mean_of_views: Callable[[Any], Any]
    trained: bool
    backbone: Any = None


STOCK = LayerKinds(
    normalization=keras.layers.BatchNormalization,
    dropout=keras.layers.Dropout,
    both_views=both_views,
    mean_of_views=mean_of_views,
    trained=False,
)
TRAINED = LayerKinds(
    normalization=FusedBatchNormalization,
    dropout=AdjustableDropout,
    both_views=lambda images: AtTest(both_views, dtype="float32")(images),
    mean_of_views=lambda probabilities: AtTest(mean_of_views, dtype="float32")(probabilities),
    trained=True,
)


def learned_weights(network: Any) -> list[Any]:
    """A network's weights without the rates of its dropout: those of the same network in stock layers, in order."""
    rates = {
        id(layer.rate_in_use)
        for layer in network._flatten_layers(include_self=False)
        if isinstance(layer, AdjustableDropout)
    }
    return [weight for weight in network.weights if id(weight) not in rates]
