"""Owns the search space: which dotted recipe keys vary, over what, and under which conditions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from podium.errors import Fault
from podium.recipe_sections import Plain, Settings

When = dict[str, list[Plain]]
# Above it not every whole number has a float of its own, which samplers compute with.
LARGEST_INT = 2**53
# Last parts of dotted keys that want their section beside them.
SAYS_TOO_LITTLE = {"name", "enabled", "factor", "patience", "monitor", "method"}


class FloatParameter(Settings):
    """A real number in [low, high], on a linear or log scale, or in steps from low."""

    type: Literal["float"]
    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"
    step: Annotated[float, Field(gt=0.0)] | None = None
    when: When = {}

    @model_validator(mode="after")
    def _is_a_range(self) -> FloatParameter:
        _check_range(self.low, self.high, self.scale, self.step)
        return self

    def contains(self, value: object) -> bool:
        """Whether the value can be proposed (a value off the step counts as inside)."""
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high
        )


class IntParameter(Settings):
    """A whole number in [low, high], on a linear or log scale, or in steps from low."""

    type: Literal["int"]
    low: int
    high: int
    scale: Literal["linear", "log"] = "linear"
    step: Annotated[int, Field(gt=0)] | None = None
    when: When = {}

    @model_validator(mode="after")
    def _is_a_range(self) -> IntParameter:
        _check_range(self.low, self.high, self.scale, self.step)
        return self

    def contains(self, value: object) -> bool:
        """Whether the value can be proposed."""
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high and (value - self.low) % (self.step or 1) == 0


class CategoricalParameter(Settings):
    """One of a list of choices."""

    type: Literal["categorical"]
    choices: Annotated[list[Plain], Field(min_length=1)]
    when: When = {}

    @model_validator(mode="after")
    def _is_a_set(self) -> CategoricalParameter:
        keys = [(type(choice), choice) for choice in self.choices]
        if len(set(keys)) != len(keys):
            raise ValueError(f"choices hold a value twice: {self.choices}")
        return self

    def contains(self, value: object) -> bool:
        """Whether the value is one of the choices, of the same type."""
        return any(type(choice) is type(value) and choice == value for choice in self.choices)


Parameter = Annotated[FloatParameter | IntParameter | CategoricalParameter, Field(discriminator="type")]
Space = dict[str, Parameter]


def ordered(space: Mapping[str, Parameter]) -> list[str]:
    """Keys so that each comes after those that its condition names, else in the file's order.

    Raises: ValueError if conditions form a circle.
    """
    order: list[str] = []
    while len(order) < len(space):
        ready = [
            key for key in space if key not in order and all(other in order for other in space[key].when)
        ]
        if not ready:
            raise ValueError(", ".join(key for key in space if key not in order))
        order.append(ready[0])
    return order


def is_active(parameter: Parameter, chosen: Mapping[str, Any]) -> bool:
    """Whether the condition holds, given the values of the active parameters so far."""
    return all(
        other in chosen and any(type(v) is type(chosen[other]) and v == chosen[other] for v in values)
        for other, values in parameter.when.items()
    )


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Dotted keys by as few of their last parts as tell them apart and say enough."""
    known = list(keys)
    return {key: _shortest(key, known) for key in known}


def _shortest(key: str, keys: Sequence[str]) -> str:
    parts = key.split(".")
    for first in reversed(range(len(parts))):
        name = ".".join(parts[first:])
        alike = sum(f".{other}".endswith(f".{name}") for other in keys)
        if name not in SAYS_TOO_LITTLE and alike == 1:
            return name
    return key


def fits(space: Mapping[str, Parameter], values: Mapping[str, Any]) -> bool:
    """Whether the values are exactly one point of the space: all active keys, each in its range."""
    active: dict[str, Any] = {}
    for key in ordered(space):
        if is_active(space[key], active):
            if key not in values or not space[key].contains(values[key]):
                return False
            active[key] = values[key]
    return set(values) == set(active)


def project(space: Mapping[str, Parameter], flat_recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The active keys of the space with a recipe's own values, in or out of range."""
    active: dict[str, Any] = {}
    for key in ordered(space):
        if is_active(space[key], active):
            active[key] = flat_recipe.get(key)
    return active


def bounds(parameter: Parameter) -> Sequence[Plain]:
    """The values whose validity decides that of all: both ends of a range, every choice."""
    if isinstance(parameter, CategoricalParameter):
        return parameter.choices
    return [parameter.low, parameter.high]


def condition_faults(space: Mapping[str, Parameter]) -> list[Fault]:
    """What is wrong with the conditions: unknown or float parents, impossible values, circles."""
    faults: list[Fault] = []
    for key, parameter in space.items():
        for other, values in parameter.when.items():
            place = f"space.{key}.when.{other}"
            parent = space.get(other)
            if parent is None:
                faults.append(
                    Fault(
                        message="not a parameter of this space",
                        key=place,
                        got=other,
                        allowed=", ".join(space),
                    )
                )
            elif isinstance(parent, FloatParameter):
                faults.append(
                    Fault(
                        message="a condition must be on an int or categorical parameter", key=place, got=other
                    )
                )
            else:
                faults += [
                    Fault(message=f"{other} never takes the value {value!r}", key=place, got=value)
                    for value in values
                    if not parent.contains(value)
                ]
                if not values:
                    faults.append(Fault(message="lists no value, so it never holds", key=place, got="[]"))
    if not faults:
        try:
            ordered(space)
        except ValueError as error:
            faults.append(Fault(message=f"conditions form a circle: {error}", key="space", got=str(error)))
    return faults


def _check_range(low: float, high: float, scale: str, step: float | None) -> None:
    if any(isinstance(number, int) and abs(number) > LARGEST_INT for number in (low, high, step)):
        raise ValueError(f"whole numbers go from -{LARGEST_INT} to {LARGEST_INT}")
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("low and high must be finite")
    if low > high:
        raise ValueError(f"low {low} is above high {high}")
    if scale == "log" and low <= 0:
        raise ValueError(f"a log scale needs low above 0, got {low}")
    if scale == "log" and step is not None:
        raise ValueError("a log scale takes no step")
