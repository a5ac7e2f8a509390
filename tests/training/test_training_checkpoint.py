"""The state on disk: whole, or known to be damaged."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from podium.training import checkpoint
from podium.training.checkpoint import BestWeights, EpochRecord, TrainingState


def state(epoch: int = 3, best: int = 2, stopping: int | None = 3, seed: int = 0) -> TrainingState:
    generator = np.random.default_rng(seed)

    def arrays() -> list[np.ndarray]:
        return [
            generator.normal(size=(4, 3)).astype("float32"),
            generator.normal(size=2).astype(ml_dtypes.bfloat16),
        ]

    weights, best_weights = arrays(), arrays()
    history = [
        EpochRecord(
            epoch=number, metrics={"loss": 0.1 / number}, seconds=1 / 3, training_seconds=0.2, images=5
        )
        for number in range(1, epoch + 1)
    ]
    return TrainingState(
        epoch=epoch,
        weights=weights,
        optimizer=[np.int64(17).reshape(()), *arrays()],
        seeds=[np.array([1, 2**32 - 1], dtype=np.uint32)],
        best=BestWeights(epoch=best, weights=weights if best == epoch else best_weights),
        stopping=BestWeights(
            epoch=stopping, weights={best: best_weights, epoch: weights}.get(stopping) or arrays()
        )
        if stopping
        else None,
        counters={"plateau": {"best": 0.1 + 0.2, "wait": 2}, "checkpoint": {"best": None}},
        stopped=False,
        history=history,
    )


def assert_same(one: TrainingState, other: TrainingState) -> None:
    for name in ("weights", "optimizer", "seeds"):
        for first, second in zip(getattr(one, name), getattr(other, name), strict=True):
            assert first.dtype == second.dtype
            assert first.shape == second.shape
            assert first.tobytes() == second.tobytes()
    for first, second in ((one.best, other.best), (one.stopping, other.stopping)):
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            assert first.epoch == second.epoch
            assert [a.tobytes() for a in first.weights] == [a.tobytes() for a in second.weights]
    assert (one.counters, one.history, one.stopped) == (other.counters, other.history, other.stopped)


@pytest.mark.parametrize(("best", "stopping"), [(3, 3), (2, 3), (2, 2), (2, 1), (1, None)])
def test_state_comes_back_as_it_was(tmp_path: Path, best: int, stopping: int | None) -> None:
    written = state(best=best, stopping=stopping)
    assert_same(checkpoint.load(checkpoint.save(written, tmp_path)), written)


def test_weights_that_are_the_same_are_stored_once(tmp_path: Path) -> None:
    names = {path.name for path in checkpoint.save(state(best=3, stopping=3), tmp_path).iterdir()}
    assert names == {"weights.npz", "optimizer.npz", "seeds.npz", "state.json", "manifest.json"}


@pytest.mark.parametrize(
    "name", ["weights.npz", "optimizer.npz", "seeds.npz", "best.npz", "state.json", "manifest.json"]
)
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "flipped"])
def test_any_damage_is_found_and_the_checkpoint_before_is_used(
    tmp_path: Path, name: str, damage: str
) -> None:
    earlier = state(epoch=2, best=2, stopping=None, seed=1)
    checkpoint.save(earlier, tmp_path)
    path = checkpoint.save(state(), tmp_path) / name
    content = path.read_bytes()
    middle = len(content) // 2
    match damage:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(content[:middle])
        case "flipped":
            path.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
    found = checkpoint.newest(tmp_path, last_epoch=9)
    assert found.state is not None
    assert len(found.damaged) == 1
    assert_same(found.state, earlier)


def test_a_manifest_cannot_point_outside(tmp_path: Path) -> None:
    path = checkpoint.save(state(), tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "../../secret": "0"}))
    with pytest.raises(checkpoint.Damaged, match="other files"):
        checkpoint.load(path)


def test_the_two_newest_are_kept_and_leftovers_go(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-0001-99").mkdir()
    for epoch in (1, 2, 3):
        checkpoint.save(state(epoch=epoch, best=epoch, stopping=None), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-0002", "checkpoint-0003"]
    # An attempt that went back to epoch 1 trains 2 again: 3 is of the past.
    checkpoint.save(state(epoch=2, best=2, stopping=None, seed=5), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-0002"]


def test_checkpoints_past_the_last_epoch_are_not_used(tmp_path: Path) -> None:
    for epoch in (2, 3):
        checkpoint.save(state(epoch=epoch, best=epoch, stopping=None), tmp_path)
    found = checkpoint.newest(tmp_path, last_epoch=2).state
    assert found is not None
    assert found.epoch == 2
    assert checkpoint.newest(tmp_path, last_epoch=1).state is None
    assert checkpoint.newest(tmp_path / "nowhere", last_epoch=1).state is None


def test_a_disk_that_takes_no_more_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    earlier = state(epoch=2, best=2, stopping=None)
    checkpoint.save(earlier, tmp_path)
    large = replace(state(), weights=[np.zeros(100_000, dtype="float32")])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(large, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-0002"]
    found = checkpoint.newest(tmp_path, last_epoch=9).state
    assert found is not None
    assert_same(found, earlier)
