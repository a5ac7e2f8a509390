"""Owns what may be removed from disk: left over by what has ended, and needed by no resume, rerun or champion."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from podium import live
from podium.coordinator.attempts import attempts, left_over
from podium.coordinator.trial import attempt_folder
from podium.datasets.cache import Cache
from podium.engines.base import TrialRecord
from podium.engines.listed import ListedEngine
from podium.engines.study import list_studies
from podium.errors import InvalidInput
from podium.packager.packager import MODEL_FILE, is_packaged
from podium.session.agreement import HISTORY_FILE
from podium.stores import Stores
from podium.tracking import query
from podium.tracking.spool import undelivered

OLD_SECONDS = 7 * 24 * 3600.0
FINISHED = "FINISHED"
KILLED = "left by a process that was killed"
ENDED = (HISTORY_FILE, MODEL_FILE)  # what a training writes at its end
_TRIAL = re.compile(r"trial-(\d+)")
# A write under way has its process in its name, a model's only a dot before its own.
_TEMPORARY = re.compile(
    r"\.(?:mlflow\.db|write-probe|status|checkpoint)[.-](?:\d+-)?(?P<process>\d+)|\.writing-.+"
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """A file or folder, its size, and why it may go or has to stay."""

    path: Path
    size_bytes: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """What may go, and what of the same kind has to stay."""

    removable: list[Item]
    kept: list[Item]


@contextmanager
def look(stores: Stores, cache: Path) -> Iterator[Found]:
    """Find what is left over. No sweep of which anything may go can start, and no dataset be decoded, before the block ends.

    Raises: PodiumError if the study store or MLflow cannot be asked what is still needed.
    """
    studies = {study.name for study in list_studies(stores.study_url)}
    names = {path.name for root in (stores.checkpoints, stores.sweeps) for path in _folders(root)}
    if stores.checkpoint_root is not None:  # shared: what is not ours may be another's
        names &= studies | {path.name for path in _folders(stores.sweeps)}
    found = Found(removable=[], kept=[])
    with ExitStack() as locks:
        for name in sorted(names):
            if _is_ours(stores.sweeps / name, locks):
                _look_at(name, stores, found, known=name in studies)
            else:
                _keep(found, stores.checkpoints / name, "its sweep or training runs now")
        _remove(found, filter(_is_temporary, stores.root.glob(".*")), KILLED)
        built = Cache(cache.expanduser().resolve()).left_over()
        _remove(found, locks.enter_context(built), KILLED)
        yield found


def _is_ours(folder: Path, locks: ExitStack) -> bool:
    """Whether nobody else holds the sweep's lock, which `locks` then does. Without a folder there is none."""
    if folder.is_dir():
        try:
            locks.enter_context(live.locked(folder))
        except InvalidInput:
            return False
    return True


def _look_at(name: str, stores: Stores, found: Found, *, known: bool) -> None:
    """One study, or one single training, which has no study on disk and cannot go on."""
    checkpoints, sweep = stores.checkpoints / name, stores.sweeps / name
    status = _status(stores, name) if known or (sweep / "status.json").is_file() else FINISHED
    trials, planned = _trials(stores, name) if known else ([], 0)
    _remove(found, filter(_is_temporary, sweep.glob(".*")), KILLED)
    running = any(trial.state == "running" for trial in trials)
    if known and (running or status != FINISHED):
        _remove(found, _orphans(checkpoints, trials, planned), "nothing can go on from it")
        _keep(found, checkpoints, "its sweep can be resumed")
        return
    if not known and live.kept_elsewhere(sweep, stores):
        _keep(
            found, checkpoints, "its study and its runs are in other stores: set their addresses to see them"
        )
        return
    if not known and status not in (FINISHED, None):
        _keep(found, checkpoints, "its sweep is not finished, and its study is not in this study store")
        return
    written = {path.parent for name in ENDED for path in checkpoints.glob(f"trial-*/attempt-*/{name}")}
    unpackaged = sorted(folder for folder in written if not is_packaged(folder))
    for folder in unpackaged:
        _keep(found, folder, "its files are not in MLflow")
    _remove(
        found,
        _all_but(checkpoints, unpackaged),
        "its sweep is finished" if known else "of no study on record",
    )
    _look_at_sweep_folder(sweep, found, whole=not known and not checkpoints.exists())


