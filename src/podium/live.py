"""Owns what other shells can see of a running sweep: its lock and its status file."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from podium.errors import InvalidInput
from podium.stores import Stores, redacted

LOOK_SECONDS = 1.0
STORES_FILE = "stores.json"
# What follows a name: the digits of a study and its number, then those of a confirmation; or the time of a training.
_SUFFIX = re.compile(r"-[0-9a-f]{10}(-\d+)?(-confirm-[0-9a-f]{10})?|-\d{8}-\d{6}")


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
    _replace(folder / "status.json", status)


def note_stores(folder: Path, stores: Stores) -> None:
    """Keep in the sweep's folder where its study and its runs are, without passwords."""
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / STORES_FILE, _addresses(stores))


def kept_elsewhere(folder: Path, stores: Stores) -> bool:
    """Whether the sweep's study and runs are in other stores than these, as far as its folder says."""
    try:
        return bool(json.loads((folder / STORES_FILE).read_text()) != _addresses(stores))
    except FileNotFoundError:
        return False


def _replace(file: Path, content: object) -> None:
    temporary = file.with_name(f".status.{os.getpid()}")
    temporary.write_text(json.dumps(content))
    temporary.replace(file)


def _addresses(stores: Stores) -> list[str]:
    # Stores beside the folder stay its own if all of it is moved.
    return [
        redacted(each).replace(str(stores.root), "mlruns") for each in (stores.study_url, stores.tracking_uri)
    ]


def read_status(folder: Path) -> dict[str, Any] | None:
    """The last status that was written, None if there is none."""
    try:
        content = json.loads((folder / "status.json").read_text())
    except FileNotFoundError:
        return None
    return content if isinstance(content, dict) else None


def is_of(folder: str, name: str) -> bool:
    """Whether a folder of this name is that of a sweep, confirmation or single training called `name`."""
    return folder == name or (folder.startswith(name) and bool(_SUFFIX.fullmatch(folder[len(name) :])))


def with_status(root: Path) -> list[Path]:
    """The sweep folders that hold a status, the newest first."""
    found = [(path.stat().st_mtime, path.parent) for path in root.glob("*/status.json")]
    return [folder for _, folder in sorted(found, reverse=True)]
