"""Owns what the report is told of a sweep: frames with fixed columns, and the facts around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from podium.result import Goal
from podium.sweep_file import ObjectiveSettings

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
    parameter. Optional: `finding` and `remedy`, the diagnosis's sentences; `checks`, a list of what the
    recipe's checks came to (see reporting.checks.Checked); `continues`, the number of the trial whose checkpoint a
    trial began with, whose epochs and seconds count among its own; `feasible` (bool, within the
    sweep's limits as far as they were measured); with several objectives `objective.<metric>` for each
    of them and `front` (bool, on the Pareto front).
    `histories`: one row an epoch of a run: `run_id`, `epoch` (from 1), `loss`, `accuracy`, `val_loss`,
    `val_accuracy`, `learning_rate`.
    `importances`: columns `parameter` and `importance`, None where there is none to show, and
    `importance_evaluator` says what made them, or why there are none.
    `objectives`: all of them, in the sweep file's order; `metric` and `goal` are those that the best epoch
    goes by. `limits`: what a feasible trial keeps within, by metric.
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
    objectives: Sequence[ObjectiveSettings] = field(default=())
    limits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        trial_columns = list(TRIAL_COLUMNS)
        if len(self.objectives) > 1:
            trial_columns += ["front", *(f"objective.{each.metric}" for each in self.objectives)]
        for frame, needed in ((self.trials, trial_columns), (self.histories, HISTORY_COLUMNS)):
            missing = [name for name in needed if name not in frame.columns]
            if missing:
                raise ValueError(f"{self.name}: a frame lacks the columns {', '.join(missing)}.")
