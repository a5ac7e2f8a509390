"""Owns how a search space becomes Optuna's distributions, and the points of a finite one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from podium.engines.base import Scalar
from podium.search_space import CategoricalParameter, FloatParameter, IntParameter, Parameter

# Of a range without a step, in a grid.
GRID_VALUES = 5


def distribution(parameter: Parameter) -> BaseDistribution:
    """The parameter as Optuna's distribution. A range that its step does not divide ends at the last step."""
    if isinstance(parameter, CategoricalParameter):
        return CategoricalDistribution(parameter.choices)
    log = parameter.scale == "log"
    if isinstance(parameter, FloatParameter):
        high = parameter.high if parameter.step is None else stepped(parameter)[-1]
        return FloatDistribution(parameter.low, high, log=log, step=parameter.step)
    return IntDistribution(parameter.low, _last(parameter), log=log, step=parameter.step or 1)


def holds(choice: BaseDistribution, value: Scalar) -> bool:
    """Whether the distribution can give the value."""
    try:
        return choice._contains(choice.to_internal_repr(value))
    except (ValueError, TypeError):
        return False


def stepped(parameter: FloatParameter) -> list[float]:
    """All values of a float with a step, exact in decimals: 0.3, not 0.30000000000000004."""
    low, high, step = (Decimal(str(number)) for number in (parameter.low, parameter.high, parameter.step))
    return [float(low + index * step) for index in range(int((high - low) // step) + 1)]


def exact(parameter: Parameter, value: Scalar) -> Scalar:
    """A value as it is written: a library's steps add up to 0.30000000000000004."""
    if isinstance(parameter, FloatParameter) and parameter.step is not None:
        assert isinstance(value, float)
        return stepped(parameter)[round((value - parameter.low) / parameter.step)]
    return value


def finite_size(parameter: Parameter) -> int | None:
    """How many values a parameter has, None if they cannot be counted."""
    if isinstance(parameter, CategoricalParameter):
        return len(parameter.choices)
    if isinstance(parameter, IntParameter):
        return (parameter.high - parameter.low) // (parameter.step or 1) + 1
    if parameter.step is not None:
        return math.floor((parameter.high - parameter.low) / parameter.step + 1e-9) + 1
    return 1 if parameter.low == parameter.high else None


def finite_values(parameter: Parameter) -> list[Scalar]:
    """All values of a countable parameter."""
    if isinstance(parameter, CategoricalParameter):
        return list(parameter.choices)
    if isinstance(parameter, IntParameter):
        return list(range(parameter.low, parameter.high + 1, parameter.step or 1))
    return list(stepped(parameter)) if parameter.step is not None else [parameter.low]


def grid_values(parameter: Parameter) -> list[Scalar]:
    """The values that a grid takes: all of a countable parameter, five of a range, even on its scale."""
    if finite_size(parameter) is not None:
        return finite_values(parameter)
    assert isinstance(parameter, FloatParameter)
    low, high, last = parameter.low, parameter.high, GRID_VALUES - 1
    if parameter.scale == "log":
        inner = [low * (high / low) ** (index / last) for index in range(1, last)]
    else:
        inner = [low + (high - low) * index / last for index in range(1, last)]
    return [low, *inner, high]


def grid_length(parameter: Parameter) -> int:
    """How many `grid_values` there are."""
    return finite_size(parameter) or GRID_VALUES


def point_key(values: Mapping[str, Scalar]) -> str:
    """One text for equal points: True, 1 and 1.0 are three values."""
    return json.dumps(dict(values), sort_keys=True)


def _last(parameter: IntParameter) -> int:
    step = parameter.step or 1
    return parameter.low + (parameter.high - parameter.low) // step * step
