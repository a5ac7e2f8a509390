"""Owns what all other tools search alike: images, epochs, and the guide's own configuration to begin with."""

from __future__ import annotations

from typing import Any

import numpy as np

EPOCHS = 27
GUIDE = {
    "depth": 3,
    "learning_rate": 1e-3,
    "dropout": 0.25,
    "strength": 1.0,
    "dense_units": 256,
    "batch_size": 64,
}


def load(path: str) -> tuple[Any, Any, Any, Any]:
    """x_train, y_train, x_val, y_val; images as floats in [0, 1]."""
    with np.load(path) as arrays:
        x_train, x_val = (arrays[name].astype("float32") / 255.0 for name in ("x_train", "x_val"))
        return x_train, arrays["y_train"], x_val, arrays["y_val"]
