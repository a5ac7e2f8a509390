"""Owns the list of points at which a process is killed: before and after every durable step."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

# The steps that leave something behind, by the part of the coordinator that takes them.
STEPS = {
    "engine": ("ask", "note", "report", "tell", "remember"),
    "recorder": ("start_run", "epoch", "end_run"),
    "executor": ("submit", "answer"),
}
COORDINATOR_POINTS = [
    f"{side} {part}.{step}" for part, steps in STEPS.items() for step in steps for side in ("before", "after")
]
# In the toy trainer: an epoch is trained, reported, saved (written, then renamed).
WORKER_POINTS = ["training", "reported", "written", "saved"]


def kill_at(point: str, count: int, parts: dict[str, Any]) -> None:
    """Have this process kill itself when it comes to a coordinator's point for the `count`th time."""
    side, _, step = point.partition(" ")
    part, _, name = step.partition(".")
    real: Callable[..., Any] = getattr(parts[part], name)
    calls = 0

    def killing(*values: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if side == "before" and calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = real(*values, **settings)
        if side == "after" and calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(parts[part], name, killing)
