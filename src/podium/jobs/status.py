"""Owns `podium status` and `podium stop`: a running sweep, seen and ended from another shell."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from rich.table import Table

from podium import live
from podium.answer import Answer
from podium.errors import InvalidInput
from podium.stores import stores_here

STOP_SECONDS = 40.0


def status(name: str | None) -> Answer:
    """The last status that the sweep wrote, and whether a process still runs it."""
    folder = _folder(name)
    content = live.read_status(folder)
    if content is None:
        raise InvalidInput(f"the sweep {folder.name} has written no status yet.")
    process = live.holder(folder)
    values = {**content, "running": process is not None, "process": process}
    state = f"running (process {process})" if process is not None else "not running"
    table = Table("trial", "parameters", "epoch", "value")
    for row in content["trials"] if process is not None else []:
        value = "" if row["value"] is None else f"{row['value']:.4f}"
        table.add_row(str(row["trial"]), row["parameters"], f"{row['epoch']}/{row['epochs']}", value)
    shown: list[object] = [f"{folder.name}: {state}; {content['left']}"]
    return Answer(values=values, shown=[*shown, table] if table.row_count else shown)


def stop(name: str | None) -> Answer:
    """Interrupt the sweep as Ctrl-C would, and wait until its lock is free."""
    folder = _folder(name)
    process = live.holder(folder)
    if process is None:
        raise InvalidInput(f"the sweep {folder.name} is not running.")
    os.kill(process, signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    while live.holder(folder) is not None:
        if time.monotonic() > deadline:
            raise InvalidInput(
                f"the sweep {folder.name} (process {process}) has not ended after {STOP_SECONDS:.0f} s.",
                remedy="Call `podium stop` again to end it at once.",
            )
        time.sleep(0.2)
    return Answer(values={"sweep": folder.name, "process": process}, shown=[f"{folder.name}: ended"])


def _folder(name: str | None) -> Path:
    root = stores_here().sweeps
    if name is None:
        folder = live.latest(root)
        if folder is None:
            raise InvalidInput("no sweep has run here yet.", remedy="Start one with: make sweep")
        return folder
    found = [
        path
        for path in root.glob("*/status.json")
        if path.parent.name in (name,) or path.parent.name.startswith(f"{name}-")
    ]
    if not found:
        known = ", ".join(sorted(path.parent.name for path in root.glob("*/status.json"))) or "none"
        raise InvalidInput(f"no sweep named '{name}' has run here.", remedy=f"Known: {known}.")
    return max(found, key=lambda path: path.stat().st_mtime).parent
