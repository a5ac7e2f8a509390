"""Owns what must hold: checks over the append-only history, the study, MLflow and the checkpoints on disk.

I1 no acknowledged trial is lost, and none is given up before its attempts are used. I2 each trial counts
once. I3 the end has the budgeted number of trials. I4 study and MLflow agree. I5 see promotion_rounds.
I6 a checkpoint is old or new, never torn. I7 nothing is RUNNING when nobody runs it. I8 a tracking outage
fails no training.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from records import Run, Trial, by_trial, read_runs, read_study, whole
from sweep_start import DROPOUT, EPOCHS, TRIALS, Place, orphans
from toy_training import accuracy, weights_after

from podium.training import checkpoint

STATUSES = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED", "RUNNING": "KILLED"}
# What a sweep must remember for `confirm`, `rerun` and `--resume`.
FACTS = {"identity", "document", "settings", "parent_run_id", "source_kept", "seconds_used"}
RETRIES = 2


def at_the_end(place: Place, *, failed: dict[str, int] | None = None) -> list[str]:
    """After the last start, which must have ended well. `failed`: how many trials may have, by cause."""
    facts, trials = read_study(place)
    parents, runs = read_runs(place)
    found = [*_of_history(place, trials), *_of_trials(trials, failed or {}), *_of_runs(trials, runs)]
    if place.starts[-1].code != 0:
        found.append(
            f"I3: the last start ended with {place.starts[-1].code}: {place.starts[-1].said[-2000:]}"
        )
    if FACTS - facts.keys():
        found.append(f"I3: the study does not remember {sorted(FACTS - facts.keys())}")
    if trials and trials[0].parameters.get("model.dropout") != DROPOUT:
        found.append(f"I3: trial 0 is not the recipe as it is, but {trials[0].parameters}")
    if [(run.status, run.tags.get("podium.state")) for run in parents] != [("FINISHED", "finished")]:
        found.append(f"I4: parent runs {[(run.status, run.tags.get('podium.state')) for run in parents]}")
    return found + between(place, trials, runs + parents)


def between(
    place: Place, trials: list[Trial] | None = None, runs: list[Run] | None = None, *, closed: bool = True
) -> list[str]:
    """When no start runs. `closed`: the last one was not killed, so that it has closed its records."""
    found = [f"I7: process {pid} trains for nobody" for pid in orphans(place)]
    if closed:
        if runs is None:
            parents, children = read_runs(place)
            runs = parents + children
        running = [run.tags.get("podium.trial", "the parent") for run in runs if run.status == "RUNNING"]
        found += [f"I7: the run of {trial} is RUNNING though nobody runs it" for trial in running]
    for name in ("studies.db", "mlflow.db"):
        file = place.root / "mlruns" / name
        if file.exists() and not whole(file):
            found.append(f"I4: {name} is damaged")
    return found + of_checkpoints(place)


def of_checkpoints(place: Place) -> list[str]:
    """Every checkpoint on disk is whole, and the newest that was saved, or a later one, is there."""
    found: list[str] = []
    saved_in = {Path(each["folder"]): each["epoch"] for each in place.traced("saved")}
    for folder in sorted((place.root / "mlruns" / "checkpoints").glob("*/trial-*/attempt-*")):
        saved = saved_in.get(folder, 0)
        paths = sorted(folder.glob("checkpoint-*"))
        epochs = [0]
        for path in paths:
            try:
                epochs.append(checkpoint.load(path).epoch)
            except checkpoint.Damaged as error:
                found.append(f"I6: {error}")
        # Those of an ended trial are dropped, all of them.
        if paths and max(epochs) < saved:
            found.append(f"I6: {folder.name} was saved after epoch {saved} and holds {epochs}")
    return found


def _of_history(place: Place, trials: list[Trial]) -> list[str]:
    found: list[str] = []
    ended = {trial.number: trial for trial in trials if trial.ended}
    for each in place.acknowledged:
        trial = ended.get(each["trial"])
        if trial is None:
            found.append(f"I1: {each} was acknowledged and the study has not that it ended")
        elif (trial.outcome.get("state"), trial.outcome.get("value")) != (each["state"], each["value"]):
            found.append(f"I1: {each} was acknowledged and is {trial.outcome}")
    times = Counter(each["trial"] for each in place.acknowledged)
    found += [f"I2: trial {number} ended {count} times" for number, count in times.items() if count > 1]
    resumed = [each for each in place.traced("resumed") if each["epoch"] > EPOCHS]
    return found + [f"I6: went on from {each}" for each in resumed]


def _of_trials(trials: list[Trial], failed: dict[str, int]) -> list[str]:
    found: list[str] = []
    if [trial.number for trial in trials] != list(range(TRIALS)) or not all(trial.ended for trial in trials):
        states = [(trial.number, trial.state) for trial in trials]
        found.append(f"I3: the budget is {TRIALS} trials, and there are {states}")
    causes: Counter[str] = Counter()
    for trial in trials:
        cause = trial.outcome.get("cause")
        if trial.state == "FAIL" or cause is not None:
            causes[str(cause)] += 1
            if cause == "lost" and len(trial.losses) <= RETRIES:
                found.append(f"I1: trial {trial.number} was given up after the losses {trial.losses}")
            elif cause != "lost" and causes[str(cause)] > failed.get(str(cause), 0):
                found.append(f"I8: trial {trial.number} failed: {trial.outcome.get('message')}")
        elif trial.ended:
            found += _of_complete(trial)
    found += [
        f"I8: {count} trials should have failed by {cause}, and {causes[cause]} did"
        for cause, count in failed.items()
        if causes[cause] != count
    ]
    return found


def _of_complete(trial: Trial) -> list[str]:
    dropout = float(trial.parameters["model.dropout"])
    expected = {epoch: accuracy(dropout, epoch) for epoch in range(1, EPOCHS + 1)}
    found = []
    if trial.curve != expected:
        found.append(f"I2: trial {trial.number} has the curve {trial.curve}, uninterrupted it is {expected}")
    if trial.value != expected[EPOCHS]:
        found.append(f"I1: trial {trial.number} has the value {trial.value}, not {expected[EPOCHS]}")
    if trial.result.get("final_weights_sha256") != weights_after(dropout, EPOCHS).hex():
        found.append(f"I6: trial {trial.number} ended with other weights than an uninterrupted training")
    return found


def _of_runs(trials: list[Trial], runs: list[Run]) -> list[str]:
    found: list[str] = []
    known = by_trial(runs)
    if sorted(known) != [trial.number for trial in trials]:
        found.append(
            f"I4: MLflow has runs of trials {sorted(known)}, the study {[trial.number for trial in trials]}"
        )
    for trial in trials:
        several = known.get(trial.number, [])
        if len(several) > 1:
            found.append(f"I2: trial {trial.number} has {len(several)} runs")
        for run in several[:1]:
            found += _of_run(trial, run)
    return found


def _of_run(trial: Trial, run: Run) -> list[str]:
    found: list[str] = []
    # Out of memory is told to the study as pruned: its samplers ignore what failed.
    status = "FAILED" if trial.outcome.get("state") == "failed" else STATUSES[trial.state]
    if run.status != status:
        found.append(f"I4: trial {trial.number} is {trial.state}, its run {run.status}")
    if trial.ended and run.tags.get("podium.state") != trial.outcome.get("state"):
        found.append(f"I4: trial {trial.number} is {trial.outcome.get('state')}, its run's tag {run.tags}")
    twice = [each for each, count in Counter((n, s) for n, s, _ in run.points).items() if count > 1]
    if [each for each in twice if each[1] > 0]:
        found.append(f"I2: the run of trial {trial.number} has {twice} twice")
    if run.curve("val_accuracy") != trial.curve:
        found.append(
            f"I4: trial {trial.number}: {trial.curve} in the study, {run.curve('val_accuracy')} in MLflow"
        )
    complete = trial.outcome.get("state") == "complete"
    if complete and run.last("best_val_accuracy") != trial.value:
        found.append(f"I4: trial {trial.number}: {trial.value}, in MLflow {run.last('best_val_accuracy')}")
    return found
