"""Owns rounds with real trainings: killed at any moment, they end as they would have, to the bit."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

import invariants
import real_training
from real_training import Ended, RealPlace
from records import read_runs, read_study
from sweep_start import Place, Start, until

TRAINING_SECONDS = 240.0


def killed(place: Place, chance: random.Random, *, expected: list[Ended]) -> list[str]:
    """One or two kills of worker or coordinator while a network is trained, then on to the end."""
    real = RealPlace(place.root, name=real_training.NAME)
    real.rewrite()
    found: list[str] = []
    place.missed = True
    for number in range(chance.randint(1, 2)):
        start = real.begin(*(["--resume"] if number else []))
        victim = chance.choice(("worker", "coordinator"))
        epochs = _epochs(real)
        last = real_training.TRIALS * real_training.EPOCHS
        until(
            lambda start=start, epochs=epochs: start.poll() is not None or _epochs(real) > epochs,  # type: ignore[misc]
            TRAINING_SECONDS,
        )
        wanted = chance.randint(min(epochs + 1, last), last)
        until(
            lambda start=start, wanted=wanted: start.poll() is not None or _epochs(real) >= wanted,  # type: ignore[misc]
            TRAINING_SECONDS,
        )
        time.sleep(chance.uniform(0.0, 0.3))
        place.missed &= not _kill(start, victim)
        code = start.wait(TRAINING_SECONDS)
        found += invariants.of_checkpoints(real)
        if code not in (0, -signal.SIGKILL):
            found.append(f"I1: a start whose {victim} was killed ended with {code}: {start.said[-1500:]}")
    if real.begin("--resume").wait(TRAINING_SECONDS) != 0:
        found.append(f"I3: the last start did not end well: {real.starts[-1].said[-1500:]}")
    return found + _as_expected(real, expected)


def _as_expected(place: Place, expected: list[Ended]) -> list[str]:
    found: list[str] = []
    for number, (one, other) in enumerate(zip(real_training.ended(place), expected, strict=True)):
        if one != other:
            found.append(f"I6: trial {number} came to {one}, uninterrupted to {other}")
    trials = read_study(place)[1]
    for trial in trials:
        if trial.outcome.get("state") != "complete":
            found.append(
                f"I1: trial {trial.number} ended so: {trial.outcome}, {trial.facts.get('traceback')}"
            )
    parents, runs = read_runs(place)
    statuses = sorted(run.status for run in runs + parents)
    if statuses != ["FINISHED"] * (len(trials) + 1):
        found.append(f"I7: the runs are {statuses}")
    for run in runs:
        trial = trials[int(run.tags["podium.trial"])]
        if run.curve("val_accuracy") != trial.curve:
            found.append(f"I4: trial {trial.number}: {trial.curve}, in MLflow {run.curve('val_accuracy')}")
        twice = len(run.points) - len({(name, step) for name, step, _ in run.points})
        if twice:
            found.append(f"I2: the run of trial {trial.number} has {twice} values twice")
    return found


def _epochs(place: Place) -> int:
    """Epochs on record so far."""
    return sum(len(trial.curve) for trial in read_study(place)[1])


def _kill(start: Start, victim: str) -> bool:
    """Whether there was something to kill."""
    if victim == "coordinator":
        return start.signal(signal.SIGKILL)
    workers = start.workers() if start.poll() is None else []
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    return bool(workers)
