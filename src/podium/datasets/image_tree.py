"""Owns the shape of an image folder: train/<class>/*, optional test/<class>/*, and what departs from it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from podium.datasets.references import refuse
from podium.errors import DatasetError, Fault

PARTS = ("train", "test")
SHAPE = "train/<class>/<image> and, if there is a test part, test/<class>/<image>"
_DESKTOP_FILES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


@dataclass(frozen=True, kw_only=True)
class ImageTree:
    """Image files by part and class. A label is the place of the class in `class_names`, sorted by name.

    `train` and `test` hold (name, label), sorted by class, then name; `read` gives a name's bytes.
    """

    class_names: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    test: tuple[tuple[str, int], ...]
    read: Callable[[str], bytes]


def sort_into_tree(names: Iterable[str], read: Callable[[str], bytes], *, where: Path) -> ImageTree:
    """Sort relative names (folders end in '/') into parts and classes.

    Entries beside train/ and test/, hidden files and what desktops leave behind are passed over.
    Raises: DatasetError with every name that does not fit the shape.
    """
    found: dict[str, dict[str, list[str]]] = {part: {} for part in PARTS}
    faults: list[Fault] = []
    for name in names:
        part, *rest = name.split("/")
        if part not in PARTS or _is_ignored(name) or rest in ([], [""]):
            continue
        if len(rest) == 1:
            faults.append(_misplaced(name, "a file outside a class folder", where))
        elif len(rest) > 2:
            faults.append(_misplaced(name, "a folder inside a class folder", where))
        elif not _is_text(name):
            faults.append(_misplaced(repr(name), "a name that is not UTF-8", where))
        else:
            images = found[part].setdefault(rest[0], [])
            if rest[1]:
                images.append(name)
    faults += _class_faults(found, where)
    if faults:
        raise refuse(f"{where} does not have the shape of an image folder.", faults)
    class_names = tuple(sorted(found["train"]))
    labels = {name: label for label, name in enumerate(class_names)}
    members = {
        part: tuple((name, labels[c]) for c in sorted(found[part]) for name in sorted(found[part][c]))
        for part in PARTS
    }
    return ImageTree(class_names=class_names, train=members["train"], test=members["test"], read=read)


@contextmanager
def folder_tree(folder: Path) -> Iterator[ImageTree]:
    """The image tree of a folder. Raises: DatasetError if its shape is another or it cannot be listed."""

    def read(name: str) -> bytes:
        return (folder / name).read_bytes()

    yield sort_into_tree(_names_in(folder), read, where=folder)


def folder_fingerprint(folder: Path) -> tuple[str, int]:
    """A quick fingerprint over all files' names, sizes, times and inodes; and the latest change (ns)."""
    digest = hashlib.sha256()
    latest = 0
    for name in _names_in(folder):
        facts = (folder / name).stat()
        times = (facts.st_mtime_ns, facts.st_ctime_ns)
        latest = max(latest, *times)
        digest.update(os.fsencode(name) + f"\0{facts.st_size} {times} {facts.st_ino}\n".encode())
    return digest.hexdigest(), latest


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names, sizes and contents of all files that count."""
    digest = hashlib.sha256()
    for name in _names_in(folder):
        if not name.endswith("/"):
            content = (folder / name).read_bytes()
            digest.update(os.fsencode(name) + f"\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def _names_in(folder: Path) -> list[str]:
    def fail(error: OSError) -> None:
        raise DatasetError(f"cannot read {error.filename}: {error.strerror}") from error

    names: list[str] = []
    for part in (part for part in PARTS if (folder / part).is_dir()):
        for here, folders, files in os.walk(folder / part, followlinks=True, onerror=fail):
            place = Path(here).relative_to(folder).as_posix()
            names += [f"{place}/{name}" for name in files]
            names += [f"{place}/{name}/" for name in folders]
            if place != part:
                folders.clear()  # one level is all that counts; deeper, links could lead round in circles
    return sorted(name for name in names if not _is_ignored(name))


def _class_faults(found: dict[str, dict[str, list[str]]], where: Path) -> list[Fault]:
    train, test = found["train"], found["test"]
    faults = [
        Fault(message=f"no image in {part}/{name}/", key="data.reference", file=str(where))
        for part in PARTS
        for name, images in sorted(found[part].items())
        if not images
    ]
    if not train:
        faults.append(Fault(message="no class folder in train/", key="data.reference", allowed=SHAPE))
    elif len(train) == 1:
        allowed = "two classes or more"
        message = f"one class only: '{next(iter(train))}'"
        faults.append(Fault(message=message, key="data.reference", file=str(where), allowed=allowed))
    unknown = sorted(set(test) - set(train)) if train else []
    faults += [
        Fault(message=f"test/{name}/ is a class that train/ does not have", file=str(where))
        for name in unknown
    ]
    return faults


def _misplaced(name: str, what: str, where: Path) -> Fault:
    return Fault(message=f"{name}: {what}", key="data.reference", got=name, allowed=SHAPE, file=str(where))


def _is_ignored(name: str) -> bool:
    return any(part.startswith(".") or part in _DESKTOP_FILES for part in name.split("/"))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
