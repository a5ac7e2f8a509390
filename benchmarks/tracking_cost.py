"""What records cost a training: the same sweep's worker with a run in MLflow and a study in SQLite, and without.

    python benchmarks/tracking_cost.py [--seeds 3] [--quick]

Twelve epochs of about five seconds: the guide's CNN on as many made-up images as one worker with all cores trains in that
time. With records the coordinator writes run, curve and study as in a sweep; without it only answers the worker.
Target: at most 1 % more seconds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from arms import Benchmark, Silent, arguments, bars, machine, new_stores, ratio, summary, write_summary
from made_up_images import noise

from podium.coordinator.loop import Coordinator
from podium.coordinator.trial import Budget, Plan
from podium.engines.listed import ListedEngine
from podium.executors.base import Attempt, Ended, EpochDone
from podium.executors.local import LocalExecutor
from podium.executors.placement import usable_cores
from podium.recipe import Recipe
from podium.result import Failure, TrainingArrays, TrainingJob, Verdict
from podium.tracking.runs import Recorder

VALIDATION = 512
TARGET = 1.01


def ready(folder: Path) -> LocalExecutor:
    """One worker with all cores, its libraries loaded."""
    executor = LocalExecutor(workers=1, threads=len(usable_cores()), log_folder=folder / "logs")
    while not executor.free:
        executor.events(1.0)
    return executor


def without_records(recipe: Recipe, arrays: TrainingArrays, folder: Path) -> dict[str, Any]:
    """Seconds of a training whose epochs are only answered."""
    job = TrainingJob(recipe=recipe, arrays=arrays, folder=folder / "job", epochs=recipe.training.epochs)
    with closing(ready(folder)) as executor:
        began = time.perf_counter()
        executor.submit(Attempt(key="1", job=job))
        while True:
            for event in executor.events(1.0):
                if isinstance(event, EpochDone):
                    executor.answer(event.key, Verdict.CONTINUE)
                elif isinstance(event, Ended):
                    if isinstance(event.outcome, Failure):
                        raise RuntimeError(event.outcome.message)
                    return {"seconds": time.perf_counter() - began}


def with_records(recipe: Recipe, arrays: TrainingArrays, folder: Path) -> dict[str, Any]:
    """Seconds of the same training as a trial of a sweep, until its end is in the study."""
    stores = new_stores(folder)
    engine = ListedEngine([{}], study_name="cost", study_url=stores.study_url)
    recorder = Recorder(stores, experiment="cost", spool_folder=folder / "spool")
    recorder.open_parent(name="cost", parameters={}, tags={})

    def job(own: Recipe, place: Path, epochs: int) -> TrainingJob:
        return TrainingJob(recipe=own, arrays=arrays, folder=place, epochs=epochs)

    plan = Plan(
        recipe=recipe,
        metric="val_accuracy",
        goal="maximize",
        folder=folder / "trials",
        job=job,
        package=lambda trial, run_id, result: None,
        tags={},
        inputs=[],
    )
    with closing(ready(folder)) as executor:
        loop = Coordinator(
            engine=engine, executor=executor, recorder=recorder, plan=plan, budget=Budget(), observer=Silent()
        )
        began = time.perf_counter()
        loop.run()
        seconds = time.perf_counter() - began
        assert recorder.flush(60.0)
        recorder.close()
    return {"seconds": seconds}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--train-images", type=int, default=3600, help="for epochs of about five seconds")
    chosen = parser.parse_args()
    epochs, count = (3, 600) if chosen.quick else (12, chosen.train_images)
    recipe = Recipe().with_values({"training.epochs": epochs, "callbacks.early_stopping": None})
    with tempfile.TemporaryDirectory() as place:
        arrays = noise(Path(place) / "arrays", train=count, validation=VALIDATION)

        def plain(seed: int) -> Mapping[str, Any]:
            return without_records(recipe, arrays, Path(place) / f"plain-{seed}")

        def recorded(seed: int) -> Mapping[str, Any]:
            return with_records(recipe, arrays, Path(place) / f"recorded-{seed}")

        name = "tracking_cost-quick" if chosen.quick else "tracking_cost"
        made = {"epochs": epochs, "train_images": count}
        rows = Benchmark(name=name, arms={"without records": plain, "with records": recorded}, made=made).run(
            chosen.out, range(chosen.seeds)
        )
    cost = ratio(rows, "seconds", of="with records", to="without records")
    print(summary(rows, ["seconds"]).round(2).to_string())
    print(
        "With records: {:.4f} times the seconds ({:.4f} to {:.4f}); the target is {}.".format(*cost, TARGET)
    )
    write_summary(chosen.out, name, {"machine": machine(), "times_the_seconds": cost, "target": TARGET})
    bars(
        rows,
        "seconds",
        title="A training with and without records",
        unit="seconds (bar: mean, dots: repeats)",
        path=chosen.out / f"{name}.png",
    )


if __name__ == "__main__":
    main()
