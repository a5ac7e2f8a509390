"""Owns how many configurations a search space holds, and how many a grid takes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from podium.engines.base import Scalar
from podium.engines.optuna_space import finite_size, finite_values, grid_length
from podium.search_space import FloatParameter, IntParameter, Parameter, is_active, ordered
from podium.sweep_file import EngineSettings, KerasTunerSettings, OptunaSettings


def combinations(space: Mapping[str, Parameter]) -> int | None:
    """How many different points a space has, None if a parameter that can be active has no end of values.

    What is not active does not count: points that differ in it alone are one.
    """
    sizes = {key: finite_size(parameter) for key, parameter in space.items()}
    known = {key: size for key, size in sizes.items() if size is not None}
    if len(known) < len(sizes):
        return None
    return _count(space, known, offered=None)


def grid_size(settings: EngineSettings, space: Mapping[str, Parameter]) -> int | None:
    """How many points the engine's grid has, None if it lays none.

    Of a range without a step Optuna's takes five values, KerasTuner's eleven: its lower end and ten more.
    """
    if isinstance(settings, KerasTunerSettings):
        if settings.oracle != "grid":
            return None
        offered = _oracle_values(space)
        return _count(space, {key: len(values) for key, values in offered.items()}, offered=offered)
    if not isinstance(settings, OptunaSettings) or settings.sampler != "grid":
        return None
    return _count(space, {key: grid_length(parameter) for key, parameter in space.items()}, offered=None)


def _count(
    space: Mapping[str, Parameter], sizes: Mapping[str, int], offered: Mapping[str, Sequence[Scalar]] | None
) -> int:
    """Points, given the number of each parameter's values; `offered`: which they are, where not all of the space's.

    Only what a condition names is looked at one by one: a parameter of a million values takes no longer.
    """
    order = ordered(space)
    named = {key: _named(space, key) for key in order}
    if offered is not None:
        named = {key: [value for value in named[key] if value in offered[key]] for key in order}

    def count(place: int, chosen: dict[str, Scalar]) -> int:
        if place == len(order):
            return 1
        key = order[place]
        if not is_active(space[key], chosen):
            return count(place + 1, chosen)
        found = sum(count(place + 1, {**chosen, key: value}) for value in named[key])
        others = sizes[key] - len(named[key])
        return found + (others * count(place + 1, chosen) if others else 0)

    return count(0, {})


def _named(space: Mapping[str, Parameter], key: str) -> list[Scalar]:
    """The values of a parameter that conditions of others name, each once."""
    values: dict[tuple[type, Scalar], Scalar] = {}
    for parameter in space.values():
        for value in parameter.when.get(key, []):
            values[type(value), value] = value
    return list(values.values())


def _oracle_values(space: Mapping[str, Parameter]) -> dict[str, list[Scalar]]:
    # Here, for its library takes seconds to import.
    from podium.engines.keras_tuner_oracles import hyperparameters

    laid = {hp.name: {hp.default, *hp.values} for hp in hyperparameters(space).space}
    return {
        key: finite_values(parameter) if _is_listed(parameter) else sorted(laid[key])
        for key, parameter in space.items()
    }


def _is_listed(parameter: Parameter) -> bool:
    """Whether the grid takes all values that a parameter has."""
    if isinstance(parameter, FloatParameter):
        return parameter.step is not None
    return not (isinstance(parameter, IntParameter) and parameter.scale == "log")
