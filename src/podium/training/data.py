"""Owns the training arrays: mapped, checked against their digests, and handed out in batches."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from podium.digests import arrays_digest, split_digest
from podium.errors import DatasetError
from podium.recipe import Recipe
from podium.result import TrainingArrays

VALIDATION_BATCH_PIXELS = 1 << 18  # 256 images of 32 x 32: large, yet its activations fit in memory
PREDICTED_IMAGES = 64
WHITENED_IMAGES = 1000
PREFETCHED_BATCHES = 2
_MIRRORING = 1  # sets the mirroring's random numbers apart from those of the order


@dataclass(frozen=True, kw_only=True)
class LoadedArrays:
    """`images`: uint8 (n, height, width, channels), memory-mapped. `labels`: int64 (n,), memory-mapped.
    `train`, `validation`: int64 indices into both."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    classes: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Up to 64 validation indices, spread evenly over the validation part: the same for every trial."""
        return _spread(self.validation, PREDICTED_IMAGES)

    @property
    def whitened(self) -> NDArray[np.int64]:
        """Up to 1,000 training indices, spread evenly, by whose images a first layer is set."""
        return _spread(self.train, WHITENED_IMAGES)


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of (images, labels), gathered one by one from mapped arrays.

    With a seed each epoch has an order of its own that depends on the seed and the epoch alone, so that
    a resumed training sees the same batches. With `alternating_flip` one half of the images, drawn by the seed, is
    mirrored in even epochs and the other half in odd ones. With `labels_as_inputs` a batch is ({"images", "labels"},
    labels), for a model that mixes them.
    """

    def __init__(
        self,
        arrays: LoadedArrays,
        indices: NDArray[np.int64],
        batch_size: int,
        *,
        seed: int | None = None,
        alternating_flip: bool = False,
        labels_as_inputs: bool = False,
    ) -> None:
        super().__init__()
        self._arrays, self._indices, self._seed = arrays, indices, seed
        self._labels_as_inputs = labels_as_inputs
        self._mirrored: NDArray[np.bool_] | None = None
        if alternating_flip:
            drawn = np.random.default_rng([seed or 0, 0, _MIRRORING])
            self._mirrored = drawn.random(len(arrays.images)) < 0.5
        self._epoch = 0
        self._batch_size = batch_size
        self._order = indices
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Take the order of this epoch (counted from 0)."""
        self._epoch = epoch
        if self._seed is not None:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(self._indices)

    @property
    def num_batches(self) -> int:
        """Batches in an epoch; the last one may be smaller."""
        return -(-len(self._indices) // self._batch_size)

    def __getitem__(self, batch: int) -> tuple[Any, NDArray[np.int64]]:
        chosen = self._order[batch * self._batch_size : (batch + 1) * self._batch_size]
        images = self._arrays.images[chosen]
        if self._mirrored is not None:
            flipped = self._mirrored[chosen] ^ bool(self._epoch % 2)
            images[flipped] = images[flipped, :, ::-1]
        labels = self._arrays.labels[chosen]
        if self._labels_as_inputs:
            return {"images": images, "labels": labels.astype(np.int32)}, labels
        return images, labels


def load(arrays: TrainingArrays) -> LoadedArrays:
    """Map the arrays of a job. Raises: DatasetError if a file is missing or damaged, or a digest differs."""
    try:
        images = np.load(arrays.images, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        labels = np.load(arrays.labels, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        with np.load(arrays.split, allow_pickle=False) as split:
            train, validation = split["train"], split["validation"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DatasetError(
            f"cannot read the training arrays {arrays.images}, {arrays.labels}, {arrays.split}: {error}"
        ) from error
    _check("split", arrays.split, arrays.split_digest, split_digest(train, validation))
    _check(
        "train",
        arrays.images,
        arrays.train_digest,
        _digest_of_files(_stamp(arrays.images), _stamp(arrays.labels)),
    )
    loaded = LoadedArrays(
        images=images, labels=labels, train=train, validation=validation, classes=len(arrays.class_names)
    )
    _check_shapes(loaded)
    return loaded


def training_batches(arrays: LoadedArrays, recipe: Recipe) -> Batches:
    """The training part as a recipe wants it: its batches, its order by seed, mirrored and with labels if it asks so."""
    augmentation = recipe.augmentation
    return Batches(
        arrays,
        arrays.train,
        recipe.training.batch_size,
        seed=recipe.training.seed,
        alternating_flip=augmentation.alternating_flip and augmentation.strength > 0.0,
        labels_as_inputs=augmentation.mixes,
    )


def validation_batches(arrays: LoadedArrays, recipe: Recipe) -> Batches:
    """The validation part in its own order, for a model that a recipe trains."""
    size = validation_batch_size(recipe, arrays.image_shape)
    return Batches(arrays, arrays.validation, size, labels_as_inputs=recipe.augmentation.mixes)


def fed(batches: Batches) -> Any:
    """Batches as Keras is to take them: the same ones, in the order of the epoch that has been started.

    On TensorFlow as a pipeline without tf.data's autotuner, which Keras would turn on: it looks again after 10, 20, 40 ms
    and so on, and holds an epoch up at its end until its next look, so that 6 s of training took 10.2 s.
    """
    if keras.config.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    def generate() -> Iterator[Any]:
        for number in range(batches.num_batches):
            yield batches[number]

    signature = tf.nest.map_structure(
        lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), batches[0]
    )
    pipeline = tf.data.Dataset.from_generator(generate, output_signature=signature)
    pipeline = pipeline.apply(tf.data.experimental.assert_cardinality(batches.num_batches))
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1
    return pipeline.prefetch(PREFETCHED_BATCHES).with_options(options)


def validation_batch_size(recipe: Recipe, image_shape: tuple[int, int, int]) -> int:
    """Images in a validation batch: by the pixels that a network works on, so that it suits small and large images."""
    backbone = recipe.model.backbone_in_use
    enlarged = 1 if backbone is None else backbone.upscale
    pixels = recipe.model.views * image_shape[0] * image_shape[1] * enlarged**2
    return max(1, min(1024, VALIDATION_BATCH_PIXELS // pixels))


def _spread(indices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return indices[np.linspace(0, len(indices) - 1, min(count, len(indices))).astype(np.int64)]


def _check(name: str, path: Path, expected: str, actual: str) -> None:
    if actual != expected:
        raise DatasetError(
            f"{path} is not the data of this job: its {name} digest is {actual}, the job's is {expected}.",
            remedy="Prepare the dataset again; a run only counts on the data that it names.",
        )


def _check_shapes(arrays: LoadedArrays) -> None:
    problem = None
    if arrays.images.ndim != 4 or arrays.images.dtype != np.uint8:
        problem = f"images must be uint8 of 4 dimensions, got {arrays.images.dtype} {arrays.images.shape}"
    elif arrays.labels.shape != arrays.images.shape[:1]:
        problem = f"{len(arrays.images)} images have labels of shape {arrays.labels.shape}"
    elif not len(arrays.train) or not len(arrays.validation):
        problem = f"{len(arrays.train)} training and {len(arrays.validation)} validation images"
    if problem:
        raise DatasetError(f"the training arrays cannot be trained on: {problem}.")


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size


# A warm worker trains trial after trial on the same files; reading them all once is enough.
@functools.lru_cache(maxsize=4)
def _digest_of_files(images: tuple[str, int, int], labels: tuple[str, int, int]) -> str:
    return arrays_digest(np.load(images[0], mmap_mode="r"), np.load(labels[0], mmap_mode="r"))
