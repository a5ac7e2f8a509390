"""Datasets that come as arrays: digits and .npz files."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from podium.datasets import array_sources
from podium.datasets.cache import load_part
from podium.datasets.prepare import Dataset
from podium.errors import DatasetError

Prepared = Callable[..., Dataset]
Saved = Callable[..., str]


def test_digits_are_32_by_32_rgb_with_a_stratified_fifth_as_test(prepared: Prepared) -> None:
    dataset = prepared("digits")
    assert dataset.image_shape == (32, 32, 3)
    assert (dataset.train_count, dataset.test_count) == (1437, 360)
    assert dataset.class_names == tuple("0123456789")
    assert not dataset.sorted_by_class
    assert dataset.test_images is not None
    assert dataset.test_labels is not None
    images, labels = load_part(dataset.test_images, dataset.test_labels)
    assert np.bincount(labels).min() >= 34
    assert images.max() == 255
    assert (images[..., 0] == images[..., 2]).all()


def test_digits_can_be_resized(prepared: Prepared) -> None:
    small, usual = prepared("digits", image_size=16), prepared("digits")
    assert small.image_shape == (16, 16, 3)
    assert small.train_digest != usual.train_digest


def test_npz_gives_its_arrays_unchanged(arrays_file: Saved, prepared: Prepared) -> None:
    x_train = np.random.default_rng(1).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    dataset = prepared(arrays_file(x_train=x_train))
    images, _ = load_part(dataset.train_images, dataset.train_labels)
    np.testing.assert_array_equal(images, x_train)
    assert (dataset.name, dataset.class_names, dataset.test_count) == ("arrays", ("0", "1", "2"), 10)
    assert not dataset.sorted_by_class


@pytest.mark.parametrize("shape", [(40, 8, 8), (40, 8, 8, 1)])
def test_grey_npz_becomes_rgb(shape: tuple[int, ...], arrays_file: Saved, prepared: Prepared) -> None:
    grey = np.random.default_rng(1).integers(0, 256, shape)
    dataset = prepared(arrays_file(x_train=grey, x_test=None, y_test=None))
    images, _ = load_part(dataset.train_images, dataset.train_labels)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[..., 1], grey.reshape(40, 8, 8))


def test_npz_is_resized(arrays_file: Saved, prepared: Prepared) -> None:
    assert prepared(arrays_file(), image_size=16).image_shape == (16, 16, 3)


def test_labels_are_flattened_and_mapped_to_the_first_integers(
    arrays_file: Saved, prepared: Prepared
) -> None:
    given = np.array([[7], [3], [-2], [3]] * 10)
    dataset = prepared(arrays_file(y_train=given, y_test=np.array([[3]] * 9 + [[7]])))
    assert dataset.class_names == ("-2", "3", "7")
    assert load_part(dataset.train_images, dataset.train_labels)[1][:4].tolist() == [2, 1, 0, 1]
    assert dataset.test_images is not None
    assert dataset.test_labels is not None
    assert load_part(dataset.test_images, dataset.test_labels)[1].tolist() == [1] * 9 + [2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((40, 8, 8, 3), np.float32)}, "astype('uint8')"),
        ({"x_train": np.full((40, 8, 8, 3), 256)}, "values from 256 to 256"),
        ({"x_train": np.zeros((40, 3, 8, 8), np.uint8)}, "shape (40, 3, 8, 8)"),
        ({"x_train": np.zeros((40, 8, 8, 4), np.uint8)}, "shape (40, 8, 8, 4)"),
        ({"x_train": np.zeros((39, 8, 8, 3), np.uint8)}, "39 images but 40 labels"),
        ({"x_train": np.zeros((0, 8, 8, 3), np.uint8)}, "shape (0, 8, 8, 3)"),
        ({"x_test": np.zeros((10, 9, 8, 3), np.uint8)}, "x_test has images of (9, 8, 3)"),
        ({"y_train": np.zeros((40, 3), np.int64)}, "argmax"),
        ({"y_train": np.arange(40) % 3 + 0.5}, "y_train holds float64"),
        ({"y_train": np.array(["cat", "dog"] * 20)}, "y_train holds <U3"),
        ({"y_train": np.zeros(40, np.int64), "y_test": np.zeros(10, np.int64)}, "one class only: 0"),
        ({"y_test": np.arange(10)}, "y_train does not have: 3, 4"),
        ({"y_train": None}, "y_train is missing"),
        ({"y_test": None}, "come together"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(
    changes: dict[str, np.ndarray], message: str, arrays_file: Saved, prepared: Prepared
) -> None:
    with pytest.raises(DatasetError) as caught:
        prepared(arrays_file(**changes))
    assert message in str(caught.value)


def test_all_faults_of_arrays_are_told_at_once(arrays_file: Saved, prepared: Prepared) -> None:
    changes = {"x_train": np.zeros((40, 8, 8, 3)), "y_train": np.zeros((40, 3), np.int64), "y_test": None}
    with pytest.raises(DatasetError) as caught:
        prepared(arrays_file(**changes))
    assert len(caught.value.faults) >= 3


class Explosive:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_npz_with_objects_is_refused_and_never_unpickled(
    tmp_path: Path, arrays_file: Saved, prepared: Prepared
) -> None:
    mark = tmp_path / "unpickled"
    objects = np.array([Explosive(mark)] * 40, dtype=object)
    with pytest.raises(DatasetError, match="never unpickled"):
        prepared(arrays_file(y_train=objects))
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Explosive(mark)))
    with pytest.raises(DatasetError, match="not a zip"):
        prepared(f"npz:{tmp_path / 'plain.npz'}")
    assert not mark.exists()


def test_npz_whose_header_promises_more_than_it_holds_is_refused(
    tmp_path: Path, arrays_file: Saved, prepared: Prepared
) -> None:
    header = io.BytesIO()
    shape = (10**12, 32, 32, 3)
    npy.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("x_train.npy", header.getvalue() + b"\0" * 100)
    with pytest.raises(DatasetError, match="holds 100 bytes"):
        prepared(f"npz:{tmp_path / 'huge.npz'}")


def test_truncated_npz_is_refused(tmp_path: Path, arrays_file: Saved, prepared: Prepared) -> None:
    path = Path(arrays_file().removeprefix("npz:"))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DatasetError, match="not a zip"):
        prepared(f"npz:{path}")


def test_npz_with_damaged_content_is_refused(arrays_file: Saved, prepared: Prepared) -> None:
    path = Path(arrays_file().removeprefix("npz:"))
    content = bytearray(path.read_bytes())
    content[1000] ^= 255
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="CRC"):
        prepared(f"npz:{path}")


def test_npz_that_expands_beyond_the_memory_is_refused_before_it_does(
    arrays_file: Saved, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_sources, "memory_bytes", lambda: 1000)
    with pytest.raises(DatasetError, match="cannot be used") as caught:
        prepared(arrays_file())
    assert any("memory" in str(fault.allowed) for fault in caught.value.faults)
