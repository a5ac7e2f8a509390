"""Owns what every engine answers from its study's record alone."""

from __future__ import annotations

from podium.engines.base import Scalar, TrialRecord
from podium.engines.study import Record


class RecordedEngine:
    """The half of the Engine protocol that does not depend on how trials are proposed."""

    _record: Record

    def trials(self) -> list[TrialRecord]:
        """All trials handed out, in order."""
        return self._record.trials()

    def best(self) -> list[int]:
        """Numbers of the best complete, feasible trials: all ties, or the Pareto front."""
        return self._record.best()

    def remember(self, key: str, value: Scalar) -> None:
        """Keep a fact about the study."""
        self._record.remember(key, value)

    def recall(self, key: str) -> Scalar:
        """A fact about the study, None if there is none."""
        return self._record.recall(key)

    def note(self, number: int, key: str, value: Scalar) -> None:
        """Keep a fact about a trial."""
        self._record.note(number, key, value)

    def close(self) -> None:
        """Give the connections back."""
        self._record.close()
