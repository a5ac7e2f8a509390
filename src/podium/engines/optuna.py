"""Owns the Optuna engine: ask / report / tell on a study, with a sampler made anew for each proposal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import _filter_study
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from podium.engines.base import Done, Outcome, Proposal, Scalar, Wait
from podium.engines.optuna_pruners import make_pruner
from podium.engines.optuna_samplers import CONSTRAINTS, SpaceGrid, make_sampler
from podium.engines.optuna_space import distribution, exact, holds, point_key
from podium.engines.recorded import RecordedEngine
from podium.engines.study import VERDICT, Record, optuna_state
from podium.search_space import Parameter, is_active, ordered
from podium.sweep_file import EPOCH_METRICS, ConstraintSettings, ObjectiveSettings, OptunaSettings

# A model that insists on what failed seldom changes its mind, and 'gp' takes a second for each attempt.
OWN_SAMPLER_ATTEMPTS = 2
ALL_ATTEMPTS = 200
MEMORY = "memory"  # the constraint that a trial breaks which runs out of it


class OptunaEngine(RecordedEngine):
    """Proposes by an Optuna sampler, stops by an Optuna pruner.

    Epochs count from 1 and are Optuna's steps, so that a rung of one epoch is reached after one epoch.
    """

    def __init__(
        self,
        settings: OptunaSettings,
        space: Mapping[str, Parameter],
        *,
        given: Sequence[Mapping[str, Scalar]],
        objectives: Sequence[ObjectiveSettings],
        constraints: ConstraintSettings,
        epochs: int,
        study_name: str,
        study_url: str,
        create: bool,
    ) -> None:
        """`given`: parameters of the first trials, the baseline first; `epochs`: those of a whole training."""
        self._settings = settings
        self._space = space
        self._order = ordered(space)
        self._objectives = objectives
        self._epoch_objective = next(each for each in objectives if each.metric in EPOCH_METRICS)
        self._constraints = constraints
        self._distributions = {key: distribution(space[key]) for key in self._order}
        goals = [objective.goal for objective in objectives]
        self._record = Record(study_name, study_url, goals=goals, create=create, given=given)
        self._given = self._record.given
        self._failed = {point_key(parameters) for parameters in self._record.failed_parameters()}
        # A grid is the same for all proposals, and takes long to lay out.
        self._grid: SpaceGrid | None = None
        first = self._sampler(0, 0)
        self._grid = first if isinstance(first, SpaceGrid) else None
        self._pruner = make_pruner(settings, epochs=epochs)
        self._study = self._record.study(first, self._pruner)

    def ask(self) -> Proposal | Wait | Done:
        """The next configuration; a proposal that a kill cut short has left no trace, and is made again."""
        number = self._record.next_number
        if number < len(self._given):
            return self._start_given(number)
        sampler = self._sampler(number, 0)
        if isinstance(sampler, SpaceGrid) and sampler.next_id(self._study) is None:
            return Done("every point of the grid has been proposed")
        for attempt in range(ALL_ATTEMPTS):
            draft = self._draft(number, attempt)
            if point_key(draft.params) not in self._failed:
                proposal = Proposal(number=number, parameters=draft.params)
                self._record.start(
                    proposal,
                    params=draft.params,
                    distributions=draft.distributions,
                    system_attrs=draft.system_attrs,
                )
                return proposal
        return Done("every configuration that the sampler still proposes has failed before")

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Record the objective after an epoch (NaN is allowed); True means stop here.

        An epoch before the last known one changes nothing. A verdict to stop stands. Trial 0 is never
        stopped: the baseline is what every other trial is held against.
        """
        self._record.report(number, epoch, value)
        if isinstance(self._pruner, optuna.pruners.NopPruner):
            return False
        trial = self._record.get(number)
        if VERDICT in trial.user_attrs:
            # A later attempt may begin before it: its epochs up to there are trained again.
            return epoch >= int(trial.user_attrs[VERDICT])
        # Asked for the baseline too: rungs are counted on what this call notes.
        if epoch != trial.last_step or not self._pruner.prune(self._study, trial) or number == 0:
            return False
        self._record.storage.set_trial_user_attr(trial._trial_id, VERDICT, epoch)
        return True

    def tell(self, number: int, outcome: Outcome) -> None:
        """Record how the trial ended. Raises: SweepError if it had ended already."""
        self._record.set_outcome(number, outcome)
        self._tell_constraints(number, outcome)
        state = optuna_state(outcome)
        if state == OptunaState.PRUNED and len(self._objectives) > 1 and outcome.cause != "memory":
            # By the budget: TPE cannot place a curve among several objectives, and ends with an error over it.
            state = OptunaState.FAIL
        values = self._values(number, outcome) if state == OptunaState.COMPLETE else None
        self._record.study(self._sampler(number, 0), self._pruner).tell(number, values, state)
        if outcome.state == "failed":
            self._failed.add(point_key(self._record.parameters(number)))

    def _start_given(self, number: int) -> Proposal:
        """One of the first trials. The sampler learns from it only if it is a point of the space."""
        values = self._given[number]
        proposal = Proposal(number=number, parameters=values)
        active = {key: self._distributions[key] for key in self._order if key in values}
        if set(active) == set(values) and all(holds(active[key], values[key]) for key in active):
            params = {key: values[key] for key in active}
            self._record.start(proposal, params=params, distributions=active)
        else:
            self._record.start(proposal)
        return proposal

    def _values(self, number: int, outcome: Outcome) -> list[float]:
        """All objectives of a complete trial, in the sweep file's order."""
        values = []
        for objective in self._objectives:
            own = objective is self._epoch_objective
            value = outcome.value if own else outcome.measures.get(objective.metric)
            if value is None or math.isnan(value):
                raise ValueError(f"trial {number} is complete, but its {objective.metric} is {value}")
            values.append(value)
        return values

    def _tell_constraints(self, number: int, outcome: Outcome) -> None:
        if self._settings.sampler not in CONSTRAINTS:
            return  # these samplers learn nothing from it; sweeps with constraints refuse them
        limit = self._constraints.parameters
        size = outcome.measures.get("parameters")
        if limit is not None and size is not None:
            self._record.constrain(number, "parameters", size / limit.at_most - 1.0)
        if outcome.cause == "memory":
            self._record.constrain(number, MEMORY, 1.0)
        elif MEMORY in self._record.get(number).constraints:
            self._record.constrain(number, MEMORY, 0.0)  # an end that a kill cut short had set it

    def _draft(self, number: int, attempt: int) -> FrozenTrial:
        """A trial as the sampler wants it, asked as optuna.Trial asks. Not in the study: what is refused leaves no trace."""
        sampler = self._sampler(number, attempt)
        draft = optuna.trial.create_trial(state=OptunaState.RUNNING)
        draft.number = number
        study = self._record.study(sampler, self._pruner)
        study._storage = cast(BaseStorage, _DraftStorage(study._storage, draft))
        study = _filter_study(study, draft)
        sampler.before_trial(study, draft)
        relative_space = sampler.infer_relative_search_space(study, draft)
        relative = sampler.sample_relative(study, draft, relative_space)
        for key in self._order:
            if not is_active(self._space[key], draft.params):
                continue
            choice = self._distributions[key]
            if choice.single():
                value = _only_value(choice)
            elif key in relative and choice._contains(choice.to_internal_repr(relative[key])):
                value = relative[key]
            else:
                value = sampler.sample_independent(study, draft, key, choice)
            # Through Optuna's own form, so that what is handed out is what is stored.
            drawn = choice.to_external_repr(choice.to_internal_repr(value))
            draft.distributions[key] = choice
            draft.params[key] = exact(self._space[key], drawn)
        return draft

    def _sampler(self, number: int, attempt: int) -> BaseSampler:
        """A new sampler for each proposal: nothing that it draws depends on what the process did before."""
        seed = int(np.random.SeedSequence([self._settings.seed, number, attempt]).generate_state(1)[0])
        if attempt >= OWN_SAMPLER_ATTEMPTS:
            return RandomSampler(seed=seed)
        if self._grid is not None:
            return self._grid
        return make_sampler(self._settings, self._space, number=number, proposal_seed=seed)


class _DraftStorage:
    """A study's store, to a sampler that draws a trial which is not in it: what it notes on the trial stays on the draft."""

    def __init__(self, storage: BaseStorage, draft: FrozenTrial) -> None:
        self._storage, self._draft = storage, draft

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As BaseStorage."""
        if trial_id == self._draft._trial_id:
            self._draft.system_attrs[key] = value
        else:
            self._storage.set_trial_system_attr(trial_id, key, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


def _only_value(choice: BaseDistribution) -> Any:
    if isinstance(choice, optuna.distributions.CategoricalDistribution):
        return choice.choices[0]
    assert isinstance(choice, optuna.distributions.FloatDistribution | optuna.distributions.IntDistribution)
    return choice.low
