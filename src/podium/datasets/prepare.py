"""Owns the way from a dataset reference to checked arrays on disk."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from podium.datasets.array_sources import (
    DIGITS_SIZE,
    Array,
    ArraySource,
    digits_arrays,
    npz_arrays,
    rgb_chunks,
)
from podium.datasets.cache import FORMAT, Cache, IndexEntry, StoredPart
from podium.datasets.decoding import Pixels, Shape, decode_all
from podium.datasets.image_tree import ImageTree, folder_digest, folder_fingerprint, folder_tree
from podium.datasets.keras_source import keras_arrays
from podium.datasets.references import Reference, parse_reference
from podium.datasets.zip_archive import zip_tree
from podium.errors import DatasetError
from podium.recipe_sections import DataSettings

Progress = Callable[[int, int], None]
Labels = NDArray[np.int64]
# A file that changed this recently could change again without its times telling.
SETTLED_NS = 2 * 10**9


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A prepared dataset: training and test part as files of their own.

    `*_images`: .npy, uint8 (count, height, width, 3); `*_labels`: .npy, int64 (count,), the place of the
    class in `class_names`. `image_shape` is (height, width, 3). `name` is short, for people.
    `source_digest` is the SHA-256 of the file or folder, None for datasets that go by name.
    """

    reference: str
    name: str
    class_names: tuple[str, ...]
    image_shape: Shape
    train_images: Path
    train_labels: Path
    train_count: int
    train_digest: str
    test_images: Path | None
    test_labels: Path | None
    test_count: int
    test_digest: str | None
    source_digest: str | None
    sorted_by_class: bool


@dataclass(frozen=True, kw_only=True)
class _Part:
    chunks: Callable[[Shape | None], Iterator[Pixels]]
    labels: Labels


@dataclass(frozen=True, kw_only=True)
class _Content:
    class_names: tuple[str, ...]
    train: _Part
    test: _Part | None


def prepare(settings: DataSettings, *, cache: Path, progress: Progress | None = None) -> Dataset:
    """Decode what `settings.reference` names, at `settings.image_size`, or find it in the cache.

    `progress` is called with images done and images in all. Cached arrays are checked against their digests.
    Raises: DatasetError naming what is wrong with the reference or the data.
    """
    reference = parse_reference(settings.reference)
    store = Cache(cache.expanduser().resolve())
    source_digest = _source_digest(reference, store)
    key = _key(reference, source_digest, settings.image_size)
    found = _find(reference, key, store)
    if found is not None:
        return found
    with store.building() as scratch:
        # Another process may have built it while this one waited.
        found = _find(reference, key, store)
        if found is not None:
            return found
        entry = _build(reference, source_digest, settings.image_size, store, scratch, progress)
        if _source_digest(reference, store) != source_digest:
            raise DatasetError(f"{reference.path} changed while it was being read.", remedy="Try again.")
        store.write_entry(key, entry)
    built = _find(reference, key, store)
    assert built is not None
    return built


def _find(reference: Reference, key: str, store: Cache) -> Dataset | None:
    entry = store.read_entry(key)
    train = store.find("train", entry.train_digest) if entry else None
    if entry is None or train is None:
        return None
    test: StoredPart | None = None
    if entry.test_digest is not None:
        test = store.find("test", entry.test_digest)
        if test is None:
            return None
    return Dataset(
        reference=reference.text,
        name=reference.name,
        class_names=entry.class_names,
        image_shape=train.image_shape,
        train_images=train.images,
        train_labels=train.labels,
        train_count=train.count,
        train_digest=train.digest,
        test_images=test.images if test else None,
        test_labels=test.labels if test else None,
        test_count=test.count if test else 0,
        test_digest=test.digest if test else None,
        source_digest=entry.source_digest,
        sorted_by_class=entry.sorted_by_class,
    )


