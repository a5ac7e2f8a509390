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
    folder = _folders(name)[0]
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
    folders = _folders(name)
    folder = next((each for each in folders if live.holder(each) is not None), folders[0])
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


def _folders(name: str | None) -> list[Path]:
    """Folders of a sweep's studies and confirmations (default: of all sweeps), the newest status first; never none."""
    known = live.with_status(stores_here().sweeps)
    if not known:
        raise InvalidInput("no sweep has run here yet.", remedy="Start one with: make sweep")
    found = known if name is None else [folder for folder in known if live.is_of(folder.name, name)]
    if not found:
        names = ", ".join(sorted(folder.name for folder in known))
        raise InvalidInput(f"no sweep named '{name}' has run here.", remedy=f"Known: {names}.")
    return found
