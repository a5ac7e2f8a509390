"""Owns a node's training arrays: found by digest in its own dataset cache, else brought there once, always checked."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from podium.digests import arrays_digest, split_digest
from podium.errors import DatasetError
from podium.result import TrainingArrays
from podium.stores import dataset_cache

_BUILDING = ".building-"


@dataclass(frozen=True)
class Shipment:
    """References to the files of one set of arrays in Ray's object store, by their path inside the dataset cache.

    Ray brings each to a node once, however many workers ask for it there.
    """

    files: dict[str, ray.ObjectRef[NDArray[np.uint8]]]


def ship(arrays: TrainingArrays) -> Shipment:
    """Put the coordinator's arrays into the object store."""
    places = _places(arrays)
    meta = arrays.images.with_name("meta.json")  # so that the node's own cache knows what lies there
    if meta.is_file():
        places[str(Path(_inside(arrays.images)).with_name(meta.name))] = meta
    return Shipment({name: ray.put(np.fromfile(path, dtype=np.uint8)) for name, path in places.items()})


class NodeData:
    """The arrays that a worker has looked at. A look reads them once: trial after trial has the same."""

    def __init__(self) -> None:
        self._known: dict[TrainingArrays, TrainingArrays] = {}

    def find(self, arrays: TrainingArrays, shipment: Shipment | None) -> TrainingArrays | None:
        """The arrays as they lie on this node, None if they do not and nothing was shipped.

        `arrays` names files of the coordinator's machine. Raises: DatasetError, with both digests, if other
        data lie where these belong, or if they cannot be written.
        """
        if arrays not in self._known:
            same = all(path.is_file() for path in _places(arrays).values())
            found = arrays if same else self._cached(arrays, shipment)
            if found is None:
                return None
            check(found)
            self._known[arrays] = found
        return self._known[arrays]

    def _cached(self, arrays: TrainingArrays, shipment: Shipment | None) -> TrainingArrays | None:
        cache = dataset_cache().expanduser().resolve()
        here = replace(
            arrays,
            images=cache / _inside(arrays.images),
            labels=cache / _inside(arrays.labels),
            split=cache / _inside(arrays.split),
        )
        if not all(path.is_file() for path in (here.images, here.labels, here.split)):
            if shipment is None:
                return None
            _unload(shipment, cache)
        return here


def check(arrays: TrainingArrays) -> None:
    """Raises: DatasetError with both digests if the files are not the job's data."""
    try:
        images = np.load(arrays.images, mmap_mode="r", allow_pickle=False)
        labels = np.load(arrays.labels, mmap_mode="r", allow_pickle=False)
        with np.load(arrays.split, allow_pickle=False) as stored:
            parts = stored["train"], stored["validation"]
        train = arrays_digest(images, labels)
        split = split_digest(*parts)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DatasetError(f"{arrays.images.parent} cannot be read: {error}") from error
    for path, expected, found in (
        (arrays.images.parent, arrays.train_digest, train),
        (arrays.split, arrays.split_digest, split),
    ):
        if found != expected:
            raise DatasetError(f"{path} has the digest {found}, the sweep's data {expected}.")


def _unload(shipment: Shipment, cache: Path) -> None:
    """Write what was shipped into the cache; of several workers on a node one does."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            scratch = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=cache))
            try:
                for name, reference in shipment.files.items():
                    if not (cache / name).is_file():
                        _write(ray.get(reference), scratch / "file", cache / name)
            finally:
                shutil.rmtree(scratch)
    except OSError as error:
        raise DatasetError(f"cannot write to the dataset cache {cache}: {error}.") from error


def _write(content: NDArray[Any], temporary: Path, target: Path) -> None:
    content.tofile(temporary)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(target)


def _places(arrays: TrainingArrays) -> dict[str, Path]:
    return {_inside(path): path for path in (arrays.images, arrays.labels, arrays.split)}


def _inside(path: Path) -> str:
    """Where a file lies in a dataset cache, whose layout is the same everywhere: <part>/<digest>/<file>.npy,
    or splits/<digest>.npz."""
    return "/".join(path.parts[-2:] if path.suffix == ".npz" else path.parts[-3:])
