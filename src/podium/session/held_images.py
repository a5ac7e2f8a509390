"""Owns the images that an export is made and judged with: some to calibrate by, some to compare on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from podium.datasets.splits import load_split
from podium.session.champion import TrainedOn

CALIBRATION_IMAGES = 500
COMPARED_IMAGES = 1000


@dataclass(frozen=True, kw_only=True)
class HeldImages:
    """`calibration`: .npy of uint8 images of the training set. `compared`: .npy of validation images, with `labels`."""

    calibration: Path
    compared: Path
    labels: NDArray[np.int64]


def hold_images(data: TrainedOn, folder: Path) -> HeldImages:
    """Write up to 500 training and up to 1,000 validation images into `folder`, each evenly over its part."""
    train, validation = load_split(data.arrays.split)
    images = np.load(data.arrays.images, mmap_mode="r", allow_pickle=False)
    labels = np.load(data.arrays.labels, mmap_mode="r", allow_pickle=False)
    calibration, compared = folder / "calibration.npy", folder / "compared.npy"
    chosen = np.sort(_evenly(validation, COMPARED_IMAGES))
    np.save(calibration, images[np.sort(_evenly(train, CALIBRATION_IMAGES))])
    np.save(compared, images[chosen])
    return HeldImages(calibration=calibration, compared=compared, labels=np.asarray(labels[chosen]))


def _evenly(indices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """So many of the sorted indices, evenly spread: where images are sorted by class, of all classes."""
    ordered = np.sort(indices)
    count = min(count, len(ordered))
    chosen: NDArray[np.int64] = ordered[np.linspace(0, len(ordered) - 1, count).astype(np.int64)]
    return chosen