def _build(
    reference: Reference,
    source_digest: str | None,
    image_size: int | None,
    store: Cache,
    scratch: Path,
    progress: Progress | None,
) -> IndexEntry:
    with _opened(reference, image_size, scratch) as content:
        total = len(content.train.labels) + (len(content.test.labels) if content.test else 0)
        chunks = _counted(content.train.chunks(None), 0, total, progress)
        train = store.write_part("train", chunks, content.train.labels, scratch)
        test = None
        if content.test is not None:
            chunks = _counted(content.test.chunks(train.image_shape), train.count, total, progress)
            test = store.write_part("test", chunks, content.test.labels, scratch)
    store.keep("train", train, scratch)
    if test is not None:
        store.keep("test", test, scratch)
    return IndexEntry(
        format=FORMAT,
        class_names=content.class_names,
        train_digest=train.digest,
        test_digest=test.digest if test else None,
        source_digest=source_digest,
        sorted_by_class=is_sorted_by_class(content.train.labels),
        decoder=f"pillow {PIL.__version__}",
    )


def is_sorted_by_class(labels: Labels) -> bool:
    """Whether each class is one block, as in a folder; which class comes first does not matter."""
    changes = int(np.count_nonzero(np.diff(labels)))
    return changes == len(np.unique(labels)) - 1


@contextmanager
def _opened(reference: Reference, image_size: int | None, scratch: Path) -> Iterator[_Content]:
    if reference.kind == "digits":
        yield _of_arrays(digits_arrays(), image_size or DIGITS_SIZE)
    elif reference.path is None:
        downloaded = scratch / "downloaded"
        downloaded.mkdir()
        yield _of_arrays(keras_arrays(reference.kind, downloaded), image_size)
    elif reference.kind == "npz":
        yield _of_arrays(npz_arrays(reference.path), image_size)
    else:
        open_tree = zip_tree if reference.kind == "zip" else folder_tree
        with open_tree(reference.path) as tree:
            yield _of_tree(tree, image_size)


def _of_arrays(source: ArraySource, image_size: int | None) -> _Content:
    def part(images: Array, labels: Labels) -> _Part:
        return _Part(chunks=lambda shape: rgb_chunks(images, image_size=image_size), labels=labels)

    test = None
    if source.test_images is not None and source.test_labels is not None:
        test = part(source.test_images, source.test_labels)
    train = part(source.train_images, source.train_labels)
    return _Content(class_names=source.class_names, train=train, test=test)


def _of_tree(tree: ImageTree, image_size: int | None) -> _Content:
    def part(members: tuple[tuple[str, int], ...]) -> _Part:
        names = [name for name, _ in members]
        labels = np.array([label for _, label in members], dtype=np.int64)
        return _Part(
            chunks=lambda shape: decode_all(names, tree.read, image_size=image_size, shape=shape),
            labels=labels,
        )

    test = part(tree.test) if tree.test else None
    return _Content(class_names=tree.class_names, train=part(tree.train), test=test)


def _counted(chunks: Iterator[Pixels], done: int, total: int, progress: Progress | None) -> Iterator[Pixels]:
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        if progress is not None:
            progress(done, total)


def _source_digest(reference: Reference, store: Cache) -> str | None:
    """SHA-256 of the source, remembered for as long as its size, times and place stay the same."""
    path = reference.path
    if path is None:
        return None
    try:
        fingerprint, latest_ns = _fingerprint(reference, path)
        known = store.read_stamp(fingerprint)
        if known is not None:
            return known
        started_ns = time.time_ns()
        if reference.kind == "folder":
            digest = folder_digest(path)
        else:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(f"cannot read {error.filename or path}: {error.strerror}.") from error
    if started_ns - latest_ns > SETTLED_NS:
        store.write_stamp(fingerprint, digest)
    return digest


def _fingerprint(reference: Reference, path: Path) -> tuple[str, int]:
    if reference.kind == "folder":
        facts, latest_ns = folder_fingerprint(path)
    else:
        stat = path.stat()
        facts = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
        latest_ns = max(stat.st_mtime_ns, stat.st_ctime_ns)
    return hashlib.sha256(f"{path!s}\0{facts}".encode(errors="surrogateescape")).hexdigest(), latest_ns


def _key(reference: Reference, source_digest: str | None, image_size: int | None) -> str:
    identity = [FORMAT, reference.kind, source_digest, image_size]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()
