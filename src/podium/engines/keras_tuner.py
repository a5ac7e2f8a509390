"""Owns the KerasTuner engine: an Oracle driven by create_trial / update_trial / end_trial."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from podium.engines.base import Done, Outcome, Proposal, Scalar, Wait
from podium.engines.keras_tuner_oracles import (
    METRIC,
    calling,
    decoded,
    encoded,
    get_state,
    make_oracle,
    new_trial,
    set_state,
)
from podium.engines.optuna_space import point_key
from podium.engines.recorded import RecordedEngine
from podium.engines.study import OUTCOME, Record, optuna_state
from podium.result import Goal, better
from podium.search_space import Parameter
from podium.sweep_file import KerasTunerSettings

STATE = "podium.oracle"


class KerasTunerEngine(RecordedEngine):
    """Proposes by a KerasTuner Oracle, whose trials have ids of its own.

    The study is the record; the Oracle's state is one document beside it, written at once. What a kill
    leaves between the two is made good when the engine is opened: a trial that the Oracle knows alone is
    handed out next, an end that the study knows alone is told to the Oracle.
    """

    def __init__(
        self,
        settings: KerasTunerSettings,
        space: Mapping[str, Parameter],
        *,
        given: Sequence[Mapping[str, Scalar]],
        goal: Goal,
        epochs: int,
        study_name: str,
        study_url: str,
        create: bool,
    ) -> None:
        """`given`: parameters of the first trials, the baseline first; `epochs`: those of a whole training."""
        self._settings = settings
        self._space = space
        self._goal = goal
        self._record = Record(study_name, study_url, goals=[goal], create=create, given=given)
        self._given = self._record.given
        with calling():
            self._oracle = make_oracle(settings, space, goal=goal, epochs=epochs)
        self._taken = {point_key(trial.parameters) for trial in self._record.trials()}
        kept = self._record.storage.get_study_system_attrs(self._record.study_id).get(STATE)
        self._ids: dict[int, str] = {}
        self._kept = self._state() if kept is None else str(kept)
        self._restore()
        self._catch_up()

    def ask(self) -> Proposal | Wait | Done:
        """The next configuration; Wait where the Oracle needs another result first."""
        number = self._record.next_number
        if number not in self._ids:
            if number < len(self._given):
                self._add_given(number)
            else:
                refusal = self._create(number)
                if refusal is not None:
                    return refusal
            self._commit()
        return self._start(number)

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Record the objective after an epoch. KerasTuner stops no trial before its epochs are over."""
        self._record.report(number, epoch, value)
        return False

    def tell(self, number: int, outcome: Outcome) -> None:
        """Record how the trial ended. Raises: SweepError if it had ended already."""
        if outcome.state == "complete" and outcome.value is None:
            raise ValueError(f"trial {number} is complete without a value")
        self._record.set_outcome(number, outcome)
        values = [outcome.value] if outcome.state == "complete" and outcome.value is not None else None
        self._record.finish(number, optuna_state(outcome), values)
        self._tell_oracle(number, outcome)
        self._commit()

    def _start(self, number: int) -> Proposal:
        """Put the Oracle's trial on record."""
        if number < len(self._given):
            proposal = Proposal(number=number, parameters=self._given[number])
        else:
            values = self._oracle.trials[self._ids[number]].hyperparameters.values
            parent = values.get("tuner/trial_id")
            numbers = {trial_id: known for known, trial_id in self._ids.items()}
            proposal = Proposal(
                number=number,
                parameters=decoded(self._space, values),
                epochs=values.get("tuner/epochs"),
                first_epoch=values.get("tuner/initial_epoch", 0),
                parent=None if parent is None else numbers[parent],
            )
        self._start_trial(proposal, self._space)
        self._taken.add(point_key(proposal.parameters))
        return proposal

    def _add_given(self, number: int) -> None:
        """A trial that is not the Oracle's: it is told of it where it can learn."""
        self._ids[number] = f"given-{number}"
        values = encoded(self._space, self._given[number])
        if values is None or self._settings.oracle == "grid":
            return
        trial = new_trial(self._oracle, self._ids[number], values, status="RUNNING")
        self._oracle.trials[trial.trial_id] = trial
        self._oracle.ongoing_trials[_worker(number)] = trial
        self._oracle._record_values(trial)  # else it would be proposed again

    def _create(self, number: int) -> Wait | Done | None:
        """Have the Oracle make trial `number`; else why not, with the Oracle as it was."""
        randomly = False
        while True:
            trial = self._create_once(number, randomly=randomly)
            values = trial.hyperparameters.values
            if trial.status == "RUNNING" and (
                "tuner/trial_id" in values or point_key(decoded(self._space, values)) not in self._taken
            ):
                self._ids[number] = trial.trial_id
                return None
            if trial.status == "RUNNING" and self._settings.oracle == "grid":
                self._end(trial, None)  # the baseline's point: the grid passes over it
                continue
            self._restore()
            if trial.status == "IDLE":
                return Wait()
            if trial.status == "STOPPED" or randomly:
                return Done(f"the '{self._settings.oracle}' Oracle has proposed all that it will")
            randomly = True

    def _create_once(self, number: int, *, randomly: bool) -> Any:
        """One call of create_trial. `randomly`: not where a model of the results says, but anywhere new."""
        oracle = self._oracle
        if self._settings.oracle == "bayesian":
            # Its random state is no part of its saved state; made anew, a resumed sweep goes on as it would have.
            seed = np.random.SeedSequence([self._settings.seed, number]).generate_state(1)[0]
            oracle._random_state = np.random.RandomState(seed)
            initial_points, oracle.num_initial_points = (
                oracle.num_initial_points,
                len(oracle.trials) + 1 if randomly else oracle.num_initial_points,
            )
        with calling(on_one_thread=self._settings.oracle == "bayesian"):
            trial = oracle.create_trial(_worker(number))
        if self._settings.oracle == "bayesian":
            oracle.num_initial_points = initial_points
        return trial

    def _tell_oracle(self, number: int, outcome: Outcome) -> None:
        trial = self._oracle.ongoing_trials.get(_worker(number))
        if trial is None:
            return  # a given one that it could not learn from
        value = outcome.value if outcome.state != "failed" else None
        if outcome.cause == "memory" and self._settings.oracle == "bayesian":
            value = self._worst()  # so that the search moves away; a failure it would ignore
        self._end(trial, value)

    def _end(self, trial: Any, value: float | None) -> None:
        """End one of the Oracle's trials with its score, or as failed."""
        trial.status = "FAILED" if value is None else "COMPLETED"
        with calling():
            if value is not None:
                self._oracle.update_trial(trial.trial_id, {METRIC: value})
            self._oracle.end_trial(trial)

    def _worst(self) -> float | None:
        scores = [trial.score for trial in self._oracle.trials.values() if trial.score is not None]
        worst: float | None = None
        for score in scores:
            if worst is None or better(worst, score, self._goal):
                worst = float(score)
        return worst

    def _catch_up(self) -> None:
        """Tell the Oracle of trials that the study says have ended."""
        ended = {trial.number: trial for trial in self._record.frozen() if trial.state.is_finished()}
        behind = [number for number in ended if _worker(number) in self._oracle.ongoing_trials]
        for number in behind:
            self._tell_oracle(number, Outcome(**ended[number].user_attrs[OUTCOME]))
        if behind:
            self._commit()

    def _commit(self) -> None:
        self._kept = self._state()
        self._record.storage.set_study_system_attr(self._record.study_id, STATE, self._kept)

    def _state(self) -> str:
        return json.dumps({"ids": self._ids, "oracle": get_state(self._oracle)}, default=float)

    def _restore(self) -> None:
        """Bring the Oracle back to what was last committed."""
        kept = json.loads(self._kept)
        self._ids = {int(number): trial_id for number, trial_id in kept["ids"].items()}
        set_state(self._oracle, kept["oracle"])


def _worker(number: int) -> str:
    return f"trial-{number}"
