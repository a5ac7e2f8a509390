"""Seconds until a search has found what plain Optuna finds in the whole time: four other tools, and Podium twice.

    python benchmarks/time_to_quality.py cifar10-images.zip --peers peers/bin/python [--seeds 3] [--minutes 30] [--quick]

The same network and space (those of sweeps/cifar10.yaml), the same 10,000 training and 2,000 validation images, the same
wall-clock time for each, on the whole machine, loading of libraries included; decoding of images is in no arm's time.
Plain Optuna and KerasTuner Hyperband train one trial at a time with all cores, as their documentation begins (on two
cores two processes get 1.2 to 1.4 times as much done); Optuna with its two callbacks (and Podium's pruner) and Ray Tune
one a core; Podium as it chooses, bfloat16 where that is faster, where the others have float32. All begin with the
recipe's own configuration, which Ray's ASHA may stop early and Podium's pruner may not; KerasTuner takes none. Podium's
default pruner was chosen on curves recorded in this space (docs/performance.md, "Search methods").
Podium's second arm, `sweeps/fast.yaml`, searches the same five things of another network on the same images: what it
gains is the recipe's, and would be any tool's that had it. No other arm's figures have a part in it, and it has five
minutes at most, which are enough to say when it passes what the others find in thirty.
The best validation accuracy so far is that of any epoch of any trial, for all arms alike. Arms and seeds that
are in the results already are not run again. Target: 10 times sooner than plain Optuna's final best, and twice as
soon as the best other arm. Run it from a checkout that nobody edits, on a machine that does nothing else.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from arms import Benchmark, arguments, digest, lines, machine, short_digest, write_summary
from images import PEERS, arrays_of, for_peers

from podium.recipe import read_recipe
from podium.stores import Stores

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "experiments" / "baseline.yaml"
TOOLS = {
    "plain Optuna": "plain_optuna.py",
    "Optuna + callbacks": "optuna_callbacks.py",
    "KerasTuner Hyperband": "tuner_hyperband.py",
    "Ray Tune ASHA": "tune_asha.py",
}
DATA: dict[str, Any] = {"data.train_limit": 10000, "data.validation.fraction": 0.04}
SETTINGS = {**DATA, "training.epochs": 27}
PODIUM, REFERENCE = "Podium", "plain Optuna"
# Of each arm of Podium's: its sweep, the values that it is given, and the most seconds.
SWEEPS: dict[str, tuple[Path, Mapping[str, Any], float]] = {
    PODIUM: (ROOT / "sweeps" / "cifar10.yaml", SETTINGS, float("inf")),
    "Podium, fast.yaml": (ROOT / "sweeps" / "fast.yaml", DATA, 300.0),  # has epochs of its own
}
TARGET_PLAIN, TARGET_OTHERS = 10.0, 2.0
GRACE_SECONDS = 30
TIMEOUT = ("timeout", "--foreground", f"--kill-after={GRACE_SECONDS}")


def until(command: Sequence[str], seconds: float, environment: Mapping[str, str], folder: Path) -> float:
    """Run a command, and end all that it has started when the time is up; answers when it began (Unix seconds).

    Raises: RuntimeError with the end of its output if it fails.
    """
    began = time.time()
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            # Should this program be killed, what it started must not run on for hours.
            [*TIMEOUT, str(seconds + 2 * GRACE_SECONDS), *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            cwd=folder,
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            # Podium's workers get a moment to finish; the others' records are written epoch by epoch.
            process.terminate()  # `timeout` hands it on
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
            return began
        finally:
            _end_session(process.pid)
            process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"{command[1]} failed:\n{(folder / 'output.txt').read_text()[-3000:]}")
    return began


def _end_session(leader: int) -> None:
    """Kill all that a session leader has started, Ray's process groups too: nothing may run on into the next arm."""
    left = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == leader:
                process.kill()
                left.append(process)
    psutil.wait_procs(left, timeout=GRACE_SECONDS)


