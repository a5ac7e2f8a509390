"""Owns which files a person means by images and folders of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from podium.errors import Fault, InvalidInput

# What the decoder reads; files of a folder that end otherwise are passed over.
SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
}


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The files, and those inside the folders that end as images do, sorted; each once.

    Raises: InvalidInput with everything that is not there, and folders without images.
    """
    found: dict[Path, None] = {}
    faults = []
    for path in paths:
        if os.path.isdir(path):
            inside = _inside(path)
            found |= dict.fromkeys(inside)
            if not inside:
                faults.append(
                    Fault(message=f"no image in {path}", got=str(path), allowed=" ".join(sorted(SUFFIXES)))
                )
        elif os.path.isfile(path):
            found[path] = None
        else:
            faults.append(Fault(message=f"no file or folder {path}", got=str(path)))
    if faults:
        raise InvalidInput("images cannot be found.", faults=faults)
    return list(found)


def _inside(folder: Path) -> list[Path]:
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(here, name)
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
        ]
    return sorted(found)
