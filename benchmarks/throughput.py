"""Images a second in training: the guide's script in Keras `fit`, and all workers of a Podium sweep together.

    python benchmarks/throughput.py cifar10-images.zip [--seeds 3] [--quick]

The guide's CNN with the guide's augmentation, batches of 64, ten epochs on 10,000 images, validated after each on
5,000. The script has the whole machine. Podium trains as many seeds as it takes workers, as the trials of a sweep: precision
and workers measured beforehand (`precision: auto`), with study, MLflow records, checkpoints and pictures. Seconds are
counted from the beginning of the first training to the end of the last: tracing and validation are in them, loading
libraries is not.
Target: at least 1.8 times the script's, at equal validation accuracy within the seeds' spread.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from arms import Benchmark, Silent, arguments, bars, machine, new_stores, ratio, summary, write_summary
from images import for_peers, peer

from podium.coordinator.loop import Coordinator
from podium.coordinator.trial import Budget
from podium.engines.listed import ListedEngine
from podium.recipe import Recipe, read_recipe
from podium.session.assembly import cores, crew, make_plan, threads_each
from podium.session.material import Material, gather
from podium.session.pace import measure

RECIPE = Path(__file__).parents[1] / "experiments" / "baseline.yaml"
NAME, METRIC = "throughput", "val_accuracy"
TARGET = 1.8


def swept(
    recipe: Recipe, material: Material, folder: Path, *, seed: int, workers: int, threads: int
) -> dict[str, Any]:
    """Train the recipe on as many seeds as there are workers, at once, as a sweep does: study, records and pictures too."""
    stores = new_stores(folder)
    seeds = [{"training.seed": seed * workers + index} for index in range(workers)]
    engine = ListedEngine(seeds, study_name=NAME, study_url=stores.study_url)
    with crew(
        stores,
        experiment=NAME,
        workers=workers,
        threads=threads,
        log_folder=folder / "logs",
        spool_folder=folder / "sweep" / "spool",
    ) as hands:
        plan = make_plan(
            material=material,
            recipe=recipe,
            metric=METRIC,
            goal="maximize",
            folder=folder / "trials",
            packager=hands.packager,
            tags={},
        )
        hands.recorder.open_parent(name=NAME, parameters={}, tags={})
        while hands.executor.free < workers:
            hands.executor.events(1.0)
        loop = Coordinator(
            engine=engine,
            executor=hands.executor,
            recorder=hands.recorder,
            plan=plan,
            budget=Budget(),
            observer=Silent(),
        )
        began = time.perf_counter()
        loop.run()
        seconds = time.perf_counter() - began
        best = [trial.value for trial in engine.trials()]
        hands.recorder.end_parent(status="FINISHED", metrics={}, tags={})
    if None in best:
        raise RuntimeError(f"a training failed: {[trial.message for trial in engine.trials()]}")
    return {
        "images_per_second": workers * recipe.training.epochs * (recipe.data.train_limit or 0) / seconds,
        "val_accuracy": mean(value for value in best if value is not None),
        "seconds": seconds,
        "precision": recipe.precision,
        "workers": workers,
        "threads": threads,
    }


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("images")
    parser.add_argument("--precision", default="auto")
    parser.add_argument(
        "--workers", type=int, help="measured with the precision where that is auto, else one a core"
    )
    parser.add_argument("--threads", type=int, help="of each worker; its share of the cores if not given")
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
        material = gather(recipe, code=None, largest_batch=recipe.training.batch_size)
        prepared = for_peers(material.arrays, folder)
        asked = recipe.model_dump(mode="json", exclude={"data": {"reference"}})
        workers = chosen.workers or cores()
        if recipe.precision == "auto":
            pace = measure(
                recipe, material, metric=METRIC, goal="maximize", workers=chosen.workers, say=print
            )
            recipe, workers = recipe.with_values({"precision": pace.precision}), pace.workers
        threads = chosen.threads or threads_each(workers)

        def script(seed: int) -> Mapping[str, Any]:
            *_, end = peer("guide_script.py", prepared, "--epochs", recipe.training.epochs, "--seed", seed)
            return {**end, "val_accuracy": max(end["val_accuracy"])}

        def podium(seed: int) -> Mapping[str, Any]:
            return swept(recipe, material, folder / str(seed), seed=seed, workers=workers, threads=threads)

        name = f"{NAME}-quick" if chosen.quick else NAME
        made = {
            "recipe": asked,
            "train_digest": material.arrays.train_digest,
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
