"""Owns what every engine answers from its study's record alone."""

from __future__ import annotations

from collections.abc import Mapping

from podium.engines.base import Proposal, Scalar, TrialRecord
from podium.engines.optuna_space import distribution, holds
from podium.engines.study import Record
from podium.search_space import Parameter


class RecordedEngine:
    """The half of the Engine protocol that does not depend on how trials are proposed."""

    _record: Record

    def _start_trial(self, proposal: Proposal, space: Mapping[str, Parameter]) -> None:
        """Put a trial on record; as Optuna's own, for its dashboard and importance, if it is a point of the space."""
        choices = {key: distribution(space[key]) for key in proposal.parameters if key in space}
        values = proposal.parameters
        if choices.keys() == values.keys() and all(holds(choices[key], values[key]) for key in choices):
            self._record.start(proposal, params=values, distributions=choices)
        else:
            self._record.start(proposal)

    def trials(self) -> list[TrialRecord]:
        """All trials handed out, in order."""
        return self._record.trials()

    def trial(self, number: int) -> TrialRecord:
        """One trial that was handed out."""
        return self._record.trial(number)

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
