"""Owns datasets that come as arrays (digits, .npz files, Keras's): what is allowed, brought to one form."""

from __future__ import annotations

import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from podium.datasets.decoding import Pixels, resize
from podium.datasets.references import refuse
from podium.datasets.zip_archive import open_zip
from podium.errors import DatasetError, Fault

DIGITS_SIZE = 32
DIGITS_SPLIT_SEED = 0
CHUNK_IMAGES = 1024
NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class ArraySource:
    """Checked arrays: images of integers 0..255, (n, h, w) or (n, h, w, c); labels int64 0..k-1."""

    class_names: tuple[str, ...]
    train_images: Array
    train_labels: NDArray[np.int64]
    test_images: Array | None
    test_labels: NDArray[np.int64] | None


def digits_arrays() -> ArraySource:
    """scikit-learn's 1,797 handwritten digits, 8x8 with 16 greys; a stratified fifth is the test part."""
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=DIGITS_SPLIT_SEED
    )
    return ArraySource(
        class_names=tuple(str(name) for name in bunch.target_names),
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
    )


def npz_arrays(path: Path) -> ArraySource:
    """Read and check x_train, y_train and, if there are any, x_test, y_test; nothing is unpickled.

    Raises: DatasetError with every fault.
    """
    with open_zip(path, images=False) as archive:
        _check_members(archive, path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in NPZ_KEYS if key in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        raise DatasetError(f"{path} cannot be read: {error}.") from error
    return checked_arrays(arrays, where=str(path))


def checked_arrays(
    arrays: Mapping[str, Array], *, where: str, class_names: tuple[str, ...] | None = None
) -> ArraySource:
    """Check arrays under Keras's names and map their labels to 0..k-1.

    `class_names` are those of labels 0..k-1; else each class is called by its number.
    Raises: DatasetError with every fault.
    """
    faults = [Fault(message=f"{key} is missing", file=where) for key in NPZ_KEYS[:2] if key not in arrays]
    if ("x_test" in arrays) != ("y_test" in arrays):
        faults.append(Fault(message="x_test and y_test come together or not at all", file=where))
    flat = {k: a.reshape(-1) if k[0] == "y" and a.shape[1:] == (1,) else a for k, a in arrays.items()}
    for key, array in flat.items():
        faults += _image_faults(key, array, where) if key[0] == "x" else _label_faults(key, array, where)
    for part in ("train", "test"):
        images, labels = flat.get(f"x_{part}"), flat.get(f"y_{part}")
        if images is None or labels is None or not images.ndim or not labels.ndim:
            continue  # said already
        if len(images) != len(labels):
            message = f"{len(images)} images but {len(labels)} labels in the {part} part"
            faults.append(Fault(message=message, file=where))
    if "x_test" in flat and "x_train" in flat and flat["x_test"].shape[1:] != flat["x_train"].shape[1:]:
        message = f"x_test has images of {flat['x_test'].shape[1:]}, x_train of {flat['x_train'].shape[1:]}"
        faults.append(Fault(message=message, file=where))
    if faults:
        raise refuse("The arrays cannot be used.", faults)
    return _mapped(flat, where, class_names)


def rgb_chunks(images: Array, *, image_size: int | None) -> Iterator[Pixels]:
    """Yield checked images as uint8 RGB chunks (n, height, width, 3)."""
    for start in range(0, len(images), CHUNK_IMAGES):
        chunk = np.asarray(images[start : start + CHUNK_IMAGES]).astype(np.uint8)
        if chunk.ndim == 3:
            chunk = chunk[..., np.newaxis]
        if chunk.shape[-1] == 1:
            chunk = np.repeat(chunk, 3, axis=-1)
        yield resize(np.ascontiguousarray(chunk), image_size)


def _mapped(flat: Mapping[str, Array], where: str, class_names: tuple[str, ...] | None) -> ArraySource:
    values, train_labels = np.unique(flat["y_train"], return_inverse=True)
    if len(values) == 1:
        fault = Fault(message=f"one class only: {values[0]}", file=where, allowed="two classes or more")
        raise refuse("The arrays cannot be used.", [fault])
    test_labels = None
    if "y_test" in flat:
        unknown = np.setdiff1d(flat["y_test"], values)
        if len(unknown):
            shown = ", ".join(str(value) for value in unknown[:10])
            fault = Fault(message=f"y_test has classes that y_train does not have: {shown}", file=where)
            raise refuse("The arrays cannot be used.", [fault])
        test_labels = np.searchsorted(values, flat["y_test"]).astype(np.int64)
    names = class_names or tuple(str(value) for value in values)
    if len(names) != len(values):
        fault = Fault(message=f"{len(values)} classes, expected {len(names)}", file=where)
        raise refuse("The arrays cannot be used.", [fault])
    return ArraySource(
        class_names=names,
        train_images=flat["x_train"],
        train_labels=train_labels.astype(np.int64),
        test_images=flat.get("x_test"),
        test_labels=test_labels,
    )


def _image_faults(key: str, array: Array, where: str) -> list[Fault]:
    allowed = "integers 0 to 255 of shape (n, height, width), (n, height, width, 1) or (n, height, width, 3)"
    message = None
    if array.dtype.kind == "f":
        message = (
            f"{key} holds {array.dtype}; save it as bytes: (255 * x).round().astype('uint8') if x is 0..1"
        )
    elif array.dtype.kind not in "iu":
        message = f"{key} holds {array.dtype}"
    elif array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] not in (1, 3)) or not array.size:
        message = f"{key} has shape {array.shape}"
    elif array.dtype != np.uint8 and (array.min() < 0 or array.max() > 255):
        message = f"{key} has values from {array.min()} to {array.max()}"
    return [Fault(message=message, key=key, file=where, allowed=allowed)] if message else []


