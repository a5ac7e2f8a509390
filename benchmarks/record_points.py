"""Records learning curves at Sobol points of a sweep's space, each trained in full by Podium's own workers.

    python benchmarks/record_points.py cifar10-images.zip points.jsonl [--points 200] [--workers 2]

Takes hours, and can be killed at any time: the same command goes on with the points that the table lacks. Point 0
is the recipe as it stands. benchmarks/search.py replays searches on the table.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from points_table import Point, appending
from scipy.stats import qmc
from trainings import Trained, train_here
from unit_cube import configuration

from podium.datasets.prepare import prepare
from podium.datasets.splits import split
from podium.engines.base import Scalar
from podium.result import EpochEvent, Failure, TrainingArrays
from podium.search_space import ordered, project
from podium.stores import dataset_cache
from podium.sweep_file import Sweep, read_sweep

SWEEP = Path(__file__).parents[1] / "sweeps" / "cifar10.yaml"
# No early stopping: replays need every epoch of every point. An epoch is a tenth of the whole training set's, so
# the moving averages must follow ten times as fast for first epochs to tell as much as they do there.
SETTINGS = (
    "training.epochs=27",
    "data.train_limit=4000",
    "data.validation.fraction=0.04",
    "callbacks.early_stopping=null",
    "model.normalization_momentum=0.9",
    "precision=bfloat16",
)
SOBOL_SEED = 0


def parameters_of(sweep: Sweep, count: int) -> list[dict[str, Scalar]]:
    """The baseline, then `count` points of one scrambled Sobol sequence; a larger count goes on with it."""
    sobol = qmc.Sobol(len(ordered(sweep.file.space)), scramble=True, rng=SOBOL_SEED)
    sequence = sobol.random_base2(max(1, math.ceil(math.log2(max(1, count)))))[:count]
    baseline: dict[str, Scalar] = project(sweep.file.space, sweep.recipe.flat())
    return [baseline, *(configuration(sweep.file.space, point) for point in sequence.tolist())]


def how_made(sweep: Sweep, arrays: TrainingArrays) -> dict[str, Any]:
    """What all points of a table share, as plain JSON. The path of the images is no part of it."""
    packages = ("podium", "keras", "tensorflow", "tensorflow-cpu", "numpy", "scipy")
    return {
        "by": "benchmarks/record_points.py",
        "sweep": sweep.file.name,
        "space": sweep.file.model_dump(mode="json")["space"],
        # Without defaults: a table can be gone on with after recipes got further keys.
        "recipe": sweep.recipe.model_dump(
            mode="json", exclude_defaults=True, exclude={"data": {"reference"}, "code": True}
        ),
        "points": f"0: the recipe; from 1: scrambled Sobol, seed {SOBOL_SEED}",
        "train_digest": arrays.train_digest,
        "split_digest": arrays.split_digest,
        "threads": 1,
        "versions": {
            "python": platform.python_version(),
            **{name: found for name in packages if (found := _version(name)) is not None},
        },
    }


def record(sweep: Sweep, table: Path, *, points: int, workers: int) -> None:
    """Train what the table lacks of the baseline and `points` Sobol points, and add each as it ends.

    Raises: BlockingIOError if another process records into the table; ValueError if the table was made with other
    settings; RuntimeError if a point cannot be trained for a reason that is not its own.
    """
    cache = dataset_cache()
    arrays = split(prepare(sweep.recipe.data, cache=cache), sweep.recipe.data, cache=cache)
    with appending(table, how_made(sweep, arrays)) as appender:
        proposed = dict(enumerate(parameters_of(sweep, points)))
        todo = {number: values for number, values in proposed.items() if number not in appender.recorded}
        folder = table.with_name(f"{table.name}.work")
        shutil.rmtree(folder, ignore_errors=True)  # what a kill left; the lock says that it is nobody's
        print(f"{len(proposed) - len(todo)} of {len(proposed)} points are recorded", flush=True)
        start = time.monotonic()
        recipes = {number: sweep.recipe.with_values(values) for number, values in todo.items()}
        trainings = train_here(recipes, arrays, folder, workers=workers) if todo else ()
        for done, trained in enumerate(trainings, start=1):
            point = point_of(trained, todo[trained.number])
            appender.append(point)
            shown = f"{max(point.val_accuracy):.4f}" if point.val_accuracy else "-"
            left = (time.monotonic() - start) / done * (len(todo) - done) / 3600
            print(
                f"point {point.point}: val_accuracy {shown}, {sum(point.seconds):.0f} s"
                f"{f', failed: {point.failed}' if point.failed else ''}; about {left:.1f} h to go",
                flush=True,
            )


def point_of(trained: Trained, parameters: Mapping[str, Scalar]) -> Point:
    """A table's row of a training."""
    epochs, outcome = trained.epochs, trained.outcome
    return Point(
        point=trained.number,
        parameters=parameters,
        val_accuracy=_metric(epochs, "val_accuracy"),
        val_loss=_metric(epochs, "val_loss"),
        accuracy=_metric(epochs, "accuracy"),
        seconds=tuple(round(epoch.seconds, 2) for epoch in epochs),
        size=None if isinstance(outcome, Failure) else outcome.parameters,
        failed=outcome.cause if isinstance(outcome, Failure) else None,
    )


def _metric(epochs: Iterable[EpochEvent], name: str) -> tuple[float, ...]:
    return tuple(float(f"{epoch.metrics[name]:.6g}") for epoch in epochs)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", help="CIFAR-10 as Podium's --data takes it, for example a zip")
    parser.add_argument("table", type=Path)
    parser.add_argument("--points", type=int, default=200, help="Sobol points besides the baseline")
    parser.add_argument("--workers", type=int, default=2, help="processes that train, of one thread each")
    arguments = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # one thread of the CPU for all points
    sweep = read_sweep(SWEEP, SETTINGS, data=arguments.images)
    try:
        record(sweep, arguments.table, points=arguments.points, workers=arguments.workers)
    except BlockingIOError:
        sys.exit(f"another process records into {arguments.table}; it was left alone.")
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
