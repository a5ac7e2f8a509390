"""A damaged checkpoint is found out, whatever was done to it, and the one before it is used."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import damaged_bytes, damaged_npz, damaged_tree, fuzzed

from podium.training.checkpoint import BestWeights, Damaged, EpochRecord, TrainingState, load, newest, save


def state(epoch: int) -> TrainingState:
    weights = [np.full((3, 2), float(epoch), np.float32), np.arange(4, dtype=np.float32)]
    best = BestWeights(epoch=1, weights=[weight + 1 for weight in weights])
    return TrainingState(
        epoch=epoch,
        weights=weights,
        optimizer=[np.zeros(3, np.float32), np.array(epoch)],
        seeds=[np.array([1, 2], np.uint32)],
        best=best,
        stopping=BestWeights(epoch=epoch, weights=weights),
        counters={"early_stopping": {"wait": 0, "best": 0.5}},
        stopped=False,
        history=[
            EpochRecord(epoch=n, metrics={"loss": 1.0}, seconds=1.0, training_seconds=0.5, images=8)
            for n in range(1, epoch + 1)
        ],
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints 1 and 2."""
    folder = tmp_path_factory.mktemp("whole")
    for epoch in (1, 2):
        save(state(epoch), folder)
    return folder


@pytest.fixture(scope="module")
def attempt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attempts") / "attempt-1"


def fresh(whole: Path, attempt: Path) -> Path:
    """A copy of both checkpoints; answers the folder of the newer one."""
    shutil.rmtree(attempt, ignore_errors=True)
    shutil.copytree(whole, attempt)
    return attempt / "checkpoint-0002"


def sealed(folder: Path) -> None:
    """Have the manifest say that all files are as they were written."""
    names = [path for path in folder.iterdir() if path.is_file() and path.name != "manifest.json"]
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in names}
    (folder / "manifest.json").write_text(json.dumps(digests))


def same(found: TrainingState | None, expected: TrainingState) -> bool:
    return found is not None and found.epoch == expected.epoch and _equal(found.weights, expected.weights)


def _equal(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(map(np.array_equal, left, right))


@fuzzed
@given(random=st.randoms(use_true_random=False))
def test_any_change_is_found_out_and_the_checkpoint_before_is_used(
    whole: Path, attempt: Path, random: Random
) -> None:
    checkpoint = fresh(whole, attempt)
    file = random.choice(sorted(checkpoint.iterdir()))
    before, kind = file.read_bytes(), random.randint(0, 5)
    if kind <= 2:
        file.write_bytes(damaged_bytes(before, random))
    elif kind == 3:
        file.unlink()
    elif kind == 4:
        file.write_bytes(random.choice(sorted(checkpoint.iterdir())).read_bytes())
    else:
        file.unlink()
        file.mkdir()
    if file.is_file() and file.read_bytes() == before:
        assert same(newest(attempt, last_epoch=9).state, state(2))
        return
    found = newest(attempt, last_epoch=9)
    if file.name != "manifest.json" or found.damaged:
        assert same(found.state, state(1)), "the damaged one was taken"
        assert len(found.damaged) == 1
    else:
        # A manifest may be written otherwise and say the same, with a space more.
        assert same(found.state, state(2))


@fuzzed
@given(random=st.randoms(use_true_random=False))
def test_what_is_sealed_but_means_nothing_is_read_or_found_out(
    whole: Path, attempt: Path, random: Random
) -> None:
    checkpoint = fresh(whole, attempt)
    if random.random() < 0.6:
        content = json.loads((checkpoint / "state.json").read_text())
        text = json.dumps(damaged_tree(content, random), default=str, skipkeys=True)
        (checkpoint / "state.json").write_text(text)
    else:
        file = random.choice(sorted(checkpoint.glob("*.npz")))
        arrays = {f"arr_{number}": array for number, array in enumerate(state(2).weights)}
        file.write_bytes(damaged_npz(arrays, random))
    if random.random() < 0.2:
        (checkpoint / "more.npz").write_bytes(b"")
    sealed(checkpoint)
    try:
        found = load(checkpoint)
    except Damaged:
        assert same(newest(attempt, last_epoch=9).state, state(1))
    else:
        assert isinstance(found.epoch, int)
        assert all(isinstance(array, np.ndarray) and not array.dtype.hasobject for array in found.weights)
        assert all(isinstance(record, EpochRecord) for record in found.history)
