"""Owns the state of a training on disk: whole or not there, never torn."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import re
import shutil
import tokenize
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Arrays = list[NDArray[Any]]

KEPT = 2  # the newest, and the one before it in case the newest is damaged
_NAME = re.compile(r"checkpoint-(\d+)")
_ARRAYS = ("weights", "optimizer", "seeds", "best", "stopping")
_OF_ARCHIVES = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError),
    *(SyntaxError, tokenize.TokenError, RecursionError, MemoryError),
)
_FILES = {"state.json", *(f"{name}.npz" for name in _ARRAYS)}


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch of the curve. `training_seconds` leaves out validation; `seconds` has it."""

    epoch: int
    metrics: dict[str, float]
    seconds: float
    training_seconds: float
    images: int


@dataclass(frozen=True, kw_only=True)
class BestWeights:
    """A network's weights after `epoch` (counted from 1)."""

    epoch: int
    weights: Arrays


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """All that a training is after an epoch.

    `seeds` are the states of the random generators inside the model; `counters` those of Keras's
    callbacks, by callback; `best` is by the objective's metric, `stopping` by EarlyStopping's. `stopped`
    says that EarlyStopping has ended the training here.
    """

    epoch: int
    weights: Arrays
    optimizer: Arrays
    seeds: Arrays
    best: BestWeights
    stopping: BestWeights | None
    counters: dict[str, dict[str, float | int | None]]
    stopped: bool
    history: list[EpochRecord]


@dataclass(frozen=True, kw_only=True)
class Found:
    """The newest whole checkpoint, and one line for each newer one that was damaged."""

    state: TrainingState | None
    damaged: list[str]


class _Place(BaseModel):
    """Where the weights of an epoch lie: in the arrays of that name."""

    model_config = ConfigDict(extra="forbid", strict=True)

    epoch: int
    file: str


class _Content(BaseModel):
    """What state.json holds."""

    model_config = ConfigDict(extra="forbid", strict=True)

    epoch: int
    counters: dict[str, dict[str, float | int | None]]
    stopped: bool
    history: list[EpochRecord]
    kept: dict[str, _Place | None]
    dtypes: dict[str, list[str]]


class Damaged(ValueError):
    """A checkpoint that is not what was written."""


def save(state: TrainingState, folder: Path) -> Path:
    """Write `checkpoint-NNNN` into `folder`, flushed and whole, and drop all but the newest two.

    Raises: OSError if the disk is full or away; what was there before is then untouched.
    """
    target = folder / f"checkpoint-{state.epoch:04d}"
    temporary = folder / f".{target.name}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        _write(state, temporary)
        if target.exists():
            _remove(target)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _flush(folder)
    _drop_old(folder, newest=state.epoch)
    return target


def newest(folder: Path, *, last_epoch: int) -> Found:
    """The newest whole checkpoint of a folder that is not past `last_epoch`."""
    damaged: list[str] = []
    for epoch in sorted(_epochs(folder), reverse=True):
        if epoch > last_epoch:
            continue
        path = folder / f"checkpoint-{epoch:04d}"
        try:
            return Found(state=load(path), damaged=damaged)
        except Damaged as error:
            damaged.append(str(error))
    return Found(state=None, damaged=damaged)


def load(path: Path) -> TrainingState:
    """Read one checkpoint. Raises: Damaged if any byte of it is not as written."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        if not isinstance(manifest, dict) or not {"state.json", "weights.npz"} <= set(manifest) <= _FILES:
            raise Damaged(f"{path}: its manifest names other files than a checkpoint has.")
        for name, expected in manifest.items():
            if _sha256(path / name) != expected:
                raise Damaged(f"{path}: {name} is not as it was written.")
        return _read(path, _Content.model_validate_json((path / "state.json").read_bytes()))
    except Damaged:
        raise
    # What zipfile, zlib and numpy's parser of headers raise on bytes that are not theirs.
    except (OSError, ValueError, LookupError, TypeError, *_OF_ARCHIVES) as error:
        raise Damaged(f"{path}: {error}") from error


def _write(state: TrainingState, folder: Path) -> None:
    stored = {state.epoch: "weights"}
    arrays = {"weights": state.weights, "optimizer": state.optimizer, "seeds": state.seeds}
    kept: dict[str, dict[str, Any] | None] = {}
    for name, best in (("best", state.best), ("stopping", state.stopping)):
        kept[name] = None
        if best is not None:
            # The best weights are often this epoch's, and both kinds of best often the same.
            if best.epoch not in stored:
                stored[best.epoch] = name
                arrays[name] = best.weights
            kept[name] = {"epoch": best.epoch, "file": stored[best.epoch]}
    content = {
        "epoch": state.epoch,
        "counters": state.counters,
        "stopped": state.stopped,
        "history": [asdict(record) for record in state.history],
        "kept": kept,
        "dtypes": {name: [str(array.dtype) for array in values] for name, values in arrays.items()},
    }
    for name, values in arrays.items():
        with (folder / f"{name}.npz").open("wb") as file:
            np.savez(file, *values)
            _flush_file(file)
    _write_json(folder / "state.json", content)
    _write_json(folder / "manifest.json", {file.name: _sha256(file) for file in sorted(folder.iterdir())})
    _flush(folder)


def _read(path: Path, content: _Content) -> TrainingState:
    arrays = {name: _load_arrays(path / f"{name}.npz", kinds) for name, kinds in content.dtypes.items()}
    kept = {
        name: BestWeights(epoch=place.epoch, weights=arrays[place.file]) if place else None
        for name, place in content.kept.items()
    }
    best = kept["best"]
    if best is None:
        raise Damaged(f"{path}: names no best epoch.")
    return TrainingState(
        epoch=content.epoch,
        weights=arrays["weights"],
        optimizer=arrays["optimizer"],
        seeds=arrays["seeds"],
        best=best,
        stopping=kept["stopping"],
        counters=content.counters,
        stopped=content.stopped,
        history=content.history,
    )


def _load_arrays(path: Path, kinds: list[str]) -> Arrays:
    # numpy closes what it opened itself only where it finds an archive.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        values = [stored[f"arr_{index}"] for index in range(len(kinds))]
    if any(isinstance(value, bytes) for value in values):
        raise Damaged(f"{path}: holds what is no array.")
    # numpy writes bfloat16 as plain bytes; the state names what they were.
    return [
        value.view(kind) if value.dtype.kind == "V" else value
        for value, kind in zip(values, kinds, strict=True)
    ]


def _write_json(path: Path, content: object) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, allow_nan=False)
        _flush_file(file)


def _flush_file(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _epochs(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    matches = (_NAME.fullmatch(entry.name) for entry in folder.iterdir())
    return [int(match[1]) for match in matches if match]


def _drop_old(folder: Path, *, newest: int) -> None:
    # Later epochs are of an attempt that was continued from before them.
    kept = sorted(epoch for epoch in _epochs(folder) if epoch <= newest)[-KEPT:]
    for epoch in _epochs(folder):
        if epoch not in kept:
            _remove(folder / f"checkpoint-{epoch:04d}")
    for leftover in folder.glob(".checkpoint-*"):
        shutil.rmtree(leftover)


def _remove(path: Path) -> None:
    """Out of sight first: one that is removed half-way must not look like a checkpoint."""
    gone = path.with_name(f".{path.name}-gone")
    shutil.rmtree(gone, ignore_errors=True)
    path.rename(gone)
    shutil.rmtree(gone)
