"""Owns taking a safeguard away, to see that the harness notices: `run_rounds.py --break lock`."""

from __future__ import annotations

import os
from typing import Any

import toy_training

import podium.coordinator.loop
import podium.engines.patient_storage
import podium.engines.study_lock
import podium.live
import podium.session.agreement

# What is taken away, and a fault whose rounds must then fail.
BREAKAGES = {
    "retry": "before checkpoint.save",
    "lock": "SIGSTOP of the coordinator and a second start",
    "rename": "before checkpoint._write_json",
    "reconcile": "after engine.tell",
    "patience": "PostgreSQL crashes",
}


def apply(name: str) -> None:
    """Break it in this process and those that it starts."""
    os.environ[toy_training.BREAK_VARIABLE] = name
    if name == "retry":

        def give_up(self: Any, trial: Any, failure: Any) -> None:
            self._fail(trial, failure)

        podium.coordinator.loop.Coordinator._handle_loss = give_up  # type: ignore[method-assign]
    elif name == "lock":
        podium.live._take = lambda handle: True
        study_lock: Any = podium.engines.study_lock
        study_lock._TRY = "SELECT %s IS NOT NULL"
    elif name == "patience":
        podium.engines.patient_storage.PATIENCE_SECONDS = 0.0
    elif name == "reconcile":
        agreement: Any = podium.session.agreement
        agreement.reconcile = lambda *_: []
