"""Owns the random changes of training images: flip, rotation and zoom as one affine warp."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from podium.recipe_sections import AugmentationSettings

LARGEST_ROTATION = 0.5  # of a turn: half a turn either way is every angle
LARGEST_ZOOM = 0.9  # of the size: at 1 nothing would be left of the image


def layers(settings: AugmentationSettings, seed: int) -> list[Any]:
    """Keras layers from images (n, height, width, channels) to float32 ones, active on training batches only.

    `strength` scales the ranges of rotation and zoom, which end at what an image can bear; 0 leaves flip, rotation,
    zoom and shift out. Pixels go from 0 to 255.
    """
    common: dict[str, Any] = {"value_range": (0, 255), "dtype": "float32"}
    chosen: list[Any] = []
    if (changes := settings.randaugment) is not None and changes.enabled:
        chosen.append(
            keras.layers.RandAugment(num_ops=changes.num_ops, factor=changes.factor, seed=seed + 1, **common)
        )
    if settings.contrast > 0.0:
        chosen.append(keras.layers.RandomContrast(_either_way(settings.contrast), seed=seed + 2, **common))
    flip, warped = _moves(settings)
    if warped:
        rotation, zoom = ranges(settings)
        chosen.append(RandomAffine(flip=flip, rotation=rotation, zoom=zoom, shift=settings.shift, seed=seed))
    elif flip:
        chosen.append(keras.layers.RandomFlip("horizontal", seed=seed, dtype="float32"))
    if settings.erasing > 0.0:
        chosen.append(keras.layers.RandomErasing(_either_way(settings.erasing), seed=seed + 3, **common))
    return chosen


def mixing(settings: AugmentationSettings, seed: int) -> list[Any]:
    """Keras layers from {"images", "labels"} to the same, mixed across the batch; labels are shares of classes."""
    chosen: list[Any] = []
    if settings.mixup is not None and settings.mixup.enabled:
        chosen.append(keras.layers.MixUp(settings.mixup.alpha, seed=seed + 4, dtype="float32"))
    if settings.cutmix is not None and settings.cutmix.enabled:
        chosen.append(
            keras.layers.CutMix(_either_way(settings.cutmix.factor), seed=seed + 5, dtype="float32")
        )
    return chosen


def _either_way(value: float) -> tuple[float, float]:
    """A layer's `factor` that is the value itself: of a single number Keras takes all from 0 up to it."""
    return value, value


def kinds(settings: AugmentationSettings) -> tuple[Any, ...]:
    """What of the settings decides which layers there are; the rest are numbers that layers keep in variables."""
    stock = settings.model_dump(include={"randaugment", "contrast", "erasing", "mixup", "cutmix"})
    return (*_moves(settings), *stock.values())


def _moves(settings: AugmentationSettings) -> tuple[bool, bool]:
    """Whether images are mirrored at random, and whether they are warped."""
    if settings.strength == 0.0:
        return False, False
    warped = any(ranges(settings)) or settings.shift > 0
    return settings.flip and not settings.alternating_flip, warped


def ranges(settings: AugmentationSettings) -> tuple[float, float]:
    """Largest rotation in turns and largest zoom, as `strength` scales them."""
    return (
        min(settings.rotation * settings.strength, LARGEST_ROTATION),
        min(settings.zoom * settings.strength, LARGEST_ZOOM),
    )


def numbers(settings: AugmentationSettings) -> dict[str, float]:
    """What RandomAffine keeps in variables."""
    rotation, zoom = ranges(settings)
    return {"rotation": rotation, "zoom": zoom, "shift": settings.shift}


class RandomAffine(keras.layers.Layer):  # type: ignore[misc]
    """Keras's RandomFlip("horizontal"), RandomRotation and RandomZoom, drawn alike and applied as one warp.

    One bilinear reading of each pixel instead of two, so the images are a little sharper; what lies outside is
    reflected. Ranges are variables, so that a compiled training serves another trial's. Unlike the stock
    layers it compiles under XLA.
    """

    def __init__(self, *, flip: bool, rotation: float, zoom: float, shift: int, seed: int) -> None:
        super().__init__(dtype="float32")
        self._flip = flip
        self._generator = keras.random.SeedGenerator(seed)
        self._rotation = self._range("rotation", rotation)
        self._zoom = self._range("zoom", zoom)
        self._shift = self._range("shift", shift)

    def numbers(self) -> dict[str, Any]:
        """The variables that hold settings, by name."""
        return {"rotation": self._rotation, "zoom": self._zoom, "shift": self._shift}

    def call(self, images: Any, training: bool | None = False) -> Any:
        """Warped images, float32 and of the same shape. Outside of training they are only cast."""
        if not training:
            return ops.cast(images, "float32")
        drawn = keras.random.uniform((ops.shape(images)[0], 5), minval=-1.0, maxval=1.0, seed=self._generator)
        # Whole pixels, each of the 2 n + 1 as likely.
        shifts = ops.floor((drawn[:, 3:] + 1.0) * (self._shift + 0.5)) - self._shift
        return warp(images, self._matrices(drawn), shifts)

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

    def _matrices(self, drawn: Any) -> Any:
        angle = drawn[:, 0] * self._rotation * (2.0 * math.pi)
        scale = 1.0 + drawn[:, 1] * self._zoom
        mirror = ops.where(drawn[:, 2] < 0.0, -1.0, 1.0) if self._flip else ops.ones_like(angle)
        cosine, sine = ops.cos(angle) * scale, ops.sin(angle) * scale
        rows = (cosine * mirror, -sine * mirror, sine, cosine)
        return ops.reshape(ops.stack(rows, axis=-1), (-1, 2, 2))


def warp(images: Any, matrices: Any, shifts: Any) -> Any:
    """Images read at places turned and scaled about their centre, then shifted, bilinearly; float32.

    `images`: (n, height, width, channels). `matrices`: (n, 2, 2), from offsets (x, y) in pixels from the centre of
    the result to those in the image. `shifts`: (n, 2), pixels (x, y). Places outside are reflected at the border,
    edge pixels repeated.
    """
    height, width, channels = images.shape[1:]
    y, x = ops.meshgrid(
        ops.arange(height, dtype="float32") - (height - 1) / 2,
        ops.arange(width, dtype="float32") - (width - 1) / 2,
        indexing="ij",
    )
    offsets = ops.stack([ops.reshape(x, (-1,)), ops.reshape(y, (-1,))])
    places = ops.matmul(matrices, offsets)
    left, share_x = _reflected(places[:, 0] + shifts[:, :1] + (width - 1) / 2, width)
    top, share_y = _reflected(places[:, 1] + shifts[:, 1:] + (height - 1) / 2, height)
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
