"""Owns images that need no download; light to import, for a benchmark that times the start of a process."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from podium.digests import arrays_digest, split_digest
from podium.result import TrainingArrays


def noise(folder: Path, *, train: int, validation: int) -> TrainingArrays:
    """So many made-up images of 32 x 32 in ten classes, without a download."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (train + validation, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(len(images)) % 10
    parts = {"train": np.arange(train), "validation": np.arange(train, len(images))}
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    np.savez(folder / "split.npz", **parts)
    return TrainingArrays(
        images=folder / "images.npy",
        labels=folder / "labels.npy",
        split=folder / "split.npz",
        train_digest=arrays_digest(images, labels),
        split_digest=split_digest(parts["train"], parts["validation"]),
        class_names=tuple("0123456789"),
    )