def _label_faults(key: str, array: Array, where: str) -> list[Fault]:
    allowed = "one integer an image, of shape (n,) or (n, 1)"
    message = None
    if array.ndim != 1 or not array.size:
        message = f"{key} has shape {array.shape}"
        if array.ndim == 2:
            message += "; from one-hot labels take y.argmax(axis=1)"
    elif array.dtype.kind not in "iu":
        message = f"{key} holds {array.dtype}"
    return [Fault(message=message, key=key, file=where, allowed=allowed)] if message else []


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse objects and headers that promise other sizes than the file holds, before numpy allocates."""
    faults: list[Fault] = []
    for member in archive.infolist():
        key = member.filename.removesuffix(".npy")
        if key not in NPZ_KEYS:
            continue
        try:
            with archive.open(member) as stream:
                version = npy.read_magic(stream)
                if version not in ((1, 0), (2, 0)):
                    raise ValueError(f"array format {version}")
                reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, _, dtype = reader(stream)
                held = member.file_size - stream.tell()
        # numpy parses the header's text as Python literals, with whatever errors that raises.
        except (
            ValueError,
            SyntaxError,
            TypeError,
            tokenize.TokenError,
            zlib.error,
            OSError,
            EOFError,
        ) as error:
            faults.append(Fault(message=f"{key} is not a plain array: {error}", key=key, file=str(path)))
            continue
        except (zipfile.BadZipFile, NotImplementedError) as error:
            faults.append(Fault(message=f"{key}: {error}", key=key, file=str(path)))
            continue
        if dtype.hasobject:
            message = f"{key} holds Python objects, which are never unpickled"
            faults.append(Fault(message=message, key=key, file=str(path), allowed="arrays of integers"))
        elif math.prod(shape) * dtype.itemsize != held:
            message = f"{key} declares {shape} of {dtype} but holds {held:,} bytes"
            faults.append(Fault(message=message, key=key, file=str(path)))
    needed = sum(each.file_size for each in archive.infolist())
    if needed > memory_bytes():
        message = f"declares {needed:,} bytes in all"
        faults.append(
            Fault(message=message, file=str(path), allowed=f"this machine's memory, {memory_bytes():,} bytes")
        )
    if faults:
        raise refuse(f"{path} cannot be used.", faults)


def memory_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
