"""Datasets that Keras downloads: without a network a clear answer, with Keras's files the arrays."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from podium.datasets.cache import load_part
from podium.datasets.keras_source import CLASS_NAMES, keras_arrays
from podium.datasets.prepare import Dataset
from podium.errors import DatasetError


@pytest.fixture
def keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for Keras, and a proxy that no one listens at: no network, wherever this runs."""
    home = tmp_path / "keras-home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KERAS_HOME", str(home))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    return home


@pytest.mark.slow
def test_no_network_tells_what_works_without_one(
    keras_home: Path, cache: Path, prepared: Callable[..., Dataset]
) -> None:
    with pytest.raises(DatasetError, match="could not be downloaded") as caught:
        prepared("cifar10")
    assert caught.value.exit_code == 2
    for reference in ("digits", "folder:DIR", ".zip", "npz:FILE"):
        assert reference in (caught.value.remedy or "")
    assert "URL fetch failure" in caught.value.faults[0].message
    assert [path.name for path in cache.iterdir()] == [".lock"]


@pytest.mark.slow
def test_files_that_keras_has_are_used_without_a_network(
    keras_home: Path, prepared: Callable[..., Dataset]
) -> None:
    folder = keras_home / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    for prefix, count in (("train", 60_000), ("t10k", 10_000)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 0, 0] = labels
        for name, header, array in (
            (f"{prefix}-labels-idx1-ubyte.gz", struct.pack(">II", 2049, count), labels),
            (f"{prefix}-images-idx3-ubyte.gz", struct.pack(">IIII", 2051, count, 28, 28), images),
        ):
            (folder / name).write_bytes(gzip.compress(header + array.tobytes(), 1))
    dataset = prepared("fashion_mnist")
    assert (dataset.train_count, dataset.test_count, dataset.image_shape) == (60_000, 10_000, (28, 28, 3))
    assert dataset.class_names[1] == "trouser"
    loaded, classes = load_part(dataset.train_images, dataset.train_labels)
    np.testing.assert_array_equal(loaded[:20, 0, 0], np.repeat(classes[:20, np.newaxis], 3, axis=1))


@pytest.mark.slow
def test_download_that_never_ends_is_given_up(keras_home: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no answer within 0\.2 seconds"):
        keras_arrays("cifar10", tmp_path, timeout_seconds=0.2)


def test_class_names_are_as_many_as_the_classes() -> None:
    assert {name: len(names) for name, names in CLASS_NAMES.items()} == {
        "cifar10": 10,
        "cifar100": 100,
        "fashion_mnist": 10,
    }


@pytest.mark.slow
def test_preparing_loads_neither_keras_nor_tensorflow() -> None:
    program = (
        "import sys; import podium.datasets.prepare, podium.datasets.splits\n"
        "print([name for name in ('keras', 'tensorflow', 'mlflow', 'optuna') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
