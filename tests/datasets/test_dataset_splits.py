"""Training and validation images: stratified, seeded, saved, refused where a class would go missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import tree, write_folder

from podium.datasets.cache import load_part
from podium.datasets.prepare import Dataset
from podium.datasets.splits import check_batch_size, load_split, split
from podium.digests import split_digest
from podium.errors import DatasetError
from podium.recipe_sections import DataSettings, ValidationSettings
from podium.result import TrainingArrays

Prepared = Callable[..., Dataset]
Splitter = Callable[..., TrainingArrays]


@pytest.fixture
def divide(cache: Path) -> Splitter:
    def run(dataset: Dataset, *, train_limit: int | None = None, **validation: Any) -> TrainingArrays:
        settings = DataSettings(train_limit=train_limit, validation=ValidationSettings(**validation))
        return split(dataset, settings, cache=cache)

    return run


def counts(arrays: TrainingArrays, indices: np.ndarray) -> list[int]:
    return np.bincount(load_part(arrays.images, arrays.labels)[1][indices]).tolist()


def test_stratified_split_keeps_the_share_of_each_class(prepared: Prepared, divide: Splitter) -> None:
    dataset = prepared("digits")
    arrays = divide(dataset, fraction=0.1)
    train, validation = load_split(arrays.split)
    assert train.dtype == validation.dtype == np.int64
    assert len(validation) == 144
    assert sorted([*train, *validation]) == list(range(dataset.train_count))
    assert max(counts(arrays, validation)) - min(counts(arrays, validation)) <= 1
    assert arrays.split_digest == split_digest(train, validation)
    assert arrays.train_digest == dataset.train_digest


def test_split_depends_on_its_seed_alone(prepared: Prepared, divide: Splitter) -> None:
    dataset = prepared("digits")
    first, again, other = (divide(dataset, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.split_digest != other.split_digest


def test_first_takes_the_first_images_of_unsorted_data(
    arrays_file: Callable[..., str], prepared: Prepared, divide: Splitter
) -> None:
    arrays = divide(prepared(arrays_file()), method="first", fraction=0.25)
    train, validation = load_split(arrays.split)
    assert validation.tolist() == list(range(10))
    assert train.tolist() == list(range(10, 40))


def test_first_is_refused_where_data_is_sorted_by_class(
    tmp_path: Path, arrays_file: Callable[..., str], prepared: Prepared, divide: Splitter
) -> None:
    falling = np.sort(np.arange(40) % 3)[::-1]
    by_folder = prepared(f"folder:{write_folder(tmp_path / 'pets', tree())}")
    by_file = prepared(arrays_file(y_train=falling))
    for dataset in (by_folder, by_file):
        assert dataset.sorted_by_class
        with pytest.raises(DatasetError, match="sorted by class") as caught:
            divide(dataset, method="first")
        assert caught.value.faults[0].key == "data.validation.method"


def test_train_limit_takes_a_stratified_subset_and_leaves_validation_whole(
    prepared: Prepared, divide: Splitter
) -> None:
    dataset = prepared("digits")
    whole_train, whole_validation = load_split(divide(dataset).split)
    arrays = divide(dataset, train_limit=100)
    train, validation = load_split(arrays.split)
    np.testing.assert_array_equal(validation, whole_validation)
    assert len(train) == 100
    assert set(train) < set(whole_train)
    assert max(counts(arrays, train)) - min(counts(arrays, train)) <= 1
    for limit in (len(whole_train), len(whole_train) - 1):
        assert len(load_split(divide(dataset, train_limit=limit).split)[0]) == limit


def test_train_limit_above_the_training_part_is_refused(prepared: Prepared, divide: Splitter) -> None:
    with pytest.raises(DatasetError) as caught:
        divide(prepared("digits"), train_limit=1294)
    (fault,) = caught.value.faults
    assert (fault.key, fault.got, fault.allowed) == ("data.train_limit", 1294, "1 to 1293")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"fraction": 0.001}, "data.validation.fraction"),
        ({"fraction": 0.999}, "data.validation.fraction"),
        ({"train_limit": 5}, "data.train_limit"),
    ],
)
def test_split_that_leaves_a_class_without_images_is_refused(
    settings: dict[str, Any], key: str, prepared: Prepared, divide: Splitter
) -> None:
    with pytest.raises(DatasetError, match="classes would have no") as caught:
        divide(prepared("digits"), **settings)
    assert caught.value.faults[0].key == key


def test_class_with_one_image_is_refused(
    arrays_file: Callable[..., str], prepared: Prepared, divide: Splitter
) -> None:
    lonely = np.array([0, 1] * 19 + [1, 2])
    with pytest.raises(DatasetError, match="1 of 3 classes") as caught:
        divide(prepared(arrays_file(y_train=lonely)))
    assert "image of: 2" in caught.value.faults[0].message


def test_damaged_split_file_is_written_anew(prepared: Prepared, divide: Splitter) -> None:
    dataset = prepared("digits")
    arrays = divide(dataset)
    good = arrays.split.read_bytes()
    for content in (b"", b"broken", good[:-100]):
        arrays.split.write_bytes(content)
        divide(dataset)
        assert arrays.split.read_bytes() == good
    np.savez(arrays.split, train=np.arange(3), validation=np.arange(3))
    divide(dataset)
    assert arrays.split.read_bytes() == good


def test_batch_above_the_training_set_is_refused(prepared: Prepared, divide: Splitter) -> None:
    arrays = divide(prepared("digits"), train_limit=100)
    check_batch_size(arrays, 100)
    with pytest.raises(DatasetError) as caught:
        check_batch_size(arrays, 101)
    (fault,) = caught.value.faults
    assert (fault.key, fault.got, fault.allowed) == ("training.batch_size", 101, "1 to 100")