def other_tool(name: str, seed: int, *, python: str, arrays: Path, seconds: float) -> dict[str, Any]:
    """Run a script of peers/ in its environment; answers its curve."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place)
        watch = folder / "watch.jsonl"
        watch.touch()
        command = [python, str(PEERS / TOOLS[name]), str(arrays), str(watch), str(seconds), str(seed)]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TMPDIR": place}
        began = until(command, seconds, environment, folder)
        told = [json.loads(line) for line in watch.read_text().splitlines()]
        _refuse_nothing(told, folder)
    return curve([each["at"] - began for each in told], [each["val_accuracy"] for each in told], seconds)


def podium(name: str, seed: int, *, images: str, seconds: float) -> dict[str, Any]:
    """Run `podium sweep` on an arm's file; its curve is read from MLflow afterwards."""
    sweep, values, most = SWEEPS[name]
    seconds = min(seconds, most)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place)
        words = [f"{key}={value}" for key, value in values.items()]
        command = [
            *(sys.executable, "-m", "podium.cli", "sweep", str(sweep), *words),
            *(f"engine.seed={seed}", f"training.seed={seed}"),
            *("--data", images, "--trials", "10000", "--hours", str(seconds / 3600)),
        ]
        stores = Stores(
            root=folder,
            tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
            artifact_uri=(folder / "artifacts").as_uri(),
            study_url=f"sqlite:///{folder / 'studies.db'}",
        )
        environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": stores.tracking_uri,
            "PODIUM_STUDY_URL": stores.study_url,
        }
        began = until(command, seconds, environment, folder)
        at, accuracies = _of_all_runs(stores)
        _refuse_nothing(at, folder)
        told = (folder / "output.txt").read_text().splitlines()
    chosen = " ".join(line for line in told[:10] if "precision" in line or line.startswith("x"))
    return {**curve([each - began for each in at], accuracies, seconds), "told": chosen}


def _refuse_nothing(epochs: Sequence[object], folder: Path) -> None:
    """Raises: RuntimeError with the end of an arm's output if it has trained no epoch: that is no result."""
    if not epochs:
        raise RuntimeError(f"no epoch was trained:\n{(folder / 'output.txt').read_text()[-3000:]}")


def _of_all_runs(stores: Stores) -> tuple[list[float], list[float]]:
    """When each epoch was recorded (Unix seconds), and its validation accuracy."""
    import sqlite3

    assert stores.tracking_file is not None
    with sqlite3.connect(f"file:{stores.tracking_file}?mode=ro", uri=True) as database:
        rows = database.execute(
            "select timestamp, value from metrics where key = 'val_accuracy' order by timestamp"
        ).fetchall()
    return [row[0] / 1000 for row in rows], [row[1] for row in rows]


def curve(at: Sequence[float], values: Sequence[float], seconds: float) -> dict[str, Any]:
    """Best so far: the moments at which it rose, within the time; and every epoch's moment and value.

    Raises: RuntimeError if no epoch ended in time.
    """
    within = [
        (round(float(at[index]), 1), float(values[index])) for index in np.argsort(at) if at[index] <= seconds
    ]
    if not within:
        raise RuntimeError(f"the first epoch ended after {min(at):.0f} s, and the time was {seconds:.0f} s")
    best, rises = -np.inf, []
    for when, value in within:
        if value > best:
            best = value
            rises.append([when, best])
    epochs = [[when, round(value, 4)] for when, value in within]
    return {"best": best, "epochs": len(epochs), "rises": rises, "curve": epochs}


def reached(rises: Sequence[Sequence[float]], value: float) -> float:
    """Seconds until a best value was reached, infinite if it was not."""
    return next((when for when, best in rises if best >= value), float("inf"))


def compared(rows: pd.DataFrame) -> dict[str, dict[int, float]]:
    """Of each arm, by seed: seconds until the plain arm's final best of that seed."""
    found: dict[str, dict[int, float]] = {}
    for seed, group in rows.groupby("seed"):
        by_arm = group.set_index("arm")
        if REFERENCE not in by_arm.index:
            continue
        goal = by_arm.loc[REFERENCE, "best"]
        for name, row in by_arm.iterrows():
            found.setdefault(str(name), {})[int(str(seed))] = reached(row["rises"], goal)
    return found


