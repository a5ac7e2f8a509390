"""Files of an attempt travel whole: to the coordinator, to the node that goes on, and into a node's dataset cache."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podium.digests import arrays_digest, split_digest
from podium.errors import DatasetError
from podium.executors.ray_files import Scratch, newest_checkpoint, pack, unpack
from podium.recipe import Recipe
from podium.result import TrainingArrays, TrainingJob

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture
def node_data() -> Any:
    """What a worker looks data up with. Loaded as the coordinator loads Ray: after its settings."""
    from podium.executors.ray_cluster import prepare

    prepare(None)
    from podium.executors.ray_data import NodeData

    return NodeData


def checkpoint(folder: Path, epoch: int) -> Path:
    path = folder / f"checkpoint-{epoch:04d}"
    path.mkdir(parents=True)
    (path / "state.json").write_text(f"epoch {epoch}")
    (path / "weights.npz").write_bytes(bytes([epoch]) * 100)
    return path


def arrays_in(cache: Path, *, seed: int = 0) -> TrainingArrays:
    """Six images with a split, laid out as the dataset cache does."""
    chance = np.random.default_rng(seed)
    images = chance.integers(0, 255, (6, 4, 4, 3)).astype(np.uint8)
    labels = np.arange(6, dtype=np.int64) % 2
    parts = np.arange(4), np.arange(4, 6)
    train, split = arrays_digest(images, labels), split_digest(*parts)
    folder = cache / "train" / train
    folder.mkdir(parents=True)
    (cache / "splits").mkdir(exist_ok=True)
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    np.savez(cache / "splits" / f"{split}.npz", train=parts[0], validation=parts[1])
    return TrainingArrays(
        images=folder / "images.npy",
        labels=folder / "labels.npy",
        split=cache / "splits" / f"{split}.npz",
        train_digest=train,
        split_digest=split,
        class_names=("a", "b"),
    )


def test_an_ended_attempt_leaves_its_files_and_its_newest_checkpoint(tmp_path: Path) -> None:
    node, home = tmp_path / "node", tmp_path / "home"
    checkpoint(node, 3)
    newest = checkpoint(node, 4)
    (node / "best.keras").write_bytes(b"model")
    (node / ".writing-history.json").write_text("half")
    unpack(pack(node), home)
    assert sorted(path.name for path in home.iterdir()) == ["best.keras", "checkpoint-0004"]
    assert (home / "checkpoint-0004" / "weights.npz").read_bytes() == (newest / "weights.npz").read_bytes()


def test_only_what_is_newer_travels_and_two_checkpoints_stay(tmp_path: Path) -> None:
    node, home = tmp_path / "node", tmp_path / "home"
    for epoch in (1, 2, 3):
        checkpoint(node, epoch)
        found = newest_checkpoint(node, after=epoch - 1)
        assert found is not None
        unpack(found.files, home)
    assert newest_checkpoint(node, after=3) is None
    assert sorted(path.name for path in home.iterdir()) == ["checkpoint-0002", "checkpoint-0003"]


def test_a_checkpoint_that_cannot_be_written_leaves_nothing_of_its_name(tmp_path: Path) -> None:
    files = {"checkpoint-0001/state.json": b"whole", "checkpoint-0001/no/such/folder": b""}
    with pytest.raises(OSError, match="No such file"):
        unpack(files, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_attempt_goes_on_in_the_nodes_own_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    checkpoint(home / "trial-0003" / "attempt-1", 2)
    job = TrainingJob(
        recipe=Recipe(),
        arrays=arrays_in(tmp_path / "cache"),
        folder=home / "trial-0003" / "attempt-2",
        epochs=3,
        resume_from=home / "trial-0003" / "attempt-1",
    )
    scratch = Scratch(tmp_path)
    moved = scratch.at_home(job, pack(home / "trial-0003" / "attempt-1"))
    assert moved.folder.relative_to(scratch.folder).parts[-2:] == ("trial-0003", "attempt-2")
    assert moved.resume_from is not None
    assert (moved.resume_from / "checkpoint-0002" / "state.json").read_text() == "epoch 2"
    again = scratch.at_home(replace(job, resume_from=None), None)
    assert not moved.resume_from.exists()
    assert again.resume_from is None
    scratch.close()
    assert not scratch.folder.exists()


def test_a_killed_workers_folder_goes_and_a_living_ones_stays(tmp_path: Path) -> None:
    living = Scratch(tmp_path)
    pid = os.fork()
    if pid == 0:
        killed = Scratch(tmp_path)
        (tmp_path / "killed").write_text(str(killed.folder))
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    left = Path((tmp_path / "killed").read_text())
    assert left.is_dir()
    Scratch(tmp_path).close()
    assert not left.exists()
    assert living.folder.is_dir()
    living.close()


@needs_ray
def test_data_are_found_by_digest_in_the_nodes_own_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node_data: Any
) -> None:
    monkeypatch.setenv("PODIUM_CACHE", str(tmp_path / "node"))
    job = arrays_in(tmp_path / "driver")
    assert node_data().find(job, None) == job  # the same machine, or a folder that both reach
    shutil.copytree(tmp_path / "driver", tmp_path / "node")
    shutil.rmtree(tmp_path / "driver")
    found = node_data().find(job, None)
    assert found is not None
    assert found.images == tmp_path / "node" / "train" / job.train_digest / "images.npy"
    shutil.rmtree(tmp_path / "node")
    assert node_data().find(job, None) is None


@needs_ray
@pytest.mark.parametrize("part", ["images", "split"])
def test_other_data_in_their_place_are_refused_with_both_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node_data: Any, part: str
) -> None:
    monkeypatch.setenv("PODIUM_CACHE", str(tmp_path / "node"))
    job = arrays_in(tmp_path / "driver")
    shutil.copytree(tmp_path / "driver", tmp_path / "node")
    shutil.rmtree(tmp_path / "driver")
    if part == "images":
        other = np.zeros((6, 4, 4, 3), dtype=np.uint8)
        np.save(tmp_path / "node" / "train" / job.train_digest / "images.npy", other)
        digests = (job.train_digest, arrays_digest(other, np.arange(6, dtype=np.int64) % 2))
    else:
        parts = np.arange(3), np.arange(3, 6)
        np.savez(tmp_path / "node" / "splits" / job.split.name, train=parts[0], validation=parts[1])
        digests = (job.split_digest, split_digest(*parts))
    with pytest.raises(DatasetError) as caught:
        node_data().find(job, None)
    assert all(digest in str(caught.value) for digest in digests)
