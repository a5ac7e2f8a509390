"""Owns a trainer without Keras: weights that follow from the recipe, real checkpoints, and failures by order.

Orders and what was really trained are files in the folder that the environment names: for the checks,
not for Podium.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from kill_points import kill_self_at

from podium.errors import SweepError, TrialFailed
from podium.result import EpochEvent, TrainingJob, TrainingResult, Verdict
from podium.training import checkpoint
from podium.training.checkpoint import BestWeights, EpochRecord, TrainingState

FOLDER_VARIABLE = "PODIUM_FAULTS_FOLDER"
BREAK_VARIABLE = "PODIUM_FAULTS_BREAK"
ORDERS, TRACE = "orders.json", "trace.jsonl"


def accuracy(dropout: float, epoch: int) -> float:
    """Best at dropout 0.3, rising with epochs."""
    return (1.0 - (dropout - 0.3) ** 2) * (1.0 - 0.5**epoch)


def weights_after(dropout: float, epochs: int) -> bytes:
    """The toy's weights after so many epochs, however often it was interrupted: 32 bytes."""
    state = repr(dropout).encode()
    for epoch in range(1, epochs + 1):
        state = hashlib.sha256(state + str(epoch).encode()).digest()
    return state


def train(job: TrainingJob, report: Callable[[EpochEvent], Verdict]) -> TrainingResult:
    """As training.train: an epoch is trained, reported, then saved unless the verdict is to prune."""
    number, attempt = (int(part.name.rpartition("-")[2]) for part in (job.folder.parent, job.folder))
    orders = _orders(number, attempt)
    _break_if_told()
    kill_self_at(orders.get("kill"), checkpoint)
    dropout = job.recipe.model.dropout
    state = _resumed(job, number, attempt)
    done = state.epoch if state is not None else 0
    history = list(state.history) if state is not None else []
    status: Literal["finished", "pruned", "interrupted"] = "finished"
    for epoch in range(done + 1, job.epochs + 1):
        trace(what="begin", trial=number, attempt=attempt, epoch=epoch, pid=os.getpid())
        time.sleep(float(orders.get("seconds", 0.0)))
        if orders.get("at") == epoch:
            _misbehave(orders, epoch)
        values = _metrics(accuracy(dropout, epoch))
        history.append(
            EpochRecord(epoch=epoch, metrics=values, seconds=0.01, training_seconds=0.01, images=10)
        )
        verdict = report(EpochEvent(epoch=epoch, metrics=values, seconds=0.01, images=10))
        if verdict is not Verdict.PRUNE:
            _save(job.folder, _state(dropout, epoch, history))
            trace(what="saved", trial=number, attempt=attempt, epoch=epoch, folder=str(job.folder))
        if verdict is not Verdict.CONTINUE:
            status = "pruned" if verdict is Verdict.PRUNE else "interrupted"
            break
    last = history[-1]
    digest = weights_after(dropout, last.epoch).hex()
    return TrainingResult(
        status=status,
        best_epoch=last.epoch,
        metrics=last.metrics,
        epochs=last.epoch,
        seconds=0.01 * last.epoch,
        images_per_second=1_000.0,
        weights_sha256=digest,
        final_weights_sha256=digest,
        parameters=1000,
        device="toy",
        threads=1,
        details={"resumed_after_epoch": str(done)} if done else {},
    )


def trace(**facts: Any) -> None:
    """Append what is really being done, whole or not at all."""
    line = os.open(Path(os.environ[FOLDER_VARIABLE]) / TRACE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(line, (json.dumps(facts) + "\n").encode())
    finally:
        os.close(line)


def _metrics(value: float) -> dict[str, float]:
    loss = 1.0 - value
    return {
        "loss": loss,
        "accuracy": value,
        "val_loss": loss,
        "val_accuracy": value,
        "learning_rate": 1e-3,
    }


def _state(dropout: float, epoch: int, history: list[EpochRecord]) -> TrainingState:
    weights = [np.frombuffer(weights_after(dropout, epoch), dtype=np.uint8)]
    return TrainingState(
        epoch=epoch,
        weights=weights,
        optimizer=[np.array(epoch, dtype=np.int64)],
        seeds=[np.array([1, epoch], dtype=np.uint32)],
        best=BestWeights(epoch=epoch, weights=weights),
        stopping=None,
        counters={},
        stopped=False,
        history=history,
    )


def _orders(number: int, attempt: int) -> dict[str, Any]:
    everything = json.loads((Path(os.environ[FOLDER_VARIABLE]) / ORDERS).read_text())
    orders = {**everything["all"], **everything.get(str(number), {})}
    return orders if attempt <= orders.get("attempts", 99) else dict(everything["all"])


def _resumed(job: TrainingJob, number: int, attempt: int) -> TrainingState | None:
    if job.resume_from is None:
        return None
    state = checkpoint.newest(job.resume_from, last_epoch=job.epochs).state
    if state is not None:
        expected = weights_after(job.recipe.model.dropout, state.epoch)
        if state.weights[0].tobytes() != expected or len(state.history) != state.epoch:
            raise RuntimeError(f"I6: the checkpoint of epoch {state.epoch} is not what was saved")
        trace(what="resumed", trial=number, attempt=attempt, epoch=state.epoch)
    return state


def _save(folder: Path, state: TrainingState) -> None:
    """As training does: a full disk is not the trial's fault."""
    try:
        checkpoint.save(state, folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise SweepError(
            f"no space left on the disk of {folder}; the epoch that was being saved is lost",
            remedy="Make space, then go on with --resume.",
        ) from error


def _misbehave(orders: dict[str, Any], epoch: int) -> None:
    match orders["do"]:
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(600)
        case "nan":
            raise TrialFailed(f"loss is nan at the end of epoch {epoch}.", cause="nan", traceback="toy")
        case "memory":
            raise MemoryError("the toy is full")
        case "eat":
            # The kernel kills it: the group allows less than this.
            (Path(orders["group"]) / "cgroup.procs").write_text(str(os.getpid()))
            ballast = bytearray(os.urandom(1)) * int(orders["bytes"])
            raise RuntimeError(f"the kernel let {len(ballast)} bytes pass")


def _break_if_told() -> None:
    """Take away the rename, to see that the harness notices: a checkpoint is then written in its place."""
    if os.environ.get(BREAK_VARIABLE) != "rename":
        return

    def save_in_place(state: TrainingState, folder: Path) -> Path:
        target = folder / f"checkpoint-{state.epoch:04d}"
        target.mkdir(parents=True, exist_ok=True)
        checkpoint._write(state, target)
        checkpoint._drop_old(folder, newest=state.epoch)
        return target

    checkpoint.save = save_in_place


if (
    FOLDER_VARIABLE in os.environ
):  # a worker imports this by name; who made it, did so before there was a folder
    trace(what="worker", pid=os.getpid())
