"""Owns what the report is told of a sweep: frames with fixed columns, and the facts around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from podium.result import Goal

TRIAL_COLUMNS = (
    "trial",
    "run_id",
    "state",
    "value",
    "seconds",
    "epochs",
    "epochs_planned",
    "cause",
    "message",
    "diagnosis",
)
HISTORY_COLUMNS = ("run_id", "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """All that is reported of one sweep.

    `trials`: one row a trial. `trial` (int), `run_id`, `state` (complete, pruned, running or failed),
    `value` (of the objective at the best epoch, NaN where there is none), `seconds` of training, `epochs`
    trained, `epochs_planned`, `cause` and `message` (of a failed trial), `diagnosis` (a tag of
    `diagnose`), and a column `params.<dotted key>` for each parameter, missing where a trial has no such
    parameter. Optional: `finding` and `remedy`, the diagnosis's sentences.
    `histories`: one row an epoch of a run: `run_id`, `epoch` (from 1), `loss`, `accuracy`, `val_loss`,
    `val_accuracy`, `learning_rate`.
    `importances`: columns `parameter` and `importance`, None where there is none to show, and
    `importance_evaluator` says what made them, or why there are none.
    `log_parameters`: keys that are searched on a log scale. `facts`: more to say, as (name, text).
    Raises: ValueError if a column is missing.
    """

    name: str
    metric: str
    goal: Goal
    trials: pd.DataFrame
    histories: pd.DataFrame
    importances: pd.DataFrame | None
    importance_evaluator: str
    commands: Sequence[str]
    question: str | None = None
    compare_url: str | None = None
    parent_run_id: str | None = None
    log_parameters: frozenset[str] = frozenset()
    facts: Sequence[tuple[str, str]] = field(default=())

    def __post_init__(self) -> None:
        for frame, needed in ((self.trials, TRIAL_COLUMNS), (self.histories, HISTORY_COLUMNS)):
            missing = [name for name in needed if name not in frame.columns]
            if missing:
                raise ValueError(f"{self.name}: a frame lacks the columns {', '.join(missing)}.")
