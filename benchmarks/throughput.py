"""Images a second in training: the guide's script in Keras `fit`, and all workers of a Podium sweep together.

    python benchmarks/throughput.py cifar10-images.zip [--seeds 3] [--quick]

The guide's CNN with the guide's augmentation, batches of 64, ten epochs on 10,000 images, validated after each on
5,000. The script has the whole machine, a worker of Podium its share of it. Seconds are counted from the beginning of
the first training to the end of the last: tracing and validation are in them, loading libraries is not.
Target: at least 1.8 times the script's, at equal validation accuracy within the seeds' spread.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from arms import Benchmark, arguments, bars, machine, ratio, summary, write_summary
from images import arrays_of, for_peers, peer

from podium.executors.base import Attempt, Ended, EpochDone, Started
from podium.executors.local import LocalExecutor
from podium.recipe import Recipe, read_recipe
from podium.result import TrainingJob, TrainingResult, Verdict

RECIPE = Path(__file__).parents[1] / "experiments" / "baseline.yaml"
TARGET = 1.8


def trained_together(
    recipe: Recipe, folder: Path, *, seed: int, workers: int, threads: int
) -> dict[str, Any]:
    """Train the recipe on as many seeds as there are workers, at once."""
    arrays = arrays_of(recipe)
    epochs = recipe.training.epochs
    best: list[float] = []
    with closing(LocalExecutor(workers=workers, threads=threads, log_folder=folder / "logs")) as executor:
        while executor.free < workers:
            executor.events(1.0)
        began = time.perf_counter()
        for index in range(workers):
            own = recipe.with_values({"training.seed": seed * workers + index})
            job = TrainingJob(recipe=own, arrays=arrays, folder=folder / f"{seed}-{index}", epochs=epochs)
            executor.submit(Attempt(key=str(index), job=job))
        while len(best) < workers:
            for event in executor.events(1.0):
                match event:
                    case EpochDone():
                        executor.answer(event.key, Verdict.CONTINUE)
                    case Ended(outcome=TrainingResult() as result):
                        best.append(result.metrics["val_accuracy"])
                    case Ended():
                        raise RuntimeError(f"a training failed: {event.outcome}")
                    case Started():
                        pass
        seconds = time.perf_counter() - began
    trained = recipe.data.train_limit or 0
    return {
        "images_per_second": workers * epochs * trained / seconds,
        "val_accuracy": sum(best) / workers,
        "seconds": seconds,
        "precision": recipe.precision,
        "workers": workers,
        "threads": threads,
    }


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("images")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    sizes = {"training.epochs": 2, "data.train_limit": 4000} if chosen.quick else {"training.epochs": 10}
    values = {"data.reference": chosen.images, "data.train_limit": 10000, **sizes}
    # The script runs all epochs at one rate, with Keras's batch normalisation; so does Podium.
    same = {
        "callbacks.early_stopping": None,
        "callbacks.reduce_lr_on_plateau": None,
        "model.normalization_momentum": 0.99,
    }
    recipe = read_recipe(RECIPE, {**values, **same, "precision": chosen.precision})
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepared = for_peers(arrays_of(recipe), folder)

        def script(seed: int) -> Mapping[str, Any]:
            *_, end = peer("guide_script.py", prepared, "--epochs", recipe.training.epochs, "--seed", seed)
            return {**end, "val_accuracy": max(end["val_accuracy"])}

        def podium(seed: int) -> Mapping[str, Any]:
            return trained_together(recipe, folder, seed=seed, workers=chosen.workers, threads=chosen.threads)

        name = "throughput-quick" if chosen.quick else "throughput"
        made = {
            "recipe": recipe.model_dump(mode="json", exclude={"data": {"reference"}}),
            "train_digest": arrays_of(recipe).train_digest,
            "workers": chosen.workers,
            "threads": chosen.threads,
        }
        rows = Benchmark(name=name, arms={"guide's script": script, "Podium": podium}, made=made).run(
            chosen.out, range(chosen.seeds)
        )
    table = summary(rows, ["images_per_second", "val_accuracy"])
    faster = ratio(rows, "images_per_second", of="Podium", to="guide's script")
    print(table.round(4).to_string())
    print("Podium is {:.2f} times as fast ({:.2f} to {:.2f}); the target is {}.".format(*faster, TARGET))
    write_summary(chosen.out, name, {"machine": machine(), "times_as_fast": faster, "target": TARGET})
    bars(
        rows,
        "images_per_second",
        title="The guide's CNN in training, all workers of the machine together",
        unit="images a second (bar: mean, dots: seeds)",
        path=chosen.out / f"{name}.png",
    )


if __name__ == "__main__":
    main()
