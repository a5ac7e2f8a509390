"""Owns Optuna's samplers as a sweep file names them, with their defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    GridSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, TrialState

from podium.engines.optuna_pruners import asked_for
from podium.engines.optuna_space import distribution, grid_values, point_key
from podium.engines.study import PROPOSAL
from podium.search_space import Parameter, is_active, ordered
from podium.sweep_file import OptunaSettings

SAMPLERS: dict[str, type[BaseSampler]] = {
    "tpe": TPESampler,
    "gp": GPSampler,
    "cmaes": CmaEsSampler,
    "nsga2": NSGAIISampler,
    "qmc": QMCSampler,
    "random": RandomSampler,
    "grid": GridSampler,
}
EXTRAS = {"gp": "torch", "cmaes": "cmaes"}
SEVERAL_OBJECTIVES = ("tpe", "gp", "nsga2", "qmc", "random", "grid")
CONSTRAINTS = ("tpe", "gp", "nsga2")


class SpaceQmc(QMCSampler):
    """QMCSampler over the whole declared space; the point of the sequence follows from the trial's number.

    Optuna takes the dimensions from the first trial, which may be a baseline outside of the space or lack
    conditional parameters, and counts points in the study, where a kill would skip one.
    """

    def __init__(self, space: Mapping[str, Parameter], *, point: int, **options: Any) -> None:
        super().__init__(**options)
        self._dimensions = {key: distribution(space[key]) for key in ordered(space)}
        self._point = point

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All parameters that have more than one value."""
        return {key: choice for key, choice in self._dimensions.items() if not choice.single()}

    def _find_sample_id(self, study: optuna.Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._point


class SpaceGrid(GridSampler):
    """GridSampler that takes the grid's next point that no trial had; what is not active does not count."""

    def __init__(self, space: Mapping[str, Parameter], *, seed: int) -> None:
        super().__init__({key: grid_values(space[key]) for key in space}, seed=seed)
        self._parameters = space
        self._order = ordered(space)

    def next_id(self, study: optuna.Study) -> int | None:
        """Which point of the grid comes next, None if all were proposed."""
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        taken = {
            point_key(trial.user_attrs[PROPOSAL]["parameters"])
            for trial in trials
            if PROPOSAL in trial.user_attrs
        }
        for grid_id, point in enumerate(self._all_grids):
            values = dict(zip(self._param_names, point, strict=True))
            active: dict[str, Any] = {}
            for key in self._order:
                if is_active(self._parameters[key], active):
                    active[key] = values[key]
            if point_key(active) not in taken:
                return grid_id
        return None

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Note the point on the trial, where GridSampler looks for it."""
        trial.system_attrs["grid_id"] = self.next_id(study)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Nothing: the library would stop study.optimize here, which is not in use."""


def make_sampler(
    settings: OptunaSettings, space: Mapping[str, Parameter], *, number: int, proposal_seed: int
) -> BaseSampler:
    """A sampler for the proposal of trial `number`. Raises: ValueError, TypeError on options that do not fit."""
    with asked_for():
        if settings.sampler == "grid":
            return SpaceGrid(space, seed=settings.seed)
        options = {**_defaults(settings, space, proposal_seed), **settings.sampler_options}
        if settings.sampler == "qmc":
            # One sequence for all trials: the sweep's seed scrambles it, not the proposal's.
            return SpaceQmc(space, point=number, seed=settings.seed, **options)
        factory: Any = SAMPLERS[settings.sampler]
        sampler: BaseSampler = factory(seed=proposal_seed, **options)
        return sampler


def _defaults(settings: OptunaSettings, space: Mapping[str, Parameter], proposal_seed: int) -> dict[str, Any]:
    if settings.sampler == "tpe":
        conditional = any(parameter.when for parameter in space.values())
        if conditional and settings.sampler_options.get("multivariate") is not False:
            return {"group": True, "multivariate": True}
    if settings.sampler in ("gp", "cmaes"):
        return {"warn_independent_sampling": False}
    if settings.sampler == "qmc":
        return {
            "scramble": True,  # else the seed would change nothing
            "independent_sampler": RandomSampler(seed=proposal_seed),
            "warn_independent_sampling": False,
            "warn_asynchronous_seeding": False,
        }
    return {}
