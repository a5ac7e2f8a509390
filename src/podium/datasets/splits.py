"""Owns which training images are trained on and which are set aside for validation."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import resample

from podium.datasets.cache import Cache, load_part
from podium.datasets.prepare import Dataset
from podium.digests import split_digest
from podium.errors import DatasetError, Fault
from podium.recipe_sections import DataSettings, ValidationSettings
from podium.result import TrainingArrays

Indices = NDArray[np.int64]
Labels = NDArray[np.int64]


def split(dataset: Dataset, settings: DataSettings, *, cache: Path) -> TrainingArrays:
    """Set validation images aside, keep `train_limit` of the others, and save the indices.

    Indices are sorted; the same dataset and settings give the same ones, whatever the order of calls.
    Raises: DatasetError if a class would be left without an image in either part, if the first images
    are asked for where the data is sorted by class, or if `train_limit` is above the training part.
    """
    _, labels = load_part(dataset.train_images, dataset.train_labels)
    validation = _validation(labels, settings.validation, dataset)
    train = np.setdiff1d(np.arange(len(labels), dtype=np.int64), validation)
    _refuse_missing(labels[train], dataset, "training", "data.validation.fraction")
    if settings.train_limit is not None:
        train = _limited(train, labels, settings.train_limit, settings.validation.seed)
        _refuse_missing(labels[train], dataset, "training", "data.train_limit")
    digest = split_digest(train, validation)
    return TrainingArrays(
        images=dataset.train_images,
        labels=dataset.train_labels,
        split=_save(train, validation, digest, Cache(cache.expanduser().resolve())),
        train_digest=dataset.train_digest,
        split_digest=digest,
        class_names=dataset.class_names,
    )


def load_split(path: Path) -> tuple[Indices, Indices]:
    """The indices of the training and of the validation images, both int64."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        return stored["train"], stored["validation"]


def check_batch_size(arrays: TrainingArrays, batch_size: int) -> None:
    """Raises: DatasetError if a batch has more images than there are to train on."""
    train, _ = load_split(arrays.split)
    if batch_size > len(train):
        fault = Fault(
            message=f"got {batch_size:,}, but there are {len(train):,} training images.",
            key="training.batch_size",
            got=batch_size,
            allowed=f"1 to {len(train)}",
        )
        raise DatasetError("The batch is larger than the training set.", faults=[fault])


def _validation(labels: Labels, settings: ValidationSettings, dataset: Dataset) -> Indices:
    count = max(1, round(len(labels) * settings.fraction))
    everything = np.arange(len(labels), dtype=np.int64)
    if settings.method == "first":
        if dataset.sorted_by_class:
            fault = Fault(
                message=f"'first' would take whole classes: {dataset.name} is sorted by class.",
                key="data.validation.method",
                got="first",
                allowed="stratified",
            )
            raise DatasetError("The validation images cannot be chosen.", faults=[fault])
        chosen = everything[:count]
    else:
        chosen = _stratified(everything, labels, count, settings.seed)
    _refuse_missing(labels[chosen], dataset, "validation", "data.validation.fraction")
    return chosen


def _limited(train: Indices, labels: Labels, limit: int, seed: int) -> Indices:
    if limit > len(train):
        fault = Fault(
            message=f"got {limit:,}, but validation leaves {len(train):,} training images.",
            key="data.train_limit",
            got=limit,
            allowed=f"1 to {len(train)}",
        )
        raise DatasetError("There are not so many training images.", faults=[fault])
    return _stratified(train, labels[train], limit, seed)


def _stratified(indices: Indices, labels: Labels, count: int, seed: int) -> Indices:
    # Unlike train_test_split, resample does not ask that the images left over hold every class.
    chosen = resample(indices, replace=False, n_samples=count, stratify=labels, random_state=seed)
    return np.sort(np.asarray(chosen, dtype=np.int64))


def _refuse_missing(labels: Labels, dataset: Dataset, part: str, key: str) -> None:
    present = np.bincount(labels, minlength=len(dataset.class_names))
    missing = [name for name, count in zip(dataset.class_names, present, strict=True) if count == 0]
    if missing:
        shown = ", ".join(missing[:10]) + (" and others" if len(missing) > 10 else "")
        fault = Fault(message=f"leaves no {part} image of: {shown}", key=key)
        raise DatasetError(
            f"{len(missing)} of {len(present)} classes would have no {part} image.",
            remedy=f"Change {key}, or add images of these classes.",
            faults=[fault],
        )


def _save(train: Indices, validation: Indices, digest: str, cache: Cache) -> Path:
    path = cache.root / "splits" / f"{digest}.npz"
    if path.exists() and _holds(path, digest):
        return path
    content = io.BytesIO()
    np.savez(content, train=train, validation=validation)
    cache.write_file(path, content.getvalue())
    return path


def _holds(path: Path, digest: str) -> bool:
    try:
        return split_digest(*load_split(path)) == digest
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False  # damaged: written anew
