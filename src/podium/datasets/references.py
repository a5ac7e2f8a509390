"""Owns dataset references: what a person may write after `--data`, and what each of them means."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from podium.errors import DatasetError, Fault
from podium.yaml_file import nearest

Kind = Literal["digits", "cifar10", "cifar100", "fashion_mnist", "folder", "zip", "npz"]

NAMED: dict[str, Kind] = {
    "digits": "digits",
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "fashion_mnist": "fashion_mnist",
}
ALLOWED = f"{', '.join(NAMED)}, folder:DIR, a path to a .zip file, npz:FILE"
OFFLINE = "digits, folder:DIR, a path to a .zip file, npz:FILE"
MOST_FAULTS = 10


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A parsed reference. `path` is absolute, None for datasets that go by name; `name` is short."""

    text: str
    kind: Kind
    name: str
    path: Path | None = None


def parse_reference(text: str) -> Reference:
    """Parse a dataset reference; a file or folder that it names must be there.

    Raises: DatasetError naming what is allowed, with a near match where there is one.
    """
    if text in NAMED:
        return Reference(text=text, kind=NAMED[text], name=text)
    prefix, colon, rest = text.partition(":")
    if colon and prefix in ("folder", "npz"):
        kind: Kind = "folder" if prefix == "folder" else "npz"
        if not rest:
            raise _refused(text, f"'{prefix}:' needs a path after it.")
        return _at_path(text, kind, rest)
    if text.lower().endswith(".zip"):
        return _at_path(text, "zip", text)
    raise _refused(text, f"no such dataset: '{text}'.{_hint(text)}")


def refuse(message: str, faults: Sequence[Fault], *, remedy: str | None = None) -> DatasetError:
    """The error that carries the first ten faults and tells how many there are."""
    shown = tuple(faults[:MOST_FAULTS])
    more = len(faults) - len(shown)
    if more > 0:
        message = f"{message} The first {len(shown)} of {len(faults)} faults:"
    return DatasetError(message, remedy=remedy, faults=shown)


def _at_path(text: str, kind: Kind, written: str) -> Reference:
    path = Path(os.path.expanduser(written))
    # Unlike Path's own, these say no of a name that no file can have.
    is_there = os.path.isdir(path) if kind == "folder" else os.path.isfile(path)
    if not is_there:
        what = "folder" if kind == "folder" else "file"
        near = nearest(path.name, _names_beside(path))
        raise _refused(text, f"no {what} {path} (from {Path.cwd()}).{near}")
    path = path.resolve()
    name = path.name if kind == "folder" else path.stem
    return Reference(text=text, kind=kind, name=name or kind, path=path)


def _names_beside(path: Path) -> list[str]:
    try:
        return os.listdir(path.parent)
    except (OSError, ValueError):
        return []


def _hint(text: str) -> str:
    if os.path.isdir(os.path.expanduser(text)):
        return f" Did you mean 'folder:{text}'?"
    if text.lower().endswith(".npz"):
        return f" Did you mean 'npz:{text}'?"
    return nearest(text.lower().replace("-", "_"), NAMED)


def _refused(text: str, message: str) -> DatasetError:
    fault = Fault(message=message, key="data.reference", got=text, allowed=ALLOWED)
    return DatasetError("The dataset reference cannot be used.", faults=[fault])