def _look_at_sweep_folder(sweep: Path, found: Found, *, whole: bool) -> None:
    """Logs and spool of what has ended; `whole`: nothing else is known of it."""
    waiting = undelivered(sweep / "spool")
    if waiting:
        _keep(found, sweep / "spool", f"{waiting} records are not in MLflow")
        return
    logs = [path for path in sweep.glob("logs/*") if path.is_file()]
    if not sweep.is_dir() or any(path.stat().st_mtime > time.time() - OLD_SECONDS for path in (sweep, *logs)):
        return
    if whole and not (sweep / "status.json").is_file():
        _remove(found, [sweep], "logs of a training that ended long ago")
        return
    _remove(found, logs, "logs of a sweep that ended long ago")
    _remove(found, [sweep / "spool"], "all of it is in MLflow")


def _status(stores: Stores, name: str) -> str | None:
    if stores.tracking_file is not None and not stores.tracking_file.exists():
        return None
    return query.status_of_study(stores, name)


def _trials(stores: Stores, name: str) -> tuple[list[TrialRecord], int]:
    """A study's trials, and for how many epochs each was meant."""
    engine = ListedEngine([], study_name=name, study_url=stores.study_url, read_only=True)
    try:
        document = json.loads(str(engine.recall("document") or "null")) or {}
        return list(engine.trials()), int(document.get("recipe", {}).get("training", {}).get("epochs", 0))
    finally:
        engine.close()


def _orphans(checkpoints: Path, trials: Iterable[TrialRecord], planned_epochs: int) -> list[Path]:
    """In the folder of a study that can be resumed: what no trial of it needs."""
    known = {trial.number: trial for trial in trials}
    orphans: list[Path] = []
    for folder in _folders(checkpoints):
        match = _TRIAL.fullmatch(folder.name)
        trial = known.get(int(match[1])) if match else None
        if trial is None:
            orphans.append(folder)
            continue
        for number in range(1, attempts(trial) + 1):
            attempt = attempt_folder(checkpoints, trial.number, number)
            orphans += [path for path in attempt.glob(".*") if _is_temporary(path)]
        if trial.state != "running":
            epochs = int(trial.parameters.get("training.epochs") or planned_epochs)
            orphans += left_over(checkpoints, trial, planned_epochs=epochs)
    return orphans


def _all_but(folder: Path, kept: list[Path]) -> list[Path]:
    """The largest parts of a folder that hold nothing of `kept`."""
    if not folder.is_dir() or folder in kept:
        return [folder] if folder.is_file() else []
    if not any(path.is_relative_to(folder) for path in kept):
        return [folder]
    return [part for inner in sorted(folder.iterdir()) for part in _all_but(inner, kept)]


def _is_temporary(path: Path) -> bool:
    match = _TEMPORARY.fullmatch(path.name)
    return match is not None and not (match["process"] and _lives(int(match["process"])))


def _lives(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def _remove(found: Found, paths: Iterable[Path], why: str) -> None:
    found.removable.extend(
        Item(path=path, size_bytes=_size(path), why=why) for path in paths if path.exists()
    )


def _keep(found: Found, path: Path, why: str) -> None:
    if path.exists():
        going = sum(item.size_bytes for item in found.removable if item.path.is_relative_to(path))
        found.kept.append(Item(path=path, size_bytes=_size(path) - going, why=why))


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links are not followed."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size
    inside = (Path(here) / name for here, _, names in os.walk(path) for name in names)
    return sum(file.lstat().st_size for file in inside)