def times_sooner(
    found: Mapping[str, Mapping[int, float]], seconds: float, arm: str
) -> dict[str, dict[int, tuple[float, bool]]]:
    """How many times sooner an arm of Podium's is than each other tool, by seed, and whether that is a lower bound only.

    0 where it did not get there; a tool that did not counts with the whole time.
    """
    own = found.get(arm, {})
    return {
        name: {
            seed: (
                0.0 if np.isinf(own[seed]) else min(other, seconds) / own[seed],
                bool(np.isinf(other)) and not np.isinf(own[seed]),
            )
            for seed, other in times.items()
            if seed in own
        }
        for name, times in found.items()
        if name not in SWEEPS
    }


def picture(rows: pd.DataFrame) -> bytes:
    """Best so far against seconds, up to an arm's last epoch: a line a seed, a colour an arm."""

    def points(row: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
        rises = row["rises"]
        at, values = zip(*[*rises, [row["curve"][-1][0], rises[-1][1]]], strict=True)
        return at, values

    return lines(rows, points, title="Best validation accuracy so far", steps=True)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the arm that runs is ended too
    parser = arguments(__doc__ or "")
    parser.add_argument("images")
    parser.add_argument("--peers", type=Path, required=True, help="the Python that has the other tools")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--only", nargs="*", default=[], choices=[*TOOLS, *SWEEPS], help="arms to run")
    chosen = parser.parse_args()
    seconds = 60 * (3.0 if chosen.quick else chosen.minutes)
    python = str(chosen.peers.absolute())  # and no further: the link's target is no environment
    needed = "import keras, keras_tuner, optuna, optuna_integration, ray.tune, tensorboard"
    subprocess.run([python, "-c", needed], check=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    images = str(Path(chosen.images).resolve()) if Path(chosen.images).exists() else chosen.images
    with tempfile.TemporaryDirectory() as place:
        recipe = read_recipe(RECIPE, {"data.reference": images, **SETTINGS})
        arrays = for_peers(arrays_of(recipe), Path(place))
        arms = {
            name: partial(other_tool, name, python=python, arrays=arrays, seconds=seconds) for name in TOOLS
        }
        arms |= {name: partial(podium, name, images=images, seconds=seconds) for name in SWEEPS}
        name = f"time_to_quality-{seconds / 60:g}min"
        listed = subprocess.run(
            [python, "-m", "pip", "freeze"], stdout=subprocess.PIPE, text=True, check=True
        )
        made = {
            **SETTINGS,
            "train_digest": arrays_of(recipe).train_digest,
            "seconds": seconds,
            "files": digest(
                *(sweep for sweep, *_ in SWEEPS.values()),
                *(RECIPE, RECIPE.with_name("fast.yaml"), Path(__file__), *sorted(PEERS.glob("*.py"))),
            ),
            "peers": short_digest(listed.stdout.encode()),
        }
        rows = Benchmark(name=name, arms=arms, made=made).run(chosen.out, range(chosen.seeds), chosen.only)
    print(rows[["arm", "seed", "best", "epochs"]].to_string(index=False))
    found = compared(rows)
    for arm, times in found.items():
        told = ", ".join("not reached" if np.isinf(each) else f"{each:.0f}" for each in times.values())
        print(f"{arm}: seconds until plain Optuna's final best, by seed: {told}")
    sooner = {arm: times_sooner(found, seconds, arm) for arm in SWEEPS}
    for own, tools in sooner.items():
        for tool, times in tools.items():
            told = ", ".join(f"{'at least ' if bound else ''}{each:.1f}" for each, bound in times.values())
            target = TARGET_PLAIN if tool == REFERENCE else TARGET_OTHERS
            print(f"{own}, times sooner than {tool}, by seed: {told}; target {target:.0f}")
    seconds_to = {
        arm: {seed: None if np.isinf(each) else each for seed, each in times.items()}
        for arm, times in found.items()
    }
    write_summary(
        chosen.out, name, {"machine": machine(), "seconds_to_plain_best": seconds_to, "times_sooner": sooner}
    )
    (chosen.out / f"{name}.png").write_bytes(picture(rows))


if __name__ == "__main__":
    main()
