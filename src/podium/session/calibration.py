"""Owns measuring configurations before a sweep: short trainings by real workers, in a folder that goes away."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from podium.coordinator.attempts import checkpoints
from podium.datasets.splits import load_split
from podium.digests import split_digest
from podium.executors.base import Attempt, Ended, EpochDone, Started
from podium.executors.local import LocalExecutor
from podium.packager.packager import ARTIFACTS
from podium.recipe import Recipe
from podium.result import Failure, Goal, TrainingArrays, TrainingJob, TrainingResult, Verdict
from podium.session.material import Material

TRAINER = "podium.training.calibration:calibrate"
DETAIL = "calibration"
# The first builds the training step, the second shows the speed.
EPOCHS = 2
# 512 images of 32 x 32, so that small and large images take about as long; at least four batches.
PIXELS = 1 << 19
MIN_BATCHES = 4
# An epoch that is over sooner says little: it is measured again on as many images as take about this long.
SHORT_SECONDS = 0.5
LONG_SECONDS = 2.0
# Processes to measure with, where the sweep has more.
MOST_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One configuration, trained for a moment.

    `epoch_seconds`: an epoch on all of the sweep's images, validation and checkpoint with it, reckoned from the last
    epoch; `start_seconds`: what a training takes besides its epochs; `images_per_second`: of the last epoch, without
    validation. `peak_bytes`: of the worker's memory, or of its GPU's. `kept_bytes` are the files that a
    finished trial keeps, `checkpoint_bytes` those of all its checkpoints at once.
    """

    images: int
    images_per_second: float
    epoch_seconds: float
    start_seconds: float
    peak_bytes: int
    parameters: int
    kept_bytes: int
    checkpoint_bytes: int
    device: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was measured, by name; `warm_seconds` until the first worker was ready."""

    measured: Mapping[str, Measured]
    failed: Mapping[str, Failure]
    warm_seconds: float


@dataclass(frozen=True, kw_only=True)
class _Subset:
    """Training and validation images of a calibration, as indices, and of the sweep, as numbers."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    all_train: int
    all_validation: int


@dataclass(kw_only=True)
class _Measurement:
    """One training of a calibration."""

    name: str
    job: TrainingJob
    subset: _Subset
    started: float = 0.0
    outcome: Measured | Failure | None = None

    def end(self, outcome: TrainingResult | Failure) -> None:
        """Take the worker's answer."""
        if isinstance(outcome, Failure):
            self.outcome = outcome
        else:
            self.outcome = _measured(self.job, self.subset, outcome, time.monotonic() - self.started)


def calibrate(
    recipes: Mapping[str, Recipe], material: Material, *, metric: str, goal: Goal, workers: int, threads: int
) -> Calibration:
    """Train each recipe for a moment, as many at once as the sweep would. Raises: SweepError if no worker starts."""
    with tempfile.TemporaryDirectory(prefix="podium-plan-") as place:
        bench = _Bench(Path(place), material, metric, goal)
        began = time.monotonic()
        executor = LocalExecutor(
            workers=min(workers, MOST_AT_ONCE), threads=threads, log_folder=bench.logs, trainer=TRAINER
        )
        try:
            while not executor.free:
                executor.events(1.0)
            warm_seconds = time.monotonic() - began
            found = bench.run(executor, recipes, images={})
            again = {name: bench.more(one) for name, one in found.items() if isinstance(one, Measured)}
            again = {name: images for name, images in again.items() if images > 0}
            found |= bench.run(executor, {name: recipes[name] for name in again}, images=again)
        finally:
            executor.close()
    return Calibration(
        measured={name: one for name, one in found.items() if isinstance(one, Measured)},
        failed={name: one for name, one in found.items() if isinstance(one, Failure)},
        warm_seconds=warm_seconds,
    )


