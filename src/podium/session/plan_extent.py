"""Owns how many trials and epochs a sweep file can come to, before anything is measured."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

from podium.engines.grid_points import combinations, grid_size
from podium.engines.least_epochs import least_epochs, scheduled_epochs
from podium.recipe_sections import Plain
from podium.search_space import bounds, fits, project
from podium.sweep_checks import listed_parameters
from podium.sweep_file import KerasTunerSettings, ListedSettings, OptunaSettings, Sweep

EPOCHS = "training.epochs"
PATIENCE = "callbacks.early_stopping.patience"


@dataclass(frozen=True, kw_only=True)
class Span:
    """The least and the most of a number."""

    least: int
    most: int

    def at_most(self, limit: int | None) -> Span:
        """As far as a limit lets it go."""
        if limit is None:
            return self
        return Span(least=min(self.least, limit), most=min(self.most, limit))


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much a sweep trains. `trials` and `epochs` are None where its hours alone end it.

    `baseline`: epochs of trial 0, which is never pruned. `trial`: epochs of any other.
    """

    trials: Span | None
    epochs: Span | None
    baseline: Span
    trial: Span


def extent(spec: Sweep) -> Extent:
    """What budget, stop_when, space, pruner or Oracle, and EarlyStopping leave, hours aside."""
    planned, budget = spec.recipe.training.epochs, spec.file.budget
    lengths = _numbers(spec, EPOCHS) or [planned]
    patience = _least_patience(spec)
    stop = math.inf if patience is None else patience + 1  # the epoch that EarlyStopping can end first
    baseline = Span(least=int(min(planned, stop)), most=planned)
    limit = int(min([*lengths, stop]))
    shortest = limit if _ends_no_trial_early(spec) else 1
    trial = Span(least=shortest, most=max(lengths))
    points = trained_points(spec)
    counts = [count for count in (budget.trials, points) if count is not None]
    if counts:
        trials = _until_no_improvement(spec, Span(least=min(counts), most=min(counts)))
        epochs = Span(
            least=_epochs(spec, trials.least, limit=limit) - limit + baseline.least,
            most=_epochs(spec, trials.most, limit=None),
        ).at_most(budget.epochs)
        if budget.epochs is not None:
            trials = replace(trials, least=min(trials.least, math.ceil(budget.epochs / trial.most)))
        return Extent(trials=trials, epochs=epochs, baseline=baseline, trial=trial)
    if budget.epochs is None:
        return Extent(trials=None, epochs=None, baseline=baseline, trial=trial)
    trials = Span(least=math.ceil(budget.epochs / trial.most), most=math.ceil(budget.epochs / trial.least))
    epochs = Span(least=budget.epochs, most=budget.epochs)
    ended = _until_no_improvement(spec, trials)
    if ended.least < trials.least:
        epochs = Span(least=min(budget.epochs, ended.least * trial.least), most=budget.epochs)
    return Extent(trials=ended, epochs=epochs, baseline=baseline, trial=trial)


def trained_points(spec: Sweep) -> int | None:
    """How many different configurations can be trained, None without end; equal ones are trained once.

    The baseline may be one more, beside the space.
    """
    space, engine = spec.file.space, spec.file.engine
    if isinstance(engine, ListedSettings):
        return len({json.dumps(point, sort_keys=True) for point in listed_points(spec)})
    if _is_oracle_hyperband(spec):
        return None  # each may be trained several times, for longer
    points = grid_size(engine, space)
    if points is None:
        points = combinations(space)
    if points is None:
        return None
    return points + (not fits(space, project(space, spec.recipe.flat())))


def listed_points(spec: Sweep) -> list[dict[str, Plain]]:
    """The baseline and the trials of a list, in its order."""
    assert isinstance(spec.file.engine, ListedSettings)
    changes: list[dict[str, Plain]] = [{}, *spec.file.engine.trials]
    return [listed_parameters(spec.file, spec.recipe, each) for each in changes]


def _until_no_improvement(spec: Sweep, trials: Span) -> Span:
    patience = spec.file.stop_when.no_improvement
    if patience is None:
        return trials
    return Span(least=min(trials.least, 1 + patience), most=trials.most)


def _epochs(spec: Sweep, trials: int, *, limit: int | None) -> int:
    """Epochs of so many trials: the least if each can end after `limit`, else the most."""
    engine, planned = spec.file.engine, spec.recipe.training.epochs
    longest = max(_numbers(spec, EPOCHS) or [planned])
    if isinstance(engine, KerasTunerSettings):
        if engine.oracle != "hyperband":
            return trials * limit if limit else planned + (trials - 1) * longest
        baseline = project(spec.file.space, spec.recipe.flat())
        return scheduled_epochs(
            engine,
            spec.file.space,
            baseline=baseline,
            trials=trials,
            epochs=planned,
            limit=limit or planned,
        )
    if isinstance(engine, ListedSettings):
        return trials * limit if limit else planned + (trials - 1) * longest
    if limit is None:
        return planned + (trials - 1) * longest
    return least_epochs(engine, trials=trials, epochs=planned, limit=limit)


def _least_patience(spec: Sweep) -> int | None:
    """EarlyStopping's patience, the least that the space can give it; None if it is off."""
    stopping = spec.recipe.callbacks.early_stopping
    if stopping is None:
        return None
    return min([stopping.patience, *_numbers(spec, PATIENCE)])


def _ends_no_trial_early(spec: Sweep) -> bool:
    engine = spec.file.engine
    return engine.pruner == "none" if isinstance(engine, OptunaSettings) else not _is_oracle_hyperband(spec)


def _is_oracle_hyperband(spec: Sweep) -> bool:
    engine = spec.file.engine
    return isinstance(engine, KerasTunerSettings) and engine.oracle == "hyperband"


def _numbers(spec: Sweep, key: str) -> list[int]:
    """The ends of a swept whole number, none if it is not swept."""
    parameter = spec.file.space.get(key)
    values = bounds(parameter) if parameter is not None else []
    return [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
