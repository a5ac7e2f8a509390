"""Owns trainers that run without Keras in milliseconds; `behaviour` in model.parameters says how they misbehave."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from podium.errors import SweepError, TrialFailed
from podium.recipe import Recipe
from podium.recipe_sections import ModelSettings
from podium.result import EpochEvent, TrainingArrays, TrainingJob, TrainingResult, Verdict

TOY = "toy_trainers:train"
FOLDER = Path(__file__).parent


def toy_job(folder: Path, *, epochs: int = 2, behaviour: str = "learn", seconds: float = 0.0) -> TrainingJob:
    """A job for `train`: `seconds` is how long each epoch takes. The arrays do not exist."""
    settings = ModelSettings(parameters={"behaviour": behaviour, "seconds": seconds})
    nothing = folder / "no-such-file"
    arrays = TrainingArrays(
        images=nothing,
        labels=nothing,
        split=nothing,
        train_digest="",
        split_digest="",
        class_names=("a", "b"),
    )
    return TrainingJob(recipe=Recipe(model=settings), arrays=arrays, folder=folder, epochs=epochs)


def train(job: TrainingJob, report: Callable[[EpochEvent], Verdict]) -> TrainingResult:
    """Validation accuracy is epoch / (epoch + 1)."""
    parameters = job.recipe.model.parameters
    behaviour = str(parameters["behaviour"])
    job.folder.mkdir(parents=True, exist_ok=True)
    note = job.folder / "pid.part"
    note.write_text(str(os.getpid()))
    note.rename(job.folder / "pid")
    (job.folder / "facts.json").write_text(json.dumps(_facts()))
    _misbehave(behaviour)
    status = "finished"
    epoch = 0
    for epoch in range(1, job.epochs + 1):
        _pass_time(behaviour, float(parameters["seconds"] or 0.0))
        seconds = 0.1 if behaviour == "long_epochs" else 0.001
        verdict = report(EpochEvent(epoch=epoch, metrics=_metrics(epoch), seconds=seconds, images=10))
        if verdict is not Verdict.CONTINUE:
            status = "pruned" if verdict is Verdict.PRUNE else "interrupted"
            break
    return TrainingResult(
        status=status,
        best_epoch=epoch,
        metrics=_metrics(epoch),
        epochs=epoch,
        seconds=0.001 * epoch,
        images_per_second=10_000.0,
        weights_sha256="0" * 64,
        final_weights_sha256="0" * 64,
        parameters=0,
        device="toy",
        threads=1,
    )


def _metrics(epoch: int) -> dict[str, float]:
    accuracy = epoch / (epoch + 1)
    return {"loss": 1 / epoch, "accuracy": accuracy, "val_loss": 1 / epoch, "val_accuracy": accuracy}


def _facts() -> dict[str, object]:
    return {
        "modules": sorted(sys.modules),
        "environment": dict(os.environ),
        "cores": sorted(os.sched_getaffinity(0)),
        "group": os.getpgrp(),
    }


def _misbehave(behaviour: str) -> None:
    match behaviour:
        case "raise":
            raise ValueError("the toy broke " + "x" * 50_000)
        case "diverge":
            raise TrialFailed("loss is nan after epoch 1.", cause="nan", traceback="where it happened")
        case "fill_disk":
            raise SweepError("no space left.", remedy="Make space.")
        case "exhaust":
            raise MemoryError("the toy is full")
        case "exit":
            sys.exit(5)
        case "crash":
            print("last words of the toy", flush=True)
            os._exit(7)
        case "fork":
            multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True).start()
        case "grow":
            sys.toy_ballast = bytearray(os.urandom(1) * 300_000_000)
        case "ignore_death_signal":
            ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)


def _pass_time(behaviour: str, seconds: float) -> None:
    if behaviour == "hold_interpreter":
        ctypes.PyDLL(None).sleep(int(seconds))  # as a computation that never lets another thread run
    else:
        time.sleep(seconds)
