"""What a worker reads: mapped arrays, their digests, and the order of batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from training_jobs import write_arrays

from podium.digests import arrays_digest, weights_digest
from podium.errors import DatasetError
from podium.recipe_sections import CallbackSettings, OptimizerSettings
from podium.result import TrainingArrays, Verdict
from podium.training import data, optimizer
from podium.training.callbacks import EpochLoop, standard_callbacks


def batches(arrays: TrainingArrays, epoch: int, *, seed: int = 3) -> list[np.ndarray]:
    loaded = data.load(arrays)
    made = data.Batches(loaded, loaded.train, 32, seed=seed)
    made.start_epoch(epoch)
    return [made[index][0] for index in range(made.num_batches)]


def test_order_of_an_epoch_depends_on_seed_and_epoch_alone(arrays: TrainingArrays) -> None:
    first, again = batches(arrays, 4), batches(arrays, 4)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert not np.array_equal(first[0], batches(arrays, 5)[0])
    assert not np.array_equal(first[0], batches(arrays, 4, seed=9)[0])


def test_each_epoch_of_a_training_takes_its_own_order(arrays: TrainingArrays, tmp_path: Path) -> None:
    loaded = data.load(arrays)
    made = data.Batches(loaded, loaded.train, 32, seed=3)
    settings = OptimizerSettings()
    adam = optimizer.build(settings, steps_per_epoch=5, epochs=9)
    loop = EpochLoop(
        batches=made,
        images=len(loaded.train),
        rate=optimizer.LearningRate(adam, settings, 5, 9),
        standard=standard_callbacks(CallbackSettings(), tmp_path, "val_accuracy", "maximize", averaged=False),
        folder=tmp_path,
        report=lambda event: Verdict.CONTINUE,
        resumed=None,
    )
    for epoch in (0, 4):
        loop.on_epoch_begin(epoch)
        assert np.array_equal(made[0][0], batches(arrays, epoch)[0])


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="other backends take batches as they are")
def test_tensorflow_is_fed_the_batches_of_the_epoch_and_no_autotuner(arrays: TrainingArrays) -> None:
    loaded = data.load(arrays)
    made = data.Batches(loaded, loaded.train, 32, seed=3, labels_as_inputs=True)
    pipeline = data.fed(made)
    assert pipeline.options().autotune.enabled is False
    assert int(pipeline.cardinality()) == made.num_batches
    for epoch in (0, 1):
        made.start_epoch(epoch)
        for number, (inputs, labels) in enumerate(pipeline):
            expected_inputs, expected_labels = made[number]
            assert np.array_equal(inputs["images"], expected_inputs["images"])
            assert np.array_equal(inputs["labels"], expected_inputs["labels"])
            assert np.array_equal(labels, expected_labels)


def test_an_epoch_holds_each_training_image_once(arrays: TrainingArrays) -> None:
    loaded = data.load(arrays)
    seen = np.concatenate(batches(arrays, 2))
    assert [len(batch) for batch in batches(arrays, 2)] == [32, 32, 32, 32, 22]
    expected = loaded.images[loaded.train]
    assert sorted(image.tobytes() for image in seen) == sorted(image.tobytes() for image in expected)


def test_images_stay_mapped(arrays: TrainingArrays) -> None:
    loaded = data.load(arrays)
    assert isinstance(loaded.images.base, np.memmap)
    assert not loaded.images.flags.writeable


def test_fixed_images_are_spread_over_the_validation_part(arrays: TrainingArrays) -> None:
    loaded = data.load(arrays)
    assert np.array_equal(loaded.predicted, loaded.validation)  # 50 images, fewer than 64
    many = replace(loaded, validation=np.arange(640))
    assert len(set(many.predicted)) == 64
    assert many.predicted[0] == 0
    assert many.predicted[-1] == 639


@pytest.mark.parametrize("part", ["images", "labels", "split"])
def test_other_data_than_the_jobs_are_refused_naming_both_digests(tmp_path: Path, part: str) -> None:
    arrays = write_arrays(tmp_path)
    data.load(arrays)
    path: Path = getattr(arrays, part)
    if part == "split":
        np.savez(path, train=np.arange(150), validation=np.arange(150, 200))
    else:
        content = np.load(path)
        content[3] = content[3] // 2 + 1
        np.save(path, content)
    with pytest.raises(DatasetError, match=r"digest is [0-9a-f]{64}, the job's is [0-9a-f]{64}"):
        data.load(arrays)


def test_missing_arrays_are_named(tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path)
    arrays.labels.unlink()
    with pytest.raises(DatasetError, match=r"labels\.npy"):
        data.load(arrays)


def test_digests_tell_dtype_shape_and_order_but_not_byte_order_or_layout() -> None:
    images = np.arange(48, dtype=np.uint16).reshape(2, 4, 6)
    labels = np.arange(2)
    digest = arrays_digest(images, labels)
    assert digest == arrays_digest(np.asfortranarray(images), labels.astype(">i8"))
    others = [
        arrays_digest(images.astype(np.int16), labels),
        arrays_digest(images.reshape(2, 6, 4), labels),
        arrays_digest(images, labels[::-1]),
        weights_digest([labels, images]),
    ]
    assert len({digest, *others}) == 5
