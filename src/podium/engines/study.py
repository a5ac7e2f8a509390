"""Owns the durable record of a study: the trials of every engine, kept as Optuna trials in one storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, InMemoryStorage, get_storage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from podium.engines.base import Outcome, Proposal, Scalar, TrialRecord, TrialState
from podium.engines.patient_storage import PatientStorage
from podium.engines.storage import IN_MEMORY as IN_MEMORY
from podium.engines.storage import close, connect, is_there, lead, opened
from podium.engines.storage import prepare_storage as prepare_storage
from podium.errors import SweepError
from podium.result import FailureCause, Goal
from podium.stores import redacted

PROPOSAL = "podium.proposal"
OUTCOME = "podium.outcome"
VERDICT = "podium.pruned_at"
GIVEN = "podium.given"
OWN_PREFIX = "podium."
_STATES: dict[OptunaState, TrialState] = {
    OptunaState.RUNNING: "running",
    OptunaState.WAITING: "running",
    OptunaState.COMPLETE: "complete",
    OptunaState.PRUNED: "pruned",
    OptunaState.FAIL: "failed",
}


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """A study's name and what was remembered about it."""

    name: str
    facts: Mapping[str, Scalar]


def study_exists(study_url: str, name: str) -> bool:
    """Whether the store holds a study of this name; False if there is no store yet."""
    return any(study.name == name for study in list_studies(study_url))


def list_studies(study_url: str) -> list[StudyFacts]:
    """All studies of the store in the order of their making, with their remembered facts."""
    if not is_there(study_url):
        return []
    with opened(study_url) as storage:
        return [
            StudyFacts(name=study.study_name, facts=_facts(study.user_attrs))
            for study in sorted(storage.get_all_studies(), key=lambda study: study._study_id)
        ]


