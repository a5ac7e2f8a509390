"""What a trial costs the coordinator: 8 toy workers whose trials of 10 epochs take no time, records included.

    python benchmarks/coordinator.py [--quick] [--trials 1000 10000]

Processor seconds of the coordinator's process, writer thread included, a trial, with the random sampler; `pruner:
hyperband` is reported beside `none` (Optuna's reads all trials again at each report). Each arm and size has a process and
stores of its own.
Target (`none`): at most 100 ms a trial; at 10,000 trials at most 1.5 times that at 1,000; memory flat.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import yaml
from arms import Benchmark, Silent, arguments, bars, machine, new_stores, write_summary
from toy_worker import TRAINER

from podium.coordinator.loop import Coordinator
from podium.coordinator.trial import Budget, Plan
from podium.engines.make import make_engine
from podium.executors.local import LocalExecutor
from podium.recipe import Recipe
from podium.result import TrainingArrays, TrainingJob
from podium.sweep_file import Sweep, read_sweep
from podium.tracking.runs import Recorder

HERE = Path(__file__).parent
WORKERS, EPOCHS = 8, 10
TARGET_SECONDS, TARGET_GROWTH = 0.1, 1.5
PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from coordinator import sweep; sweep(sys.argv[2], int(sys.argv[3]))"


def toy_sweep(folder: Path, pruner: str, trials: int) -> Sweep:
    """A sweep file over four parameters, as a user's."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"training": {"epochs": EPOCHS}}))
    content = {
        "name": "toy",
        "recipe": "recipe.yaml",
        "engine": {"name": "optuna", "sampler": "random", "pruner": pruner, "seed": 0},
        "budget": {"trials": trials},
        "space": {
            "optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "scale": "log"},
            "model.dropout": {"type": "float", "low": 0.0, "high": 0.6},
            "model.depth": {"type": "int", "low": 1, "high": 4},
            "training.batch_size": {"type": "categorical", "choices": [32, 64, 128, 256]},
        },
    }
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return read_sweep(path)


def sweep(pruner: str, trials: int) -> None:
    """What a measured process does: one sweep to its end, then a JSON line."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        spec, stores = toy_sweep(folder, pruner, trials), new_stores(folder)
        engine = make_engine(spec, study_name="toy", study_url=stores.study_url, epochs=EPOCHS, create=True)
        recorder = Recorder(stores, experiment="toy", spool_folder=folder / "spool")
        recorder.open_parent(name="toy", parameters={}, tags={})
        nothing = folder / "no-such-file"
        arrays = TrainingArrays(
            images=nothing,
            labels=nothing,
            split=nothing,
            train_digest="",
            split_digest="",
            class_names=("a",),
        )

        def job(own: Recipe, attempt: Path, epochs: int) -> TrainingJob:
            return TrainingJob(recipe=own, arrays=arrays, folder=attempt, epochs=epochs)

        plan = Plan(
            recipe=spec.recipe,
            metric="val_accuracy",
            goal="maximize",
            folder=folder / "trials",
            job=job,
            package=lambda trial, run_id, result: None,
            tags={},
            inputs=[],
        )
        executor = LocalExecutor(
            workers=WORKERS, threads=1, log_folder=folder / "logs", trainer=TRAINER, paths=[HERE]
        )
        with closing(executor):
            while executor.free < WORKERS:
                executor.events(1.0)
            loop = Coordinator(
                engine=engine,
                executor=executor,
                recorder=recorder,
                plan=plan,
                budget=Budget(trials=trials),
                observer=Silent(),
            )
            before, began = _processor_seconds(), time.perf_counter()
            memory = psutil.Process().memory_info().rss
            loop.run()
            assert recorder.flush(600.0)
            used, took = _processor_seconds() - before, time.perf_counter() - began
        recorder.close()
        told = {
            "milliseconds_a_trial": 1000 * used / trials,
            "seconds": took,
            "trials": trials,
            "mebibytes_grown": (psutil.Process().memory_info().rss - memory) / 2**20,
            "mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        }
    print(json.dumps(told), flush=True)


def _processor_seconds() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime


def arm(pruner: str, trials: int, _: int) -> Mapping[str, Any]:
    """Run one sweep in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, str(HERE), pruner, str(trials)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    last: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return last


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--trials", type=int, nargs="+", default=[1_000, 10_000])
    chosen = parser.parse_args()
    sizes = [100, 200] if chosen.quick else chosen.trials
    arms = {f"none, {size} trials": partial(arm, "none", size) for size in sizes}
    arms[f"hyperband, {sizes[0]} trials"] = partial(arm, "hyperband", sizes[0])
    name = "coordinator-quick" if chosen.quick else "coordinator"
    rows = Benchmark(name=name, arms=arms, made={"workers": WORKERS, "epochs": EPOCHS}).run(
        chosen.out, range(chosen.seeds)
    )
    column = "milliseconds_a_trial"
    print(rows.groupby("arm", sort=False)[[column, "seconds", "mebibytes_grown"]].mean().round(1).to_string())
    means = {size: float(rows.loc[rows["arm"] == f"none, {size} trials", column].mean()) for size in sizes}
    growth = means[sizes[-1]] / means[sizes[0]]
    print(
        f"{means[sizes[0]]:.0f} ms a trial (target {1000 * TARGET_SECONDS:.0f}); at {sizes[-1]} trials "
        f"{growth:.2f} times that (target {TARGET_GROWTH})"
    )
    write_summary(chosen.out, name, {"machine": machine(), "milliseconds_a_trial": means, "growth": growth})
    bars(
        rows,
        column,
        title="What a trial of ten epochs costs the coordinator",
        unit="processor milliseconds (bar: mean, dots: repeats)",
        path=chosen.out / f"{name}.png",
    )


if __name__ == "__main__":
    main()
