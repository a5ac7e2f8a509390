"""Owns the files of an attempt between node and coordinator: packed there, put in their place here, whole or not at all."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from podium.result import TrainingJob, TrainingResult

# Path inside the attempt's folder -> content.
Files = dict[str, bytes]

KEPT = 2
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_SCRATCH = "podium-worker-"


@dataclass(frozen=True, kw_only=True)
class FoundCheckpoint:
    """A checkpoint as it travels: its epoch, and its files by path inside the attempt's folder."""

    epoch: int
    files: Files


class Scratch:
    """A worker's own folder on its node. It goes with the process; a killed worker's is removed by the next one."""

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or Path(tempfile.gettempdir())
        _sweep(parent)
        self.folder = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=parent))
        self._lock = (self.folder / ".lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def at_home(self, job: TrainingJob, earlier: Files | None) -> TrainingJob:
        """The job with folders on this node; `earlier` is unpacked to where it goes on from."""
        for left in self.folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
        folder = self.folder / "attempts" / job.folder.parent.name / job.folder.name
        folder.mkdir(parents=True)
        source: Path | None = None
        if job.resume_from is not None and earlier:
            source = self.folder / "earlier" / job.resume_from.parent.name / job.resume_from.name
            unpack(earlier, source, flush=False)
        return replace(job, folder=folder, resume_from=source)


def pack(folder: Path) -> Files:
    """What an ended attempt leaves: its newest checkpoint, and all files that lie beside the checkpoints."""
    found = newest_checkpoint(folder, after=0)
    files = dict(found.files) if found else {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_file() and not path.name.startswith("."):
            files[path.name] = path.read_bytes()
    return files


def checkpoints_of(folder: Path) -> Files | None:
    """The newest checkpoint of an earlier attempt, for one that goes on from it elsewhere."""
    found = newest_checkpoint(folder, after=0)
    return found.files if found else None


def newest_checkpoint(folder: Path, *, after: int) -> FoundCheckpoint | None:
    """The newest checkpoint of a later epoch than `after`, None if there is none (or it goes while it is read)."""
    epochs = [epoch for epoch in _epochs(folder) if epoch > after]
    if not epochs:
        return None
    path = folder / _name(max(epochs))
    try:
        files = {f"{path.name}/{file.name}": file.read_bytes() for file in sorted(path.iterdir())}
    except FileNotFoundError:
        return None  # replaced by a newer one meanwhile: the next look finds that
    return FoundCheckpoint(epoch=max(epochs), files=files)


def unpack(files: Files, folder: Path, *, flush: bool = True) -> None:
    """Put files in their place, checkpoints whole under their name; of checkpoints the newest two stay.

    Raises: OSError if the disk is full or away; what was there before is then untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints: dict[str, Files] = {}
    for name, content in files.items():
        top, _, rest = name.partition("/")
        if rest:
            checkpoints.setdefault(top, {})[rest] = content
        else:
            _write_file(folder / name, content, flush=flush)
    for name, parts in checkpoints.items():
        _write_checkpoint(folder / name, parts, flush=flush)
    _drop_old(folder)


def at_the_coordinator(result: TrainingResult, folder: Path) -> TrainingResult:
    """The result with its model file where `unpack` has put it."""
    if result.model_file is None:
        return result
    return replace(result, model_file=folder / result.model_file.name)


def _write_checkpoint(target: Path, parts: Files, *, flush: bool) -> None:
    if target.exists():
        return  # this attempt's own, of the same epoch: it came twice
    temporary = target.with_name(f".{target.name}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        for name, content in parts.items():
            _write_file(temporary / name, content, flush=flush)
        if flush:
            _flush([temporary])
        temporary.rename(target)
        if flush:
            _flush([target.parent])
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_file(path: Path, content: bytes, *, flush: bool) -> None:
    temporary = path.with_name(f".writing-{path.name}")
    with temporary.open("wb") as file:
        file.write(content)
        if flush:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


def _drop_old(folder: Path) -> None:
    for epoch in sorted(_epochs(folder))[:-KEPT]:
        # Out of sight first: one that is removed half-way must not look like a checkpoint.
        gone = folder / f".{_name(epoch)}-gone"
        (folder / _name(epoch)).rename(gone)
        shutil.rmtree(gone)


def _flush(folders: Iterable[Path]) -> None:
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _epochs(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    matches = (_CHECKPOINT.fullmatch(entry.name) for entry in folder.iterdir())
    return [int(match[1]) for match in matches if match]


def _name(epoch: int) -> str:
    return f"checkpoint-{epoch:04d}"


def _sweep(parent: Path) -> None:
    """Remove what killed workers of this user left: a living worker holds the lock in its folder."""
    for left in parent.glob(f"{_SCRATCH}*"):
        try:
            with (left / ".lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue  # alive, just being made, or another user's
