"""Owns the engine that hands out a fixed list: what `train`, `confirm` and `rerun` use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from podium.engines.base import Done, Outcome, Proposal, Scalar
from podium.engines.recorded import RecordedEngine
from podium.engines.study import IN_MEMORY, Record, optuna_state, study_exists
from podium.errors import SweepError
from podium.result import Goal
from podium.search_space import Parameter


class ListedEngine(RecordedEngine):
    """Hands out proposals in order, each once; never prunes. Opens the study if it is there already."""

    def __init__(
        self,
        proposals: Sequence[Mapping[str, Scalar]],
        *,
        space: Mapping[str, Parameter] | None = None,
        study_name: str,
        study_url: str = IN_MEMORY,
        goal: Goal = "maximize",
        epochs: int | None = None,
        read_only: bool = False,
    ) -> None:
        """`proposals`: parameters of each trial; `epochs`: of each, if not the recipe's; `space`: what they are of.

        Unless `read_only`, this process is the study's only writer.
        Raises: SweepError if the study holds other trials.
        """
        self._proposals = [dict(parameters) for parameters in proposals]
        self._epochs = epochs
        self._space = space or {}
        create = study_url == IN_MEMORY or not study_exists(study_url, study_name)
        self._record = Record(study_name, study_url, goals=[goal], create=create, read_only=read_only)
        for trial, parameters in zip(self._record.trials(), self._proposals, strict=False):
            if dict(trial.parameters) != parameters:
                self._record.close()
                raise SweepError(
                    f"trial {trial.number} of study '{study_name}' was {dict(trial.parameters)}, "
                    f"and now the list says {parameters}."
                )

    def ask(self) -> Proposal | Done:
        """The next of the list."""
        number = self._record.next_number
        if number >= len(self._proposals):
            return Done(f"all {len(self._proposals)} of the list are handed out")
        proposal = Proposal(number=number, parameters=self._proposals[number], epochs=self._epochs)
        self._start_trial(proposal, self._space)
        return proposal

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Keep the value; never prunes."""
        self._record.report(number, epoch, value)
        return False

    def tell(self, number: int, outcome: Outcome) -> None:
        """Record how the trial ended. Raises: SweepError if it had ended already."""
        self._record.set_outcome(number, outcome)
        values = None if outcome.value is None or outcome.state != "complete" else [outcome.value]
        self._record.finish(number, optuna_state(outcome), values)
