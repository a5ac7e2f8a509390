"""Owns how much of a sweep's budget is used, over all workers and restarts."""

from __future__ import annotations

import time

from podium.coordinator.trial import Budget
from podium.coordinator.trial_records import TrialRecords
from podium.engines.base import Engine

SECONDS_USED = "seconds_used"
SECONDS_BETWEEN_NOTES = 10.0


class Spending:
    """Counts wall seconds onto those that the study remembers (a killed coordinator loses the last few), and
    takes trials and epochs from what is on record.
    """

    def __init__(self, engine: Engine, records: TrialRecords, budget: Budget) -> None:
        self._engine = engine
        self._records = records
        self._budget = budget
        self._started = self._noted = time.monotonic()
        self._seconds_before = float(engine.recall(SECONDS_USED) or 0.0)

    @property
    def seconds(self) -> float:
        """Wall seconds of this sweep over all its starts."""
        return self._seconds_before + time.monotonic() - self._started

    def why_no_epoch(self, in_training: int) -> str:
        """What of the budget is used so that no trial starts another epoch, '' if one may.

        `in_training`: epochs that are being trained now; each is taken for one that will be on record.
        """
        if self._budget.hours is not None and self.seconds >= self._budget.hours * 3600:
            return "the budget's hours"
        if self._budget.epochs is not None and self._records.epochs + in_training >= self._budget.epochs:
            return "the budget's epochs"
        return ""

    def why_no_trial(self, in_training: int) -> str:
        """Why no further trial is asked for, '' if one may be."""
        used = self.why_no_epoch(in_training)
        if used:
            return f"{used} are used"
        if self._budget.trials is not None and len(self._records) >= self._budget.trials:
            return "the budget's trials are used"
        patience = self._budget.no_improvement
        if patience is not None and self._records.since_best() >= patience:
            return f"no new best in {patience} trials"
        return ""

    def note(self) -> None:
        """Have the study remember the seconds."""
        self._noted = time.monotonic()
        self._engine.remember(SECONDS_USED, self.seconds)

    def note_if_due(self) -> None:
        """Note the seconds, but not every time."""
        if time.monotonic() - self._noted > SECONDS_BETWEEN_NOTES:
            self.note()
