"""Owns best.keras: the network rebuilt from stock layers, written once, read back and compared."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from podium.errors import TrialFailed
from podium.recipe import Recipe
from podium.training.backbone import BACKBONE
from podium.training.checkpoint import Arrays
from podium.training.data import LoadedArrays
from podium.training.device import precision
from podium.training.layers import STOCK
from podium.training.model import PIXEL_SCALE, build_network
from podium.training.networks import network_outputs
from podium.training.stock_keras import foreign_objects

MODEL_FILE = "best.keras"
PREDICTIONS_FILE = "predictions.npz"
TOLERANCE = 1e-5
# What the rounding of a network that was trained in 16 bits may change: of an image's probability, on average.
ROUNDING = 0.1


class NotPromotable(Exception):
    """The network cannot be saved so that plain Keras loads it; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """`largest_difference`: between probabilities of the saved and of the trained network, on the images of
    predictions.npz. With reduced precision they differ by its rounding, since the saved one is float32."""

    model_file: Path
    model_sha256: str
    largest_difference: float


def export(recipe: Recipe, arrays: LoadedArrays, network: Any, weights: Arrays, folder: Path) -> Exported:
    """Write best.keras (uint8 images to float32 probabilities) and predictions.npz into `folder`.

    `network` is the trained one, which still has `weights`, its best. Raises: NotPromotable if it is not made of
    stock Keras objects; TrialFailed if the saved model does not predict the same.
    """
    try:
        with precision("float32"):
            model = _stock_model(recipe, arrays, network)
        _check_stock(model)
        _set_weights(model, weights)
        path = _save(model, folder)
        reloaded = keras.saving.load_model(path, compile=False, safe_mode=True)
    except NotPromotable:
        (folder / MODEL_FILE).unlink(missing_ok=True)
        raise
    images = np.ascontiguousarray(arrays.images[arrays.predicted])
    probabilities = predict(reloaded, images)
    # As the training does it: the scaling is outside of the trained network.
    trained = predict(network, images.astype(np.float32) * np.float32(PIXEL_SCALE))
    difference = float(np.abs(probabilities - trained).max())
    reduced = recipe.precision != "float32"
    limit, apart = (ROUNDING, _apart(probabilities, trained)) if reduced else (TOLERANCE, difference)
    if not apart <= limit:
        path.unlink()
        message = f"the saved model's probabilities differ by {apart:.2g} from the trained network's"
        if reduced:
            raise NotPromotable(
                f"{message} on average: it does not bear float32 in place of {recipe.precision}"
            )
        if recipe.model.builder is None:
            raise TrialFailed(f"{message}; the limit is {limit:g}.", cause="error")
        raise NotPromotable(f"{message}: {recipe.model.builder} does not build the same network twice")
    save_predictions(folder, arrays, images, probabilities)
    return Exported(model_file=path, model_sha256=_sha256(path), largest_difference=difference)


def predict(model: Any, images: NDArray[Any]) -> NDArray[np.float32]:
    """Probabilities (n, classes) of one batch of images."""
    return np.asarray(keras.ops.convert_to_numpy(model(images, training=False)), dtype=np.float32)


def _apart(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """How much of an image's probability lies on other classes, on average (total variation)."""
    return float(np.abs(one - other).sum(axis=1).mean() / 2)


def _stock_model(recipe: Recipe, arrays: LoadedArrays, network: Any) -> Any:
    inputs = keras.Input(arrays.image_shape, dtype="uint8", name="images")
    scaled = keras.layers.Rescaling(PIXEL_SCALE, name="rescaling")(inputs)
    if recipe.model.builder is None:
        kinds = STOCK
        if recipe.model.backbone_in_use is not None:
            kinds = replace(STOCK, backbone=network.get_layer(BACKBONE))
        outputs = network_outputs(scaled, recipe.model, arrays.image_shape, arrays.classes, kinds)
    else:
        outputs = build_network(recipe.model, arrays.image_shape, arrays.classes)(scaled)
    return keras.Model(inputs, outputs, name="classifier")


def _check_stock(model: Any) -> None:
    """Refuse whatever plain Keras would not load in safe mode: own classes and functions, Lambda layers."""
    try:
        config = keras.saving.serialize_keras_object(model)
    except Exception as error:
        raise NotPromotable(f"the network cannot be described as a Keras configuration: {error}") from error
    foreign = foreign_objects(config)
    if foreign:
        raise NotPromotable(f"the network is not made of stock Keras objects alone: {', '.join(foreign)}")


def _set_weights(model: Any, weights: Arrays) -> None:
    shapes = [tuple(weight.shape) for weight in model.weights]
    if shapes != [weight.shape for weight in weights]:
        raise NotPromotable(
            "the builder gave another network when called again: its weights have other shapes"
        )
    model.set_weights(weights)


def _save(model: Any, folder: Path) -> Path:
    temporary = folder / f".writing-{MODEL_FILE}"
    model.save(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    return temporary.replace(folder / MODEL_FILE)


def save_predictions(
    folder: Path, arrays: LoadedArrays, images: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> None:
    """Write predictions.npz: the fixed images (n, height, width, channels), their indices, labels and probabilities."""
    temporary = folder / f".writing-{PREDICTIONS_FILE}"
    with temporary.open("wb") as file:
        np.savez(
            file,
            images=images,
            indices=arrays.predicted,
            labels=np.asarray(arrays.labels[arrays.predicted]),
            probabilities=probabilities,
        )
    temporary.replace(folder / PREDICTIONS_FILE)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
