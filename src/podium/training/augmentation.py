"""Owns the random changes of training images: flip, rotation and zoom as one affine warp."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from podium.recipe import AugmentationSettings

LARGEST_ROTATION = 0.5  # of a turn: half a turn either way is every angle
LARGEST_ZOOM = 0.9  # of the size: at 1 nothing would be left of the image


def layers(settings: AugmentationSettings, seed: int) -> list[Any]:
    """Keras layers from images (n, height, width, channels) to float32 ones, active on training batches only.

    `strength` scales the ranges of rotation and zoom, which end at what an image can bear; 0 gives no layers.
    """
    rotation, zoom = ranges(settings)
    if settings.strength == 0.0 or not (settings.flip or rotation or zoom):
        return []
    if not (rotation or zoom):
        return [keras.layers.RandomFlip("horizontal", seed=seed, dtype="float32")]
    return [RandomAffine(flip=settings.flip, rotation=rotation, zoom=zoom, seed=seed)]


def kinds(settings: AugmentationSettings) -> tuple[bool, ...]:
    """What of the settings decides which layers there are; the rest are numbers inside them."""
    if settings.strength == 0.0:
        return ()
    return (settings.flip, any(ranges(settings)))


def ranges(settings: AugmentationSettings) -> tuple[float, float]:
    """Largest rotation in turns and largest zoom, as `strength` scales them."""
    return (
        min(settings.rotation * settings.strength, LARGEST_ROTATION),
        min(settings.zoom * settings.strength, LARGEST_ZOOM),
    )


class RandomAffine(keras.layers.Layer):  # type: ignore[misc]
    """Keras's RandomFlip("horizontal"), RandomRotation and RandomZoom, drawn alike and applied as one warp.

    One bilinear reading of each pixel instead of two, so the images are a little sharper; what lies outside is
    reflected. Ranges are variables, so that a compiled training serves another trial's. Unlike the stock
    layers it compiles under XLA.
    """

    def __init__(self, *, flip: bool, rotation: float, zoom: float, seed: int) -> None:
        super().__init__(dtype="float32")
        self._flip = flip
        self._generator = keras.random.SeedGenerator(seed)
        self._rotation = self._range("rotation", rotation)
        self._zoom = self._range("zoom", zoom)

    def call(self, images: Any, training: bool | None = False) -> Any:
        """Warped images, float32 and of the same shape. Outside of training they are only cast."""
        if not training:
            return ops.cast(images, "float32")
        return warp(images, self._matrices(ops.shape(images)[0]))

    def compute_output_spec(self, images: Any, training: bool | None = False) -> Any:
        return keras.KerasTensor(images.shape, dtype="float32")

    def _range(self, name: str, value: float) -> Any:
        return self.add_weight(
            name=name,
            shape=(),
            initializer=keras.initializers.Constant(value),
            dtype="float32",
            trainable=False,
            autocast=False,
        )

    def _matrices(self, count: Any) -> Any:
        drawn = keras.random.uniform((count, 3), minval=-1.0, maxval=1.0, seed=self._generator)
        angle = drawn[:, 0] * self._rotation * (2.0 * math.pi)
        scale = 1.0 + drawn[:, 1] * self._zoom
        mirror = ops.where(drawn[:, 2] < 0.0, -1.0, 1.0) if self._flip else ops.ones_like(angle)
        cosine, sine = ops.cos(angle) * scale, ops.sin(angle) * scale
        rows = (cosine * mirror, -sine * mirror, sine, cosine)
        return ops.reshape(ops.stack(rows, axis=-1), (-1, 2, 2))


def warp(images: Any, matrices: Any) -> Any:
    """Images read at places turned and scaled about their centre, bilinearly; float32.

    `images`: (n, height, width, channels). `matrices`: (n, 2, 2), from offsets (x, y) in pixels from the centre of
    the result to those in the image. Places outside are reflected at the border, edge pixels repeated.
    """
    height, width, channels = images.shape[1:]
    y, x = ops.meshgrid(
        ops.arange(height, dtype="float32") - (height - 1) / 2,
        ops.arange(width, dtype="float32") - (width - 1) / 2,
        indexing="ij",
    )
    offsets = ops.stack([ops.reshape(x, (-1,)), ops.reshape(y, (-1,))])
    places = ops.matmul(matrices, offsets)
    left, share_x = _reflected(places[:, 0] + (width - 1) / 2, width)
    top, share_y = _reflected(places[:, 1] + (height - 1) / 2, height)
    right, bottom = ops.minimum(left + 1, width - 1), ops.minimum(top + 1, height - 1)
    flat = ops.reshape(images, (-1, channels))
    first = ops.expand_dims(ops.arange(ops.shape(images)[0]) * (height * width), 1)

    def pixels(rows: Any, columns: Any) -> Any:
        return ops.cast(ops.take(flat, first + rows * width + columns, axis=0), "float32")

    upper = pixels(top, left) * (1.0 - share_x) + pixels(top, right) * share_x
    lower = pixels(bottom, left) * (1.0 - share_x) + pixels(bottom, right) * share_x
    return ops.reshape(upper * (1.0 - share_y) + lower * share_y, (-1, height, width, channels))


def _reflected(place: Any, size: int) -> tuple[Any, Any]:
    """The pixel at or before a place (n, pixels) and how far the place is from it, reflected into the image."""
    period = ops.mod(place + 0.5, 2.0 * size)
    inside = ops.clip(ops.minimum(period, 2.0 * size - period) - 0.5, 0.0, size - 1.0)
    before = ops.floor(inside)
    return ops.cast(before, "int32"), ops.expand_dims(inside - before, -1)
