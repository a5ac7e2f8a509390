"""Owns a trainer without Keras whose accuracy follows from the recipe, that checkpoints, and that fails by order.

Orders are a file in the study's folder, by trial number: what goes wrong there, in which attempts.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from podium.errors import SweepError, TrialFailed
from podium.result import EpochEvent, TrainingJob, TrainingResult, Verdict

TRAINER = "search_toys:train"
FOLDER = Path(__file__).parent
ORDERS = "orders.json"
TRACE = "trace.jsonl"


def accuracy(dropout: float, epoch: int) -> float:
    """Best at dropout 0.3, rising with epochs."""
    return (1.0 - (dropout - 0.3) ** 2) * (1.0 - 0.5**epoch)


def chain(dropout: float, epochs: int) -> str:
    """What the toy's weights hash to after so many epochs, however often it was interrupted."""
    state = f"{dropout!r}"
    for epoch in range(1, epochs + 1):
        state = hashlib.sha256(f"{state}/{epoch}".encode()).hexdigest()
    return state


def train(job: TrainingJob, report: Callable[[EpochEvent], Verdict]) -> TrainingResult:
    """As training.train: an epoch is reported, then saved; a pruned one is not saved."""
    study, number = job.folder.parent.parent, int(job.folder.parent.name.rpartition("-")[2])
    attempt = int(job.folder.name.rpartition("-")[2])
    orders = _orders(study, number, attempt)
    job.folder.mkdir(parents=True, exist_ok=True)
    if "raise" in orders:
        raise ValueError(orders["raise"])
    if "memory" in orders:
        raise MemoryError("the toy is full")
    if "disk" in orders:
        raise SweepError("no space left.", remedy="Make space.")
    dropout = job.recipe.model.dropout
    state, done = _resume(job)
    status, history = "finished", [accuracy(dropout, epoch) for epoch in range(1, done + 1)]
    for epoch in range(done + 1, job.epochs + 1):
        _trace(study, trial=number, attempt=attempt, epoch=epoch, pid=os.getpid())
        time.sleep(float(orders.get("seconds", 0.0)))
        if orders.get("hang_at") == epoch:
            time.sleep(600)
        if orders.get("nan_at") == epoch:
            raise TrialFailed(
                f"loss is nan at the end of epoch {epoch}.", cause="nan", traceback="in the toy"
            )
        when = orders.get("kill_when", "training") if orders.get("kill_at") == epoch else None
        _die(when == "training")
        state = hashlib.sha256(f"{state or repr(dropout)}/{epoch}".encode()).hexdigest()
        value = accuracy(dropout, epoch)
        history.append(value)
        verdict = report(EpochEvent(epoch=epoch, metrics=_metrics(value), seconds=0.01, images=10))
        _die(when == "reported")
        if verdict is not Verdict.PRUNE:
            _save(job.folder, epoch, state, die_half_way=when == "written")
        _die(when == "saved")
        if verdict is not Verdict.CONTINUE:
            status = "pruned" if verdict is Verdict.PRUNE else "interrupted"
            break
    best = max(range(len(history)), key=history.__getitem__)
    return TrainingResult(
        status=status,
        best_epoch=best + 1,
        metrics=_metrics(history[best]),
        epochs=len(history),
        seconds=0.01 * len(history),
        images_per_second=1_000.0,
        weights_sha256=chain(dropout, best + 1),
        final_weights_sha256=state,
        parameters=1000 * job.recipe.model.depth,
        device="toy",
        threads=1,
        details={"resumed_after_epoch": str(done)} if done else {},
    )


def _metrics(value: float) -> dict[str, float]:
    return {
        "loss": 1.0 - value,
        "accuracy": value,
        "val_loss": 1.0 - value,
        "val_accuracy": value,
        "learning_rate": 1e-3,
    }


def _orders(study: Path, number: int, attempt: int) -> dict[str, Any]:
    file = study / ORDERS
    everything = json.loads(file.read_text()) if file.exists() else {}
    orders = {**everything.get("all", {}), **everything.get(str(number), {})}
    return orders if attempt <= orders.get("attempts", 99) else {}


def _resume(job: TrainingJob) -> tuple[str, int]:
    if job.resume_from is None:
        return "", 0
    saved = [int(path.name.rpartition("-")[2]) for path in job.resume_from.glob("checkpoint-*")]
    usable = [epoch for epoch in saved if epoch <= job.epochs]
    if not usable:
        return "", 0
    content = json.loads((job.resume_from / f"checkpoint-{max(usable):04d}" / "state.json").read_text())
    return content["state"], content["epoch"]


def _die(now: bool) -> None:
    if now:
        os.kill(os.getpid(), signal.SIGKILL)


def _save(folder: Path, epoch: int, state: str, *, die_half_way: bool) -> None:
    temporary = folder / f".checkpoint-{epoch:04d}"
    temporary.mkdir(exist_ok=True)
    (temporary / "state.json").write_text(json.dumps({"epoch": epoch, "state": state}))
    _die(die_half_way)
    temporary.rename(folder / f"checkpoint-{epoch:04d}")


def _trace(study: Path, **facts: int) -> None:
    """What was really trained, append-only: for the checks, not for Podium."""
    line = os.open(study / TRACE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(line, (json.dumps(facts) + "\n").encode())
    os.close(line)
