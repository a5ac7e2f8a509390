"""Owns the list of points at which a process is killed: before and after every durable step."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

# The steps of `podium sweep` that leave something behind, in the order in which they first come.
SWEEP_STEPS = (
    "study.create",  # the study's row, then what it was made with
    "engine.remember",
    "recorder.open_parent",
    "recorder.reopen_parent",
    "engine.ask",
    "recorder.start_run",
    "engine.note",
    "executor.submit",
    "engine.report",
    "recorder.epoch",
    "executor.answer",
    "engine.tell",
    "recorder.end_run",
    "spool.append",
    "delivery.apply",
    "spool.acknowledge",
    "records.drop_checkpoints",
    "agreement.reconcile",
    "recorder.end_parent",
)
# The steps of `podium promote`.
PROMOTE_STEPS = (
    "ledger.intend",
    "process.evaluate",
    "ledger.record",
    "promote.log_model",
    "promote.log_files",
    "registry.create_version",
    "client.set_registered_model_alias",
)
# In the worker: the steps of saving an epoch, `json` being state and manifest, `flush` what follows the rename.
WORKER_STEPS = (
    "checkpoint._write",
    "checkpoint._write_json",
    "checkpoint._flush",
    "checkpoint._drop_old",
    "checkpoint.save",
)


def points(steps: tuple[str, ...]) -> list[str]:
    """Both sides of each step."""
    return [f"{side} {step}" for step in steps for side in ("before", "after")]


SWEEP_POINTS, PROMOTE_POINTS, WORKER_POINTS = (
    points(steps) for steps in (SWEEP_STEPS, PROMOTE_STEPS, WORKER_STEPS)
)
# How often a step comes up in a round at the least, so that a kill that counts so far does happen.
ONCE = ("study.create", "recorder.open_parent", "recorder.reopen_parent", "recorder.end_parent")
A_TRIAL = ("engine.ask", "recorder.start_run", "executor.submit", "engine.tell", "recorder.end_run")


def most_times(point: str, *, trials: int) -> int:
    """The largest count at which a kill at this point is sure to happen."""
    step = point.partition(" ")[2]
    if step in (*ONCE, "agreement.reconcile"):
        return 1
    if step in (*A_TRIAL, "records.drop_checkpoints"):
        return trials
    return 2 if step == "spool.acknowledge" else 2 * trials


def kill_at(point: str, count: int, parts: dict[str, Any]) -> None:
    """Have this process kill itself when it comes to a point for the `count`th time. `parts` holds classes."""
    side, _, step = point.partition(" ")
    part, _, name = step.partition(".")
    _wrap(parts[part], name, side, count)


def kill_self_at(order: dict[str, Any] | None, checkpoint: Any) -> None:
    """The same in a worker, for one attempt: the steps of saving. `both`: its coordinator dies with it."""
    if order is not None:
        side, _, step = str(order["point"]).partition(" ")
        victims = [os.getppid()] if order["both"] else []
        _wrap(checkpoint, step.partition(".")[2], side, int(order["count"]), victims)


def _wrap(part: Any, name: str, side: str, count: int, victims: Sequence[int] = ()) -> None:
    real: Callable[..., Any] = getattr(part, name)
    calls = 0

    def killing(*values: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        mine = calls == count
        if side == "before" and mine:
            _die(victims)
        answer = real(*values, **settings)
        if side == "after" and mine:
            _die(victims)
        return answer

    setattr(part, name, killing)


def _die(victims: Sequence[int]) -> None:
    for process in (*victims, os.getpid()):
        os.kill(process, signal.SIGKILL)
