"""Owns `podium predict`: image files to labels, by the champion."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from podium.answer import Answer
from podium.datasets.decoding import decode_each
from podium.errors import Fault, InvalidInput, PodiumError
from podium.reporting.label_grid import MOST_IMAGES, Labelled, label_grid
from podium.reporting.style import to_png
from podium.session.champion import class_names, fetch_champion, find_champion
from podium.session.image_files import image_files
from podium.stores import Stores, stores_here
from podium.tracking.registry import ModelVersion
from podium.tracking.runs import prepare_store
from podium.verification.clean_process import CleanProcess, VerificationRefused

ROWS_SHOWN = 100


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One image's label. `confidence`: its probability."""

    file: str
    label: str
    confidence: float


@dataclass(kw_only=True)
class _Found:
    """What came of all files so far, and the first images as the model saw them."""

    predictions: list[Prediction] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    shown: list[NDArray[np.uint8]] = field(default_factory=list)


def predict(paths: Sequence[Path], *, model: str | None, grid: Path | None) -> Answer:
    """Label images with the champion of `model` (default: the latest sweep's).

    Images become what the dataset's would have become. Exit code 1 if some could not be read; the others are done.
    Raises: InvalidInput if a path is not there, or there is no champion; PodiumError if its file was changed.
    """
    files = image_files(paths)
    stores = stores_here()
    stores.prepare()
    prepare_store(stores)
    version = find_champion(stores, model)
    found, named = _label(stores, version, files)
    if grid is not None and found.predictions:
        _write(grid, found, version)
    values = {
        "model": version.model,
        "version": version.version,
        "predictions": [vars(each) for each in found.predictions],
        "failed": [{"file": str(fault.got), "message": fault.message} for fault in found.faults],
        "grid": str(grid) if grid is not None and found.predictions else None,
    }
    warnings = [f"not an image that can be used: {fault.message}" for fault in found.faults]
    if not named:
        warnings.append(f"version {version.version} has no class names on record: labels are numbers.")
    return Answer(
        values=values,
        shown=_shown(found, version, grid),
        warnings=warnings,
        exit_code=1 if found.faults else 0,
    )


def _label(stores: Stores, version: ModelVersion, files: Sequence[Path]) -> tuple[_Found, bool]:
    """Labels of all files, and whether the classes have names."""
    found = _Found()
    with tempfile.TemporaryDirectory(prefix="podium-predict-") as place, CleanProcess() as process:
        folder = Path(place)
        package, sha256 = fetch_champion(stores, version, folder / "package")
        try:
            facts = process.load(folder=package, sha256=sha256)
        except VerificationRefused as refusal:
            raise PodiumError(f"version {version.version} of '{version.model}': {refusal}") from refusal
        height, width, _ = facts["image_shape"]
        names = class_names(stores, version, facts["classes"])
        labels = names or tuple(str(number) for number in range(facts["classes"]))
        chunks = decode_each(
            [str(file) for file in files], lambda name: Path(name).read_bytes(), size=(height, width)
        )
        for chunk in chunks:
            _label_chunk(chunk, found, labels, process, folder)
    return found, names is not None


def _label_chunk(
    chunk: Sequence[tuple[str, NDArray[np.uint8] | Fault]],
    found: _Found,
    labels: Sequence[str],
    process: CleanProcess,
    folder: Path,
) -> None:
    found.faults += [image for _, image in chunk if isinstance(image, Fault)]
    good = [(name, image) for name, image in chunk if not isinstance(image, Fault)]
    if not good:
        return
    images, out = folder / "images.npy", folder / "probabilities.npy"
    np.save(images, np.stack([image for _, image in good]))
    process.predict(images=images, out=out)
    probabilities = np.load(out, allow_pickle=False)
    for (name, _), row in zip(good, probabilities, strict=True):
        best = int(row.argmax())
        found.predictions.append(Prediction(file=name, label=labels[best], confidence=float(row[best])))
    found.shown += [image for _, image in good[: MOST_IMAGES - len(found.shown)]]


def _shown(found: _Found, version: ModelVersion, grid: Path | None) -> list[object]:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("file", overflow="fold")
    table.add_column("label")
    table.add_column("confidence", justify="right")
    for each in found.predictions[:ROWS_SHOWN]:
        table.add_row(Text(each.file), Text(each.label), f"{each.confidence:.4f}")
    more = len(found.predictions) - ROWS_SHOWN
    failed = f", {len(found.faults)} could not be read" if found.faults else ""
    return [
        *([table] if found.predictions else []),
        *([f"and {more} more; --json has them all"] if more > 0 else []),
        f"{len(found.predictions)} images by {version.model}, version {version.version}{failed}",
        *([f"grid: {grid}"] if grid is not None and found.predictions else []),
    ]


def _write(path: Path, found: _Found, version: ModelVersion) -> None:
    count = len(found.shown)
    all_of = (
        f"the first {count} of {len(found.predictions)}" if len(found.predictions) > count else f"{count}"
    )
    images = [
        Labelled(image=image, name=Path(each.file).name, label=each.label, confidence=each.confidence)
        for image, each in zip(found.shown, found.predictions, strict=False)
    ]
    title = f"{version.model}, version {version.version}: {all_of} images, as the network sees them"
    png = to_png(label_grid(images, title=title))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(png)
        temporary.replace(path)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from error
