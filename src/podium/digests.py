"""Owns the digests of arrays: SHA-256 over what they hold, the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 1 << 22


def arrays_digest(images: NDArray[Any], labels: NDArray[Any]) -> str:
    """SHA-256 (hexadecimal) over dtype, shape and little-endian bytes of images, then of labels.

    Reads in chunks, so that a memory-mapped array is never whole in memory.
    """
    return _digest((images, labels))


def split_digest(train: NDArray[Any], validation: NDArray[Any]) -> str:
    """SHA-256 (hexadecimal) over dtype, shape and little-endian bytes of both index arrays, in this order."""
    return _digest((train, validation))


def weights_digest(weights: Iterable[NDArray[Any]]) -> str:
    """SHA-256 (hexadecimal) over order, dtype, shape and bytes of a network's weights; names do not count."""
    return _digest(weights)


def _digest(arrays: Iterable[NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        kind = array.dtype.newbyteorder("<")
        if kind.hasobject:
            raise TypeError(f"an array of Python objects has no digest: dtype {array.dtype}.")
        digest.update(f"{kind.str}{array.shape};".encode())
        rows = np.atleast_1d(array)
        row_bytes = array.dtype.itemsize * int(np.prod(rows.shape[1:], dtype=np.int64))
        step = max(1, CHUNK_BYTES // max(1, row_bytes))
        for start in range(0, len(rows), step):
            chunk = np.ascontiguousarray(rows[start : start + step], dtype=kind)
            digest.update(chunk.view(np.uint8).data if chunk.size else b"")
    return digest.hexdigest()
