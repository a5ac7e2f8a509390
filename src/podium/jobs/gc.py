"""Owns `podium gc`: list what ended sweeps and killed processes left on disk, and remove it if told so."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.filesize import decimal
from rich.table import Table

from podium.answer import Answer
from podium.errors import PodiumError
from podium.session.left_over import Item, look
from podium.stores import dataset_cache, stores_here


def gc(*, yes: bool) -> Answer:
    """Without `yes` nothing is removed. Raises: PodiumError if something cannot be removed."""
    stores = stores_here()
    with look(stores, dataset_cache()) as found:
        if yes:
            for item in found.removable:
                _remove(item.path)
    total = sum(item.size_bytes for item in found.removable)
    values = {
        "removed": yes,
        "bytes": total,
        "items": _rows(found.removable),
        "kept": _rows(found.kept),
    }
    return Answer(values=values, shown=_shown(found.removable, found.kept, total, removed=yes))


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return  # gone by itself, as a process ended
    except OSError as error:
        raise PodiumError(
            f"cannot remove {path}: {error.strerror}.", remedy="Mend that, then call it again."
        ) from error


def _rows(items: Sequence[Item]) -> list[dict[str, Any]]:
    return [{"path": str(item.path), "bytes": item.size_bytes, "why": item.why} for item in items]


def _shown(removable: Sequence[Item], kept: Sequence[Item], total: int, *, removed: bool) -> list[object]:
    shown: list[object] = []
    for items, title in ((removable, "removed" if removed else "can be removed"), (kept, "stays")):
        table = Table(title, "size", "because", title_justify="left")
        for item in items:
            table.add_row(_from_here(item.path), decimal(item.size_bytes), item.why)
        shown += [table] if items else []
    if not removable:
        return [*shown, "nothing is left over"]
    last = f"{decimal(total)} removed" if removed else f"{decimal(total)} can be removed: podium gc --yes"
    return [*shown, last]


def _from_here(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
