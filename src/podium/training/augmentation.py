"""Owns the random changes of training images."""

from __future__ import annotations

from typing import Any

import keras

from podium.recipe import AugmentationSettings

LARGEST_ROTATION = 0.5  # of a turn: half a turn either way is every angle
LARGEST_ZOOM = 0.9  # of the size: at 1 nothing would be left of the image


def layers(settings: AugmentationSettings, seed: int) -> list[Any]:
    """Keras layers for float images (n, height, width, channels), active on training batches only.

    `strength` scales the ranges of rotation and zoom, which end at what an image can bear; 0 gives no layers.
    """
    if settings.strength == 0.0:
        return []
    rotation = min(settings.rotation * settings.strength, LARGEST_ROTATION)
    zoom = min(settings.zoom * settings.strength, LARGEST_ZOOM)
    chosen = []
    # float32 whatever the precision: positions of pixels do not fit into 8 or 11 bits.
    if settings.flip:
        chosen.append(keras.layers.RandomFlip("horizontal", seed=seed, dtype="float32"))
    if rotation > 0.0:
        chosen.append(keras.layers.RandomRotation(rotation, seed=seed + 1, dtype="float32"))
    if zoom > 0.0:
        chosen.append(keras.layers.RandomZoom(zoom, seed=seed + 2, dtype="float32"))
    return chosen
