"""Owns how much of a sweep's budget is used, over all workers and restarts."""

from __future__ import annotations

import time

from podium.coordinator.trial import Budget
from podium.engines.base import Engine

SECONDS_USED = "seconds_used"
SECONDS_BETWEEN_NOTES = 10.0


class Spending:
    """Counts wall seconds onto those that the study remembers; a killed coordinator loses the last few."""

    def __init__(self, engine: Engine, budget: Budget) -> None:
        self._engine = engine
        self._budget = budget
        self._started = self._noted = time.monotonic()
        self._seconds_before = float(engine.recall(SECONDS_USED) or 0.0)

    @property
    def seconds(self) -> float:
        """Wall seconds of this sweep over all its starts."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def hours_are_used(self) -> bool:
        """Whether running trials should stop."""
        return self._budget.hours is not None and self.seconds >= self._budget.hours * 3600

    def why_no_more(self, trials: int) -> str:
        """Why no further trial is started when there are so many, '' if one may be."""
        if self.hours_are_used:
            return "the budget's hours are used"
        if self._budget.trials is not None and trials >= self._budget.trials:
            return "the budget's trials are used"
        return ""

    def note(self) -> None:
        """Have the study remember the seconds."""
        self._noted = time.monotonic()
        self._engine.remember(SECONDS_USED, self.seconds)

    def note_if_due(self) -> None:
        """Note the seconds, but not every time."""
        if time.monotonic() - self._noted > SECONDS_BETWEEN_NOTES:
            self.note()
