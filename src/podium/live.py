"""Owns what other shells can see of a running sweep: its lock and its status file."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from podium.errors import InvalidInput

LOOK_SECONDS = 1.0


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the sweep's lock; it dies with its holder. Raises: InvalidInput if another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as handle:
        if not _take(handle):
            raise InvalidInput(
                f"the sweep {folder.name} is running already (process {holder(folder) or 'unknown'}).",
                remedy=f"Watch it with `podium status {folder.name}`, or end it with `podium stop {folder.name}`.",
            )
        handle.seek(0)
        handle.truncate()
        handle.write(f"{os.getpid()} {_born(os.getpid())}")
        handle.flush()
        yield


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Wait until no other process is in a part that this file guards. Only for parts of seconds."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def holder(folder: Path) -> int | None:
    """The process that holds the sweep's lock, None if nobody does (or nobody has said yet who it is)."""
    try:
        with (folder / "lock").open() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                process, _, born = handle.read().strip().partition(" ")
                # An earlier holder's number may be another process's by now.
                return int(process) if process and _born(int(process)) == born else None
    except FileNotFoundError:
        return None
    return None


def _take(handle: IO[str]) -> bool:
    """Take the lock. Somebody who only looks at it has it for a moment, hence more than one try."""
    deadline = time.monotonic() + LOOK_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        else:
            return True


def _born(process: int) -> str:
    """When a process started, in ticks since boot as Linux counts them; '' if there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def write_status(folder: Path, status: Mapping[str, Any]) -> None:
    """Replace the status file as a whole."""
    temporary = folder / f".status.{os.getpid()}"
    temporary.write_text(json.dumps(status))
    temporary.replace(folder / "status.json")


def read_status(folder: Path) -> dict[str, Any] | None:
    """The last status that was written, None if there is none."""
    try:
        content = json.loads((folder / "status.json").read_text())
    except FileNotFoundError:
        return None
    return content if isinstance(content, dict) else None


def latest(root: Path) -> Path | None:
    """The sweep folder whose status is the newest, None if there is none."""
    found = [(path.stat().st_mtime, path.parent) for path in root.glob("*/status.json")]
    return max(found)[1] if found else None