class Record:
    """One study in the storage: what all engines share. Every call is durable when it returns."""

    def __init__(
        self,
        name: str,
        study_url: str,
        *,
        goals: Sequence[Goal],
        create: bool,
        given: Sequence[Mapping[str, Scalar]] = (),
        read_only: bool = False,
    ) -> None:
        """Make the study (`create`) or open it. `given`: parameters of its first trials; kept with the study.

        Unless `read_only`, this process is the study's only writer until `close`.
        Raises: SweepError if it is there although it should be made, or is not although it should be;
        InvalidInput if another process writes it, as far as the store tells (a file does not).
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.name = name
        # Trials that have not ended, their epochs on record, and how many trials there are: this process alone writes
        # them, so they are read once.
        self._open: dict[int, set[int]] = {}
        self._made: int | None = None
        if study_url == IN_MEMORY:
            self.storage: BaseStorage = InMemoryStorage()
        else:
            self.storage = get_storage(connect(study_url)) if read_only else lead(study_url, name)
        try:
            if create:
                directions = [_direction(goal) for goal in goals]
                self.study_id = self.storage.create_new_study(directions, name)
            else:
                self.study_id = self.storage.get_study_id_from_name(name)
            if isinstance(self.storage, PatientStorage):
                self.storage.write_only(self.study_id)
            # Also for one whose maker was killed right here: without them it would have no baseline.
            if given and GIVEN not in self.storage.get_study_system_attrs(self.study_id):
                self.storage.set_study_system_attr(self.study_id, GIVEN, [dict(first) for first in given])
        except optuna.exceptions.DuplicatedStudyError as error:
            self.close()
            raise SweepError(f"a study '{name}' is there already.", remedy="Go on with --resume.") from error
        except KeyError as error:
            self.close()
            raise SweepError(
                f"no study '{name}' in {redacted(study_url)}.", remedy="Start it without --resume."
            ) from error

    @property
    def given(self) -> list[dict[str, Scalar]]:
        """Parameters of the first trials, decided when the study was made."""
        kept = self.storage.get_study_system_attrs(self.study_id).get(GIVEN)
        return cast(list[dict[str, Scalar]], kept or [])

    def close(self) -> None:
        """Give the connections back."""
        close(self.storage)

    def study(
        self, sampler: optuna.samplers.BaseSampler, pruner: optuna.pruners.BasePruner | None = None
    ) -> optuna.Study:
        """The study as Optuna's own object, reading the store afresh."""
        return optuna.load_study(
            study_name=self.name,
            storage=self.storage,
            sampler=sampler,
            pruner=pruner or optuna.pruners.NopPruner(),
        )

    def start(
        self,
        proposal: Proposal,
        *,
        params: Mapping[str, Scalar] | None = None,
        distributions: Mapping[str, BaseDistribution] | None = None,
        system_attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a whole trial in one transaction. `proposal.number` must be the next number.

        `system_attrs`: what Optuna's sampler noted on it. Raises: SweepError if another process has made a trial of that
        number.
        """
        number = proposal.number
        assert number == self.next_number
        template = optuna.trial.create_trial(
            state=OptunaState.RUNNING,
            params=dict(params or {}),
            distributions=dict(distributions or {}),
            user_attrs={PROPOSAL: asdict(proposal)},
            system_attrs=dict(system_attrs or {}),
        )
        template.number = number
        trial_id = self.storage.create_new_trial(self.study_id, template)
        if self.trial_id(number) != trial_id:
            raise SweepError(f"another process uses study '{self.name}': trial {number} is not this one's.")
        self._open[number] = set()
        self._made = number + 1

    @property
    def next_number(self) -> int:
        """The number of the next trial: how many there are."""
        if self._made is None:
            self._made = len(self.frozen())
        return self._made

    def frozen(self) -> list[FrozenTrial]:
        """Optuna's trials in the order of their numbers. Not copies: not to be changed."""
        return self.storage.get_all_trials(self.study_id, deepcopy=False)

    def trial_id(self, number: int) -> int:
        """Optuna's key of a trial. Raises: SweepError if there is none of that number."""
        try:
            return self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)
        except KeyError as error:
            raise SweepError(f"study '{self.name}' has no trial {number}.") from error

    def get(self, number: int) -> FrozenTrial:
        """One of Optuna's trials, read afresh."""
        return self.storage.get_trial(self.trial_id(number))

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Keep the objective after an epoch; False if that epoch was known and nothing was changed."""
        known = self._epochs_if_open(number)
        if known is not None and epoch in known:
            return False
        self.storage.set_trial_intermediate_value(self.trial_id(number), epoch, value)
        if known is not None:
            known.add(epoch)
        return True

    def _epochs_if_open(self, number: int) -> set[int] | None:
        """Epochs on record of a trial that has not ended, None for one that has."""
        if number not in self._open:
            trial = self.get(number)
            if trial.state.is_finished():
                return None
            self._open[number] = set(trial.intermediate_values)
        return self._open[number]

    def set_outcome(self, number: int, outcome: Outcome) -> None:
        """Keep what the coordinator told, before the state says that the trial has ended.

        Raises: SweepError if it has ended already.
        """
        if self._epochs_if_open(number) is None:
            state = _STATES[self.get(number).state]
            raise SweepError(f"trial {number} was told twice: it is {state} already.")
        for key in outcome.attributes:
            _refuse_own(key)
        self.storage.set_trial_user_attr(self.trial_id(number), OUTCOME, asdict(outcome))
        self._open.pop(number, None)

    def finish(self, number: int, state: OptunaState, values: Sequence[float] | None = None) -> None:
        """End a trial without asking a sampler."""
        self._open.pop(number, None)
        self.storage.set_trial_state_values(self.trial_id(number), state, values)

    def trials(self) -> list[TrialRecord]:
        """All trials that were handed out."""
        study_attributes = self.storage.get_study_user_attrs(self.study_id)
        return [
            _trial_record(trial, study_attributes) for trial in self.frozen() if PROPOSAL in trial.user_attrs
        ]

    def trial(self, number: int) -> TrialRecord:
        """A trial that was handed out."""
        return _trial_record(self.get(number), self.storage.get_study_user_attrs(self.study_id))

    def parameters(self, number: int) -> Mapping[str, Scalar]:
        """Parameters of a trial that was handed out."""
        return cast(Mapping[str, Scalar], self.get(number).user_attrs[PROPOSAL]["parameters"])

    def failed_parameters(self) -> list[Mapping[str, Scalar]]:
        """Parameters of all trials that failed, out of memory included."""
        return [
            trial.user_attrs[PROPOSAL]["parameters"]
            for trial in self.frozen()
            if trial.state in (OptunaState.FAIL, OptunaState.PRUNED)
            and trial.user_attrs.get(OUTCOME, {}).get("state") == "failed"
        ]

    def best(self) -> list[int]:
        """Numbers of Optuna's best trials: the Pareto front."""
        study = self.study(optuna.samplers.RandomSampler())
        return [trial.number for trial in study.best_trials if PROPOSAL in trial.user_attrs]

    def constrain(self, number: int, name: str, value: float) -> None:
        """Tell how far the trial is beyond a limit; it is feasible at 0 and below. The last value counts."""
        trial = self.get(number)
        if name not in trial.constraints:
            study = self.study(optuna.samplers.RandomSampler())
            optuna.Trial(study, trial._trial_id).set_constraint(name, value)
        elif trial.constraints[name] != value:  # which Optuna's own call leaves as it is
            key = next(key for key in trial.system_attrs if key.endswith(f":{name}"))
            self.storage.set_trial_system_attr(trial._trial_id, key, value)

    def note(self, number: int, key: str, value: Scalar) -> None:
        """Keep a fact about a trial, ended or not."""
        _refuse_own(key)
        if self._epochs_if_open(number) is None:  # Optuna changes nothing of a trial that has ended
            self.storage.set_study_user_attr(self.study_id, _late(number) + key, value)
        else:
            self.storage.set_trial_user_attr(self.trial_id(number), key, value)

    def remember(self, key: str, value: Scalar) -> None:
        """Keep a fact about the study."""
        _refuse_own(key)
        self.storage.set_study_user_attr(self.study_id, key, value)

    def recall(self, key: str) -> Scalar:
        """A fact about the study, None if there is none."""
        return cast(Scalar, self.storage.get_study_user_attrs(self.study_id).get(key))


