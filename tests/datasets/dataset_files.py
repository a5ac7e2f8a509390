"""Makes small image files, folders and zips for the tests of this room."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(
    mode: str = "RGB", *, size: tuple[int, int] = (8, 8), seed: int = 0, format: str = "PNG", **options: Any
) -> bytes:
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, format=format, **options)
    return file.getvalue()


def tree(
    *,
    classes: tuple[str, ...] = ("cat", "dog"),
    train: int = 6,
    test: int = 2,
    size: tuple[int, int] = (8, 8),
) -> dict[str, bytes]:
    """Names and contents of an image folder with `train` and `test` images a class."""
    files = {}
    for label, name in enumerate(classes):
        for part, count, offset in (("train", train, 0), ("test", test, 500)):
            for i in range(count):
                files[f"{part}/{name}/{i:03}.png"] = picture(seed=1000 * label + i + offset, size=size)
    return files


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
