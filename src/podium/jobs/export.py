"""Owns `podium export`: the champion in other formats, each run by its own runtime and held to the original."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from podium.answer import Answer
from podium.conversion.processes import FILES, Format, Measured, check_runtimes, convert, measure
from podium.errors import InvalidInput, PodiumError
from podium.packager.logged_model import MODEL_PLACE, sha256_of
from podium.session.champion import fetch_champion, find_champion, trained_on
from podium.session.held_images import HeldImages, hold_images
from podium.stores import Stores, stores_here
from podium.tracking import registry
from podium.tracking.artifacts import log_files
from podium.tracking.registry import ModelVersion
from podium.tracking.runs import prepare_store
from podium.verification.clean_process import CleanProcess, VerificationRefused

ARTIFACT_FOLDER = "exports"
MOST_LOST = 0.01
# Float formats compute the same in another order.
MOST_DIFFERENT = 1e-3


class Unfaithful(PodiumError):
    """A file that its own runtime does not run, or that gives no probabilities."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One exported file (a folder for saved_model), as its own runtime has it.

    `accuracy`, `largest_difference` (of any probability from the original's): on the compared validation images.
    `times_smaller`: than the original's file. `latency_ms`: one image at a time, one thread, median of 100.
    """

    path: str
    bytes: int
    format: Format
    accuracy: float
    largest_difference: float
    accuracy_lost: float
    times_smaller: float
    latency_ms: float
    images: int
    runtime: str
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class _Original:
    """The champion's own file, and what it makes of the compared images. `folder`: for files that go away."""

    file: Path
    folder: Path
    held: HeldImages
    probabilities: NDArray[np.float32]

    @property
    def accuracy(self) -> float:
        """Of the original on the compared images."""
        return _accuracy(self.probabilities, self.held.labels)


def export(model: str | None, *, formats: Sequence[Format], out: Path | None) -> Answer:
    """Write the champion of `model` (default: the latest sweep's) in each format, and compare what each predicts.

    Exit code 1 if a format cannot hold it; the others are done. Raises: InvalidInput if a runtime is missing or there
    is no champion; PodiumError if its data or file is not what is on record.
    """
    check_runtimes(formats)
    stores = stores_here()
    stores.prepare()
    prepare_store(stores)
    version = find_champion(stores, model)
    say = Console(stderr=True)
    place = out or stores.root / "exports" / f"{version.model}-v{version.version}"
    with tempfile.TemporaryDirectory(prefix="podium-export-") as folder:
        original = _open(stores, version, Path(folder))
        say.print(f"writing {', '.join(dict.fromkeys(formats))}", highlight=False)
        made = {each: original.folder / FILES[each] for each in formats}
        failed = convert(original.file, made, calibration=original.held.calibration)
        files = []
        for each in [each for each in made if each not in failed]:
            say.print(f"running {each}", highlight=False)
            try:
                files.append(_judged(original, each, made[each], place))
            except Unfaithful as error:
                failed[each] = error.message
    _record(stores, version, files)
    values = {
        "model": version.model,
        "version": version.version,
        "out": str(place),
        "accuracy": original.accuracy,
        "images": len(original.held.labels),
        "files": [asdict(each) for each in files],
        "failed": [{"format": each, "message": message} for each, message in failed.items()],
    }
    warnings = [f"{each} could not be exported: {message}" for each, message in failed.items()]
    return Answer(
        values=values,
        shown=_shown(values, files),
        warnings=[*warnings, *_warnings(files)],
        exit_code=1 if failed else 0,
    )


def _open(stores: Stores, version: ModelVersion, folder: Path) -> _Original:
    """Check the champion's file, and have it label the images that exports are compared on."""
    held = hold_images(trained_on(stores, version), folder)
    package, sha256 = fetch_champion(stores, version, folder / "package")
    probabilities = folder / "original.npy"
    with CleanProcess() as process:
        try:
            process.load(folder=package, sha256=sha256)
        except VerificationRefused as refusal:
            raise PodiumError(f"version {version.version} of '{version.model}': {refusal}") from refusal
        process.predict(images=held.compared, out=probabilities)
    return _Original(
        file=package / MODEL_PLACE,
        folder=folder,
        held=held,
        probabilities=np.load(probabilities, allow_pickle=False),
    )


def _judged(original: _Original, format_: Format, made: Path, place: Path) -> Exported:
    """Run and compare what was made; it comes to its place only then. Raises: Unfaithful."""
    try:
        measured = measure(made, format_, original.held.compared)
    except PodiumError as error:
        raise Unfaithful(error.message) from error
    size = sum(path.stat().st_size for path in [made, *made.rglob("*")] if path.is_file())
    compared = _compared(original, measured)
    return Exported(
        path=str(_put(made, place)),
        bytes=size,
        format=format_,
        times_smaller=original.file.stat().st_size / size,
        latency_ms=measured.latency_ms,
        images=len(original.held.labels),
        runtime=measured.runtime,
        sha256=sha256_of(made) if made.is_file() else None,
        **compared,
    )


def _compared(original: _Original, measured: Measured) -> Mapping[str, float]:
    found = measured.probabilities
    if found.shape != original.probabilities.shape or not np.isfinite(found).all():
        raise Unfaithful(
            f"{measured.runtime} gives {found.shape} values, expected {original.probabilities.shape} finite ones."
        )
    accuracy = _accuracy(found, original.held.labels)
    return {
        "accuracy": accuracy,
        "accuracy_lost": original.accuracy - accuracy,
        "largest_difference": float(np.abs(found - original.probabilities).max()),
    }


def _accuracy(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float((probabilities.argmax(axis=1) == labels).mean())


def _put(made: Path, place: Path) -> Path:
    """Copy a file or folder to its place under a temporary name, then take the place of an earlier one."""
    target = place / made.name
    temporary = place / f".writing-{made.name}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        if made.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(made, temporary)
            shutil.rmtree(target, ignore_errors=True)
        else:
            shutil.copyfile(made, temporary)
        return temporary.replace(target)
    except OSError as error:
        raise InvalidInput(f"cannot write {target}: {error.strerror}") from error


def _record(stores: Stores, version: ModelVersion, files: Sequence[Exported]) -> None:
    """Put the figures on the version as tags, and the files on its run; the original is there already."""
    tags = {
        f"podium.export.{each.format}": json.dumps(
            {name: value for name, value in asdict(each).items() if name != "path"}
        )
        for each in files
    }
    registry.tag_version(stores, version.model, version.version, tags)
    if version.run_id is not None:
        made = [Path(each.path) for each in files if each.format != "keras"]
        log_files(stores, version.run_id, made, f"{ARTIFACT_FOLDER}/v{version.version}")


def _warnings(files: Sequence[Exported]) -> list[str]:
    warnings = []
    for each in files:
        if each.accuracy_lost > MOST_LOST:
            warnings.append(f"{each.format} loses {100 * each.accuracy_lost:.1f} points of accuracy.")
        if each.format != "litert-int8" and each.largest_difference > MOST_DIFFERENT:
            warnings.append(
                f"{each.format} gives probabilities that differ by {each.largest_difference:.2g} from the model's."
            )
    return warnings


def _shown(values: Mapping[str, Any], files: Sequence[Exported]) -> list[object]:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("format", no_wrap=True)
    for heading in ("bytes", "smaller", "accuracy", "lost", "largest difference", "ms an image"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("runtime", "file"):
        table.add_column(heading, no_wrap=True)
    for each in files:
        cells = (
            each.format,
            f"{each.bytes:,}",
            f"{each.times_smaller:.2f}x",
            f"{each.accuracy:.4f}",
            f"{each.accuracy_lost:+.4f}",
            f"{each.largest_difference:.2g}",
            f"{each.latency_ms:.2f}",
            each.runtime,
            Path(each.path).name,
        )
        table.add_row(*(Text(cell) for cell in cells))
    return [
        table,
        f"{values['model']}, version {values['version']}: accuracy {values['accuracy']:.4f} on "
        f"{values['images']} validation images; milliseconds are of one image and one thread",
        f"in {values['out']}",
    ]