def optuna_state(outcome: Outcome) -> OptunaState:
    """The state that Optuna is told. Out of memory is told as pruned: its samplers ignore what failed."""
    if outcome.state == "complete":
        return OptunaState.COMPLETE
    if outcome.state == "pruned" or outcome.cause == "memory":
        return OptunaState.PRUNED
    return OptunaState.FAIL


def _trial_record(trial: FrozenTrial, study_attributes: Mapping[str, Any]) -> TrialRecord:
    proposal = Proposal(**trial.user_attrs[PROPOSAL])
    told: dict[str, Any] = trial.user_attrs.get(OUTCOME, {}) if trial.state.is_finished() else {}
    prefix = _late(trial.number)
    late = {key[len(prefix) :]: value for key, value in study_attributes.items() if key.startswith(prefix)}
    return TrialRecord(
        number=trial.number,
        state=told["state"] if told else _STATES[trial.state],
        parameters=proposal.parameters,
        value=told.get("value"),
        curve=dict(sorted(trial.intermediate_values.items())),
        cause=cast(FailureCause | None, told.get("cause")),
        message=told.get("message", ""),
        values=tuple(trial.values or ()) if trial.state == OptunaState.COMPLETE else (),
        measures=told.get("measures", {}),
        feasible=all(excess <= 0.0 for excess in trial.constraints.values()),
        attributes={**_facts(trial.user_attrs), **told.get("attributes", {}), **late},
        proposal=proposal,
    )


def _facts(attributes: Mapping[str, Any]) -> dict[str, Scalar]:
    return {key: value for key, value in attributes.items() if not key.startswith(OWN_PREFIX)}


def _late(number: int) -> str:
    return f"{OWN_PREFIX}trial.{number}."


def _refuse_own(key: str) -> None:
    if key.startswith(OWN_PREFIX):
        raise ValueError(f"'{key}': names that start with '{OWN_PREFIX}' are the record's own")


def _direction(goal: Goal) -> StudyDirection:
    return StudyDirection.MAXIMIZE if goal == "maximize" else StudyDirection.MINIMIZE
