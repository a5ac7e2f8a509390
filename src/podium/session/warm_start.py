"""Owns a warm start: the best of earlier sweeps, carried over into a new sweep's space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from podium.engines.base import Scalar
from podium.errors import InvalidInput
from podium.recipe import Recipe
from podium.search_space import (
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Space,
    fits,
    is_active,
    ordered,
    project,
)
from podium.session.recorded_sweep import sweep_name
from podium.stores import Stores
from podium.sweep_file import Sweep
from podium.tracking import query

TRIALS_PER_SWEEP = 3
# More are looked at, for several may become the same point of the new space.
LEADERS_LOOKED_AT = 20


@dataclass(frozen=True, kw_only=True)
class WarmTrial:
    """A configuration to try first, and the run that it comes from."""

    parameters: Mapping[str, Scalar]
    run_id: str


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """What is tried right after the baseline, and what had to be changed or left out to make it fit."""

    trials: Sequence[WarmTrial] = ()
    messages: Sequence[str] = ()


@dataclass
class Carried:
    """One configuration in the new space; `parameters` is None where it cannot be carried over."""

    parameters: dict[str, Any] | None
    messages: list[str] = field(default_factory=list)


def find_warm_start(stores: Stores, spec: Sweep) -> WarmStart:
    """The three best different configurations of each sweep that the file names, best first.

    Raises: InvalidInput if a name is no sweep of the MLflow store.
    """
    trials: list[WarmTrial] = []
    messages: list[str] = []
    taken: list[Mapping[str, Any]] = [project(spec.file.space, spec.recipe.flat())]
    for name in spec.file.warm_start:
        parent = query.find_parent(stores, sweep_name(name))
        leaders = query.leaders(stores, parent, LEADERS_LOOKED_AT)
        rows = {row["run_id"]: row for row in query.run_frame(stores, leaders).to_dict("records")}
        found = 0
        for row in (rows[run_id] for run_id in leaders):
            settings = {
                str(key).removeprefix("params."): str(value)
                for key, value in row.items()
                if str(key).startswith("params.") and value is not None and value == value
            }
            carried = carry_over(spec.file.space, spec.recipe, settings)
            messages += [f"warm start, trial {row['trial']} of {name}: {text}" for text in carried.messages]
            if carried.parameters is None or carried.parameters in taken:
                continue
            taken.append(carried.parameters)
            trials.append(WarmTrial(parameters=carried.parameters, run_id=str(row["run_id"])))
            found += 1
            if found == TRIALS_PER_SWEEP:
                break
        if not found:
            messages.append(f"warm start: {name} has no complete trial that fits and is not the baseline")
    return WarmStart(trials=trials, messages=messages)


def carry_over(space: Space, recipe: Recipe, settings: Mapping[str, str]) -> Carried:
    """A run's settings (dotted keys to text, as MLflow has them) as a point of the space.

    A number out of range becomes the nearest that is in it; a choice that is gone, the nearest number among
    the choices, else the recipe's own value.
    """
    own = recipe.flat()
    parameters: dict[str, Any] = {}
    messages = []
    for key in ordered(space):
        if not is_active(space[key], parameters):
            continue
        text = settings.get(key)
        value = None if text is None else _nearest(space[key], text)
        if value is None:
            value = own.get(key)
            messages.append(
                f"{key} {text or 'is not on record'}: not a choice here, the recipe's {value} is taken"
            )
        elif str(value) != text and not _same_number(value, str(text)):
            messages.append(f"{key} {text} is outside this space, {value} is taken")
        parameters[key] = None if value == NULL else value
    if not fits(space, parameters):
        return Carried(None, [*messages, "left out: the recipe's own value is no choice here either"])
    try:
        recipe.with_values(parameters)
    except InvalidInput as error:
        return Carried(None, [*messages, f"left out: {error}"])
    return Carried(parameters, messages)


# A choice of null is a value; that there is none is not.
NULL = "None"


def _nearest(parameter: Parameter, text: str) -> Any:
    """The parameter's value that is nearest to a text, None if none is; a null choice is NULL."""
    if isinstance(parameter, CategoricalParameter):
        return _nearest_choice(parameter, text)
    number = _number(text)
    if number is None:
        return None
    inside = min(max(number, parameter.low), parameter.high)
    if parameter.step is not None:
        steps = math.floor((parameter.high - parameter.low) / parameter.step + 1e-9)
        inside = parameter.low + min(round((inside - parameter.low) / parameter.step), steps) * parameter.step
    if isinstance(parameter, IntParameter):
        return round(inside)
    assert isinstance(parameter, FloatParameter)
    return min(max(float(inside), parameter.low), parameter.high)


def _nearest_choice(parameter: CategoricalParameter, text: str) -> Any:
    for choice in parameter.choices:
        if str(choice) == text:
            return NULL if choice is None else choice
    numbers = [
        choice
        for choice in parameter.choices
        if isinstance(choice, int | float) and not isinstance(choice, bool)
    ]
    number = _number(text)
    if number is None or not numbers:
        return None
    wanted = number
    return min(numbers, key=lambda choice: abs(choice - wanted))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _same_number(value: object, text: str) -> bool:
    number = _number(text)
    return isinstance(value, int | float) and number is not None and math.isclose(value, number, rel_tol=1e-9)
