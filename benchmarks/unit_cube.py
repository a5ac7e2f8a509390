"""Owns a search space as a unit cube: configurations at its points, and how far apart two of them are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from podium.engines.base import Scalar
from podium.search_space import CategoricalParameter, Parameter, is_active, ordered

Coordinates = NDArray[np.float64]


def configuration(space: Mapping[str, Parameter], point: Sequence[float]) -> dict[str, Scalar]:
    """The active parameters at a point of [0, 1)^n, one coordinate a parameter in the order of `ordered`."""
    values: dict[str, Scalar] = {}
    for key, unit in zip(ordered(space), point, strict=True):
        if is_active(space[key], values):
            values[key] = _value(space[key], unit)
    return values


def coordinates(space: Mapping[str, Parameter], values: Mapping[str, Scalar]) -> Coordinates:
    """One number a parameter, in the space's order: its place in the range, on a log scale in logarithms.

    A choice is its index; a parameter that is not active is NaN.
    """
    return np.array(
        [_unit(parameter, values[key]) if key in values else math.nan for key, parameter in space.items()]
    )


def distances(space: Mapping[str, Parameter], points: Coordinates, other: Coordinates) -> Coordinates:
    """Euclidean distances of `points` (n, parameters) from `other` (parameters,), shape (n,).

    Two choices are 0 or 1 apart. A parameter that only one of the two has counts 1, since they are different
    kinds of network; one that neither has counts 0.
    """
    gaps = np.abs(points - other)
    chosen = [isinstance(parameter, CategoricalParameter) for parameter in space.values()]
    gaps[:, chosen] = np.where(np.isnan(gaps[:, chosen]), np.nan, gaps[:, chosen] > 0)
    one_alone = np.isnan(points) != np.isnan(other)
    gaps = np.where(one_alone, 1.0, np.nan_to_num(gaps, nan=0.0))
    found: Coordinates = np.sqrt((gaps**2).sum(axis=1))
    return found


def _value(parameter: Parameter, unit: float) -> Scalar:
    if isinstance(parameter, CategoricalParameter):
        return parameter.choices[int(unit * len(parameter.choices))]
    low, high = parameter.low, parameter.high
    if isinstance(low, int) and isinstance(high, int):
        return low + int(unit * (high - low + 1))
    if parameter.scale == "log":
        return float(math.exp(math.log(low) + unit * math.log(high / low)))
    return float(low + unit * (high - low))


def _unit(parameter: Parameter, value: Scalar) -> float:
    if isinstance(parameter, CategoricalParameter):
        return float(parameter.choices.index(value))
    assert isinstance(value, int | float)
    if parameter.low == parameter.high:
        return 0.0
    if parameter.scale == "log":
        return math.log(value / parameter.low) / math.log(parameter.high / parameter.low)
    return (value - parameter.low) / (parameter.high - parameter.low)
