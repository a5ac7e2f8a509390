"""Owns decoded arrays on disk: training and test parts in trees apart, and what came from which source."""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from podium.datasets.decoding import Pixels, Shape
from podium.digests import arrays_digest
from podium.errors import DatasetError

FORMAT: Literal[1] = 1
_BUILDING = ".building-"
_WRITING = ".writing-"
# Writing one small file takes milliseconds.
_OLD_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """One part as memory-mapped files. `images`: uint8 (count, h, w, 3); `labels`: int64 (count,)."""

    images: Path
    labels: Path
    count: int
    image_shape: Shape
    digest: str


class IndexEntry(BaseModel):
    """What a source was decoded into. It alone knows both parts, so it lies outside of both trees."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    class_names: tuple[str, ...]
    train_digest: str
    test_digest: str | None
    source_digest: str | None
    sorted_by_class: bool
    decoder: str


class _Meta(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    digest: str
    shape: tuple[int, ...]


class Cache:
    """The cache under one root. Parts lie in <root>/<part>/<digest>/; a part's folder names no other part."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def building(self) -> Iterator[Path]:
        """Let one process build at a time; yields a scratch folder that is removed at the end.

        Raises: DatasetError if the cache cannot be written.
        """
        with _writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / ".lock").open("a")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with _writing(self.root):
                # Who holds the lock is alone: anything half built was left by a process that was killed.
                for left in self.root.glob(f"{_BUILDING}*"):
                    shutil.rmtree(left)
                scratch = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=self.root))
            try:
                yield scratch
            finally:
                shutil.rmtree(scratch)

    @contextmanager
    def left_over(self) -> Iterator[list[Path]]:
        """What killed processes left half-written; until the block ends nobody builds.

        While another process builds already, nothing of it counts.
        """
        if not self.root.is_dir():
            yield []
            return
        old = time.time() - _OLD_SECONDS
        written = [path for path in self.root.glob(f"*/{_WRITING}*") if path.stat().st_mtime < old]
        with (self.root / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found = written
            else:
                found = [*self.root.glob(f"{_BUILDING}*"), *written]
            yield found

    def write_part(
        self, part: str, chunks: Iterable[Pixels], labels: NDArray[np.int64], scratch: Path
    ) -> StoredPart:
        """Write one part into the scratch folder; `chunks` are (n, h, w, 3), as many images as `labels`.

        Raises: DatasetError if the disk is full or cannot be written; whatever `chunks` raises.
        """
        folder = scratch / part
        with _writing(self.root):
            folder.mkdir()
        shape = _write_images(folder / "images.npy", chunks, len(labels), self.root)
        with _writing(self.root):
            np.save(folder / "labels.npy", labels, allow_pickle=False)
            digest = arrays_digest(*load_part(folder / "images.npy", folder / "labels.npy"))
            meta = _Meta(format=FORMAT, digest=digest, shape=(len(labels), *shape))
            (folder / "meta.json").write_text(meta.model_dump_json(), encoding="utf-8")
        return _stored(folder, digest, len(labels), shape)

    def keep(self, part: str, written: StoredPart, scratch: Path) -> None:
        """Move a part that was written into its place, unless the same is there and undamaged."""
        if self.find(part, written.digest) is not None:
            return
        target = self._folder(part, written.digest)
        with _writing(self.root):
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                # Damaged: moved aside rather than overwritten, since a worker may have it mapped.
                target.rename(scratch / f"{part}-damaged")
            written.images.parent.rename(target)

    def find(self, part: str, digest: str) -> StoredPart | None:
        """A stored part, None if it is not there or no longer what its digest says."""
        folder = self._folder(part, digest)
        try:
            meta = _Meta.model_validate_json((folder / "meta.json").read_bytes())
            pixels, classes = load_part(folder / "images.npy", folder / "labels.npy")
        except (OSError, ValidationError, DatasetError):
            return None
        if not meta.digest == digest == arrays_digest(pixels, classes):
            return None
        _, height, width, channels = pixels.shape
        return _stored(folder, digest, len(classes), (height, width, channels))

    def read_entry(self, key: str) -> IndexEntry | None:
        """What is known about a source, None if nothing that can be used."""
        try:
            return IndexEntry.model_validate_json((self.root / "index" / f"{key}.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def write_entry(self, key: str, entry: IndexEntry) -> None:
        """Remember what a source was decoded into."""
        self.write_file(self.root / "index" / f"{key}.json", entry.model_dump_json(indent=1).encode())

    def read_stamp(self, fingerprint: str) -> str | None:
        """The source digest that was computed when the source had this fingerprint."""
        try:
            digest = json.loads((self.root / "sources" / f"{fingerprint}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return digest if isinstance(digest, str) else None

    def write_stamp(self, fingerprint: str, source_digest: str) -> None:
        """Remember a source's digest, so that an unchanged source need not be read again."""
        self.write_file(self.root / "sources" / f"{fingerprint}.json", json.dumps(source_digest).encode())

    def write_file(self, path: Path, content: bytes) -> None:
        """Write to a temporary name and rename. Raises: DatasetError if the cache cannot be written."""
        with _writing(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.parent / f"{_WRITING}{uuid.uuid4().hex}"
            try:
                temporary.write_bytes(content)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def _folder(self, part: str, digest: str) -> Path:
        return self.root / part / digest


def load_part(images: Path, labels: Path) -> tuple[Pixels, NDArray[np.int64]]:
    """Memory-map one part: images uint8 (n, h, w, 3), labels int64 (n,), both read-only.

    Raises: DatasetError if the files are missing or hold something else.
    """
    try:
        pixels = np.load(images, mmap_mode="r", allow_pickle=False)
        classes = np.load(labels, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"cannot read the arrays in {images.parent}: {error}.") from error
    fits = pixels.dtype == np.uint8 and pixels.ndim == 4 and classes.dtype == np.int64
    if not fits or classes.shape != pixels.shape[:1]:
        found = f"{pixels.dtype} {pixels.shape} and {classes.dtype} {classes.shape}"
        raise DatasetError(f"the arrays in {images.parent} are {found}: not images with their labels.")
    return pixels, classes


def _write_images(path: Path, chunks: Iterable[Pixels], count: int, root: Path) -> Shape:
    # Written as a plain file: on a full disk a memory map would end the process with SIGBUS.
    shape: Shape | None = None
    written = 0
    with path.open("wb") as file:
        for chunk in chunks:
            with _writing(root):
                if shape is None:
                    shape = (chunk.shape[1], chunk.shape[2], chunk.shape[3])
                    _start(file, count, chunk, root)
                file.write(np.ascontiguousarray(chunk).data)
            written += len(chunk)
    assert shape is not None, "a part has images"
    assert written == count, "as many images as labels"
    return shape


def _start(file: IO[bytes], count: int, chunk: Pixels, root: Path) -> None:
    needed = count * chunk[0].nbytes
    free = shutil.disk_usage(root).free
    if needed > free:
        raise DatasetError(
            f"the decoded images need {needed / 2**30:.1f} GiB, and {root} has {free / 2**30:.1f} GiB left.",
            remedy="Set data.image_size to make them smaller, or PODIUM_CACHE to a folder on a larger disk.",
        )
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *chunk.shape[1:])}
    npy.write_array_header_1_0(file, header)


def _stored(folder: Path, digest: str, count: int, shape: Shape) -> StoredPart:
    return StoredPart(
        images=folder / "images.npy",
        labels=folder / "labels.npy",
        count=count,
        image_shape=shape,
        digest=digest,
    )


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"cannot write to the dataset cache {root}: {error.strerror or error}.",
            remedy="Make the folder writable, or set PODIUM_CACHE to another one.",
        ) from error
