"""The cache: what is kept, checked, rebuilt, and what a worker cannot reach."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dataset_files import picture, tree, write_folder, write_zip

from podium.datasets.cache import Cache, load_part
from podium.datasets.prepare import Dataset, prepare
from podium.digests import arrays_digest
from podium.errors import DatasetError
from podium.recipe_sections import DataSettings

Prepared = Callable[..., Dataset]


def test_second_preparation_decodes_nothing(tmp_path: Path, cache: Path) -> None:
    settings = DataSettings(reference=str(write_zip(tmp_path / "pets.zip", tree())))
    calls: list[tuple[int, int]] = []
    first = prepare(settings, cache=cache, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (16, 16)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    again = prepare(settings, cache=cache, progress=lambda done, total: pytest.fail("decoded again"))
    assert again == first


def test_digests_are_of_pixels_and_labels_and_stay_the_same(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets", tree())
    settings = DataSettings(reference=f"folder:{folder}")
    here, there = (prepare(settings, cache=tmp_path / name) for name in ("one", "two"))
    assert (here.train_digest, here.test_digest) == (there.train_digest, there.test_digest)
    assert here.train_digest == arrays_digest(*load_part(here.train_images, here.train_labels))
    # Written down once: a change of decoder, resizing or digest must not pass unseen.
    digits = prepare(DataSettings(reference="digits"), cache=tmp_path / "one")
    images, labels = load_part(digits.train_images, digits.train_labels)
    assert (int(images.sum()), labels[:5].tolist()) == (344_077_392, [3, 9, 1, 3, 1])


def test_changed_image_changes_digests(tmp_path: Path, prepared: Prepared) -> None:
    folder = write_folder(tmp_path / "pets", tree())
    before = prepared(f"folder:{folder}")
    (folder / "train/cat/000.png").write_bytes(picture(seed=77))
    after = prepared(f"folder:{folder}")
    assert after.train_digest != before.train_digest
    assert after.source_digest != before.source_digest
    assert after.test_digest == before.test_digest


def test_digest_of_a_file_that_changed_just_now_is_not_remembered(
    tmp_path: Path, cache: Path, prepared: Prepared
) -> None:
    prepared(str(write_zip(tmp_path / "pets.zip", tree())))
    assert not (cache / "sources").exists()


def test_file_changed_within_its_size_and_time_is_seen(
    tmp_path: Path, cache: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podium.datasets.prepare.SETTLED_NS", -(10**18))
    path = write_zip(tmp_path / "pets.zip", tree())
    size, times = path.stat().st_size, path.stat().st_mtime_ns
    before = prepared(str(path))
    assert len(list((cache / "sources").iterdir())) == 1
    files = tree()
    changed = dict(zip(files, reversed(files.values()), strict=True))
    write_zip(path, changed)
    os.utime(path, ns=(times, times))
    assert path.stat().st_size == size
    after = prepared(str(path))
    assert after.train_digest != before.train_digest


def test_training_folder_does_not_lead_to_test_data(tmp_path: Path, cache: Path, prepared: Prepared) -> None:
    dataset = prepared(f"folder:{write_folder(tmp_path / 'pets', tree())}")
    assert dataset.test_images is not None
    assert dataset.test_digest is not None
    assert dataset.test_images.is_relative_to(cache / "test")
    below = sorted(path.name for path in dataset.train_images.parent.rglob("*"))
    assert below == ["images.npy", "labels.npy", "meta.json"]
    reachable = b"".join(path.read_bytes() for path in (cache / "train").rglob("*") if path.is_file())
    assert dataset.test_digest.encode() not in reachable
    assert dataset.test_digest != dataset.train_digest


@pytest.mark.parametrize("damage", ["pixel", "truncated", "labels", "meta", "missing", "index"])
def test_damaged_cache_is_rebuilt(damage: str, tmp_path: Path, cache: Path, prepared: Prepared) -> None:
    reference = f"folder:{write_folder(tmp_path / 'pets', tree())}"
    dataset = prepared(reference)
    images, labels = dataset.train_images, dataset.train_labels
    original = np.load(images)
    if damage == "pixel":
        np.lib.format.open_memmap(images, mode="r+")[3, 2, 1, 0] ^= 1
    elif damage == "truncated":
        images.write_bytes(images.read_bytes()[:-10])
    elif damage == "labels":
        np.save(labels, np.load(labels)[::-1])
    elif damage == "meta":
        (images.parent / "meta.json").write_text("{")
    elif damage == "missing":
        images.unlink()
    else:
        next((cache / "index").iterdir()).write_text("[]")
    assert prepared(reference) == dataset
    np.testing.assert_array_equal(np.load(images), original)
    assert not list(cache.glob(".building-*"))


def test_what_a_killed_process_left_is_cleared_away(cache: Path, prepared: Prepared) -> None:
    left = cache / ".building-left"
    left.mkdir(parents=True)
    (left / "images.npy").write_bytes(b"half")
    prepared("digits")
    assert not left.exists()


def test_what_is_left_over_is_told_while_nobody_can_build(cache: Path) -> None:
    half_built = cache / ".building-x"
    half_built.mkdir(parents=True)
    lock = (cache / ".lock").open("a")
    with Cache(cache).left_over() as found:
        assert found == [half_built]
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with Cache(cache).left_over() as found:
        assert found == [], "another process builds there"
    lock.close()


@pytest.mark.slow
def test_several_processes_may_prepare_the_same_dataset_at_once(tmp_path: Path, cache: Path) -> None:
    path = write_zip(tmp_path / "pets.zip", tree(train=300, test=100))
    program = (
        "import sys; from pathlib import Path; from podium.recipe import DataSettings\n"
        "from podium.datasets.prepare import prepare\n"
        "print(prepare(DataSettings(reference=sys.argv[1]), cache=Path(sys.argv[2])).train_digest)"
    )
    command = [sys.executable, "-c", program, str(path), str(cache)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    digests = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert digests[0] == digests[1] == digests[2] != ""
    assert [entry.name for entry in (cache / "train").iterdir()] == [digests[0]]


def test_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="cannot write to the dataset cache") as caught:
        prepare(DataSettings(reference="digits"), cache=tmp_path / "file" / "cache")
    assert "PODIUM_CACHE" in (caught.value.remedy or "")


def test_load_part_refuses_what_is_not_images_with_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((3, 4, 4, 3), np.uint8))
    np.save(tmp_path / "labels.npy", np.zeros(2, np.int64))
    with pytest.raises(DatasetError, match="not images with their labels"):
        load_part(tmp_path / "images.npy", tmp_path / "labels.npy")
    with pytest.raises(DatasetError, match="cannot read"):
        load_part(tmp_path / "images.npy", tmp_path / "missing.npy")