class _Bench:
    """Hands recipes to workers and reads what comes back."""

    def __init__(self, folder: Path, material: Material, metric: str, goal: Goal) -> None:
        self.logs = folder / "logs"
        self._folder, self._material = folder, material
        self._metric, self._goal = metric, goal
        self._train, self._validation = load_split(material.arrays.split)
        height, width, _ = material.dataset.image_shape
        self._pixels = height * width

    def more(self, one: Measured) -> int:
        """On how many images a configuration should be measured again, 0 if it need not be."""
        enough = one.images >= min(len(self._train), SHORT_SECONDS * one.images_per_second)
        return 0 if enough else min(len(self._train), math.ceil(LONG_SECONDS * one.images_per_second))

    def run(
        self, executor: LocalExecutor, recipes: Mapping[str, Recipe], *, images: Mapping[str, int]
    ) -> dict[str, Measured | Failure]:
        """Train all; `images` says on how many, where that is settled.

        Some are trained twice, so that no worker idles: what one trains alone is faster than it will be.
        """
        names = list(recipes)
        rounds = -(-len(names) // executor.workers)
        waiting = [names[index % len(names)] for index in range(rounds * executor.workers)] if names else []
        jobs: dict[str, _Measurement] = {}
        ended = 0
        while ended < rounds * executor.workers:
            while waiting and executor.free:
                name = waiting.pop(0)
                key = f"{len(jobs)}-{name}"
                jobs[key] = self._job(name, recipes[name], images.get(name))
                executor.submit(Attempt(key=key, job=jobs[key].job))
            for event in executor.events(1.0):
                match event:
                    case Started(key=key):
                        jobs[key].started = time.monotonic()
                    case EpochDone(key=key):
                        executor.answer(key, Verdict.CONTINUE)
                    case Ended(key=key, outcome=outcome):
                        jobs[key].end(outcome)
                        ended += 1
        return {
            name: _together([each.outcome for each in jobs.values() if each.name == name]) for name in names
        }

    def _job(self, name: str, recipe: Recipe, images: int | None) -> _Measurement:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        least = max(PIXELS // self._pixels, MIN_BATCHES * recipe.training.batch_size)
        subset = _Subset(
            train=_evenly(self._train, images or least),
            validation=_evenly(self._validation, max(1, PIXELS // 2 // self._pixels)),
            all_train=len(self._train),
            all_validation=len(self._validation),
        )
        job = TrainingJob(
            recipe=recipe,
            arrays=_arrays(self._material.arrays, subset, folder / "split.npz"),
            folder=folder / "attempt",
            epochs=EPOCHS,
            metric=self._metric,
            goal=self._goal,
            code=self._material.code,
        )
        return _Measurement(name=name, job=job, subset=subset)


def _together(outcomes: Sequence[Measured | Failure | None]) -> Measured | Failure:
    """The mean of what was measured, or what failed first."""
    measured = [each for each in outcomes if isinstance(each, Measured)]
    for each in outcomes:
        if isinstance(each, Failure):
            return each
    return replace(
        measured[0],
        images_per_second=mean(each.images_per_second for each in measured),
        epoch_seconds=mean(each.epoch_seconds for each in measured),
        start_seconds=mean(each.start_seconds for each in measured),
        peak_bytes=max(each.peak_bytes for each in measured),
    )


def _evenly(indices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    count = min(count, len(indices))
    chosen: NDArray[np.int64] = indices[np.linspace(0, len(indices) - 1, count).astype(np.int64)]
    return chosen


def _arrays(arrays: TrainingArrays, subset: _Subset, path: Path) -> TrainingArrays:
    np.savez(path, train=subset.train, validation=subset.validation)
    return replace(arrays, split=path, split_digest=split_digest(subset.train, subset.validation))


def _measured(job: TrainingJob, subset: _Subset, result: TrainingResult, wall_seconds: float) -> Measured:
    last = json.loads(result.details[DETAIL])
    checkpoint = float(result.details["checkpoint_seconds"]) / result.epochs
    validation = last["seconds"] - last["training_seconds"]
    kept = [job.folder / name for name in ARTIFACTS]
    return Measured(
        images=last["images"],
        images_per_second=last["images"] / last["training_seconds"],
        epoch_seconds=last["training_seconds"] * subset.all_train / len(subset.train)
        + validation * subset.all_validation / len(subset.validation)
        + checkpoint,
        start_seconds=max(0.0, wall_seconds - result.epochs * (last["seconds"] + checkpoint)),
        peak_bytes=last["peak_bytes"],
        parameters=result.parameters,
        kept_bytes=sum(path.stat().st_size for path in kept if path.is_file()),
        checkpoint_bytes=sum(
            path.stat().st_size for folder in checkpoints(job.folder) for path in folder.iterdir()
        ),
        device=result.device,
        threads=result.threads,
    )
