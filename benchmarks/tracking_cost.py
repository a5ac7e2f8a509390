"""What records cost a training: epochs that are put on record, and epochs that are not, in turns.

    python benchmarks/tracking_cost.py [--seeds 3] [--quick]

One trial of the guide's CNN in epochs of about five seconds, on as many made-up images as one worker with all cores
trains in that time. The coordinator, study and MLflow store are a sweep's, but every other epoch is only answered. An
epoch's seconds are counted from the end of the one before: the wait for the verdict and the writing of that one's records
are in them. Whole trainings with and without records differ by less than the machine swings from one to the next; what a
trial's beginning and end cost is in coordinator.py's figure.
Target: at most 1 % more seconds.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd
from arms import Benchmark, Silent, arguments, bars, machine, new_stores, ratio, summary, write_summary
from made_up_images import noise

from podium.coordinator.attempts import HISTORY
from podium.coordinator.loop import Coordinator
from podium.coordinator.trial import Budget, Plan
from podium.engines.base import Scalar
from podium.engines.listed import ListedEngine
from podium.executors.local import LocalExecutor
from podium.executors.placement import usable_cores
from podium.recipe import Recipe
from podium.result import EpochEvent, TrainingArrays, TrainingJob
from podium.tracking.runs import Recorder

VALIDATION = 512
TARGET = 1.01
ARMS = ("without records", "with records")


class EveryOtherEngine(ListedEngine):
    """Keeps the first, third, fifth epoch and so on, and when each of them all came."""

    def __init__(self, **settings: Any) -> None:
        super().__init__([{}], **settings)
        self.came: list[float] = []

    def note(self, number: int, key: str, value: Scalar) -> None:
        """As ListedEngine; an epoch's history is the first that the coordinator writes of it."""
        if key == HISTORY:
            self.came.append(time.perf_counter())
        if key != HISTORY or len(self.came) % 2 == 1:
            super().note(number, key, value)

    def report(self, number: int, epoch: int, value: float) -> bool:
        """As ListedEngine."""
        return super().report(number, epoch, value) if epoch % 2 == 1 else False


class EveryOtherRecorder(Recorder):
    """Records the first, third, fifth epoch and so on."""

    def epoch(self, trial: int | str, event: EpochEvent) -> None:
        """As Recorder."""
        if event.epoch % 2 == 1:
            super().epoch(trial, event)


def epoch_seconds(recipe: Recipe, arrays: TrainingArrays, folder: Path) -> dict[str, Any]:
    """Mean seconds of the epochs that came while the one before was recorded, and of those while it was not."""
    stores = new_stores(folder)
    engine = EveryOtherEngine(study_name="cost", study_url=stores.study_url)
    recorder = EveryOtherRecorder(stores, experiment="cost", spool_folder=folder / "spool")
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
    with closing(
        LocalExecutor(workers=1, threads=len(usable_cores()), log_folder=folder / "logs")
    ) as executor:
        Coordinator(
            engine=engine, executor=executor, recorder=recorder, plan=plan, budget=Budget(), observer=Silent()
        ).run()
        assert recorder.flush(60.0)
        recorder.close()
    [trial] = engine.trials()
    if trial.state != "complete":
        raise RuntimeError(f"the training is {trial.state}: {trial.message}")
    took = [after - before for before, after in zip(engine.came, engine.came[1:], strict=False)]
    return {"with records": mean(took[0::2]), "without records": mean(took[1::2]), "epoch_seconds": took}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--train-images", type=int, default=3600, help="for epochs of about five seconds")
    chosen = parser.parse_args()
    epochs, count = (5, 600) if chosen.quick else (25, chosen.train_images)
    recipe = Recipe().with_values({"training.epochs": epochs, "callbacks.early_stopping": None})
    with tempfile.TemporaryDirectory() as place:
        arrays = noise(Path(place) / "arrays", train=count, validation=VALIDATION)

        def in_turns(seed: int) -> dict[str, Any]:
            return epoch_seconds(recipe, arrays, Path(place) / str(seed))

        name = "tracking_cost-quick" if chosen.quick else "tracking_cost"
        made = {"epochs": epochs, "train_images": count}
        told = Benchmark(name=name, arms={"in turns": in_turns}, made=made).run(
            chosen.out, range(chosen.seeds)
        )
    rows = pd.DataFrame(
        [
            {"arm": arm, "seed": row["seed"], "seconds": row[arm]}
            for row in told.to_dict("records")
            for arm in ARMS
        ]
    )
    cost = ratio(rows, "seconds", of="with records", to="without records")
    print(summary(rows, ["seconds"]).round(3).to_string())
    print(
        "With records: {:.4f} times the seconds ({:.4f} to {:.4f}); the target is {}.".format(*cost, TARGET)
    )
    write_summary(chosen.out, name, {"machine": machine(), "times_the_seconds": cost, "target": TARGET})
    bars(
        rows,
        "seconds",
        title="An epoch, while the one before it is recorded and while it is not",
        unit="seconds (bar: mean, dots: repeats)",
        path=chosen.out / f"{name}.png",
    )


if __name__ == "__main__":
    main()
