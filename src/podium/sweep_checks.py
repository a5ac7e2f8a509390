"""Owns what is refused of a sweep file beyond its types: what its keys mean together and to the recipe."""

from __future__ import annotations

from collections.abc import Mapping

from podium.errors import Fault, InvalidInput
from podium.recipe import Recipe, has_key, unknown_key
from podium.recipe_sections import Plain
from podium.search_space import Parameter, bounds, condition_faults, project
from podium.sweep_settings import EPOCH_METRICS, METRIC_GOALS, ListedSettings, SweepFile


def meaning_faults(file: SweepFile, recipe: Recipe | None) -> list[Fault]:
    """Every fault of a file whose types are right; None for a recipe that could not be read."""
    faults = condition_faults(file.space)
    if all(limit is None for limit in file.budget.model_dump().values()):
        faults.append(Fault(message="sets none of trials, hours and epochs", key="budget"))
    if file.stop_when.no_improvement is not None and len(file.objectives) > 1:
        faults.append(
            Fault(
                message="needs one objective: several have no single best",
                key="stop_when.no_improvement",
                got=file.stop_when.no_improvement,
            )
        )
    faults += _objective_faults(file)
    if isinstance(file.engine, ListedSettings) and not faults:
        faults += _listed_faults(file, file.engine, recipe)
    if recipe is not None:
        for key, parameter in file.space.items():
            faults += _value_faults(key, parameter, recipe)
    return faults


def _objective_faults(file: SweepFile) -> list[Fault]:
    several = len(file.objectives) > 1
    faults = []
    for index, objective in enumerate(file.objectives):
        place = f"objective.{index}" if several else "objective"
        goal = METRIC_GOALS[objective.metric]
        if objective.goal != goal:
            faults.append(
                Fault(
                    message=f"{objective.metric} is to {goal}",
                    key=f"{place}.goal",
                    got=objective.goal,
                    allowed=goal,
                )
            )
        if objective.metric in [other.metric for other in file.objectives[:index]]:
            faults.append(
                Fault(message="is an objective already", key=f"{place}.metric", got=objective.metric)
            )
    if all(objective.metric not in EPOCH_METRICS for objective in file.objectives):
        got = ", ".join(objective.metric for objective in file.objectives)
        faults.append(
            Fault(
                message="needs a metric of the training",
                key="objective",
                got=got,
                allowed=", ".join(EPOCH_METRICS),
            )
        )
    return faults


def _value_faults(key: str, parameter: Parameter, recipe: Recipe) -> list[Fault]:
    if not has_key(recipe, key):
        fault = unknown_key(key, recipe)
        return [Fault(message=fault.message, key=f"space.{key}", got=key, allowed=fault.allowed)]
    fixed = ("data", "checks", "resources")
    if key.split(".")[0] in fixed or key in ("code", "training.seed", "training.deterministic"):
        return [
            Fault(
                message="cannot be searched over: trials would not be comparable", key=f"space.{key}", got=key
            )
        ]
    faults = []
    for value in bounds(parameter):
        try:
            recipe.with_values({key: value})
        except InvalidInput as error:
            message = error.faults[0].message if error.faults else error.message
            faults.append(
                Fault(
                    message=f"the recipe does not accept {value!r}: {message}", key=f"space.{key}", got=value
                )
            )
    return faults


def _listed_faults(file: SweepFile, settings: ListedSettings, recipe: Recipe | None) -> list[Fault]:
    faults = []
    if file.warm_start:
        faults.append(Fault(message="a list tries what it lists", key="warm_start", got=file.warm_start))
    if len(file.objectives) > 1 or file.constraints.parameters is not None:
        faults.append(
            Fault(
                message="a list searches for nothing: it takes one objective and no constraints",
                key="engine.name",
                got="listed",
                allowed="optuna",
            )
        )
    for number, changes in enumerate(settings.trials):
        place = f"engine.trials.{number}"
        for key, value in changes.items():
            parameter = file.space.get(key)
            if parameter is None:
                faults.append(
                    Fault(
                        message="not a parameter of this space",
                        key=place,
                        got=key,
                        allowed=", ".join(file.space),
                    )
                )
            elif not parameter.contains(value):
                faults.append(Fault(message=f"outside the space of {key}", key=place, got=value))
        if recipe is not None:
            active = listed_parameters(file, recipe, changes)
            faults += [
                Fault(message=f"{key}'s condition does not hold in this trial", key=place, got=key)
                for key in changes
                if key in file.space and key not in active
            ]
    return faults


def listed_parameters(file: SweepFile, recipe: Recipe, changes: Mapping[str, Plain]) -> dict[str, Plain]:
    """A trial of a list: the recipe's own values of all active keys of the space, some changed."""
    return project(file.space, {**recipe.flat(), **changes})
