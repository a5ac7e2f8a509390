"""Owns which models of a search space are looked at before a sweep: those at its corners."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from podium.recipe import Recipe
from podium.recipe_sections import Plain
from podium.search_space import (
    CategoricalParameter,
    FloatParameter,
    Parameter,
    Space,
    bounds,
    is_active,
    ordered,
)

Item = TypeVar("Item")
MODEL = "model."
MAX_CORNERS = 64
MAX_POINTS = 4096
# A whole number that has so few values is looked at in full: the largest network is not always at an end.
FEW_VALUES = 5
# Of the guide's CNN: they change no shape.
SHAPELESS = {"model.dropout", "model.dense_dropout"}
BATCH_SIZE = "training.batch_size"
# The end of each range at which training is faster, by key.
FASTER_END = {BATCH_SIZE: max, "augmentation.strength": min}


def model_corners(space: Space, recipe: Recipe) -> tuple[list[dict[str, Plain]], int]:
    """Values of the active `model.` parameters at each corner, and how many corners there are in all.

    A corner has every choice of a categorical parameter, every value of a whole number that has few, else both
    ends and what conditions name. Of more than MAX_CORNERS, evenly spread ones are answered.
    """
    keys = _relevant(space, recipe)
    looked_at = {key: _values(space, key) for key in keys}
    if math.prod(map(len, looked_at.values())) > MAX_CORNERS:
        looked_at = {key: _values(space, key, few=0) for key in keys}
    count = math.prod(map(len, looked_at.values()))
    found: dict[str, dict[str, Plain]] = {}
    for index in spread(range(count), MAX_POINTS):
        active: dict[str, Plain] = {}
        for key, value in zip(keys, _point(index, list(looked_at.values())), strict=True):
            if is_active(space[key], active):
                active[key] = value
        corner = {key: value for key, value in active.items() if key.startswith(MODEL)}
        found.setdefault(repr(corner), corner)
    corners = list(found.values())
    return spread(corners, MAX_CORNERS), len(corners) if count <= MAX_POINTS else count


def listed_models(
    space: Space, recipe: Recipe, points: Sequence[Mapping[str, Plain]]
) -> list[dict[str, Plain]]:
    """What different points make of the `model.` parameters, each once."""
    keys = [key for key in _relevant(space, recipe) if key.startswith(MODEL)]
    models = [{key: point[key] for key in keys if key in point} for point in points]
    return list({repr(model): model for model in models}.values())


def largest_batch(space: Space, recipe: Recipe) -> int:
    """Images of the largest batch that the sweep can ask for."""
    sizes = [size for size in _numbers(space, BATCH_SIZE) if isinstance(size, int)]
    return max([recipe.training.batch_size, *sizes])


def extreme(recipe: Recipe, space: Space, corner: Mapping[str, Plain], *, fast: bool) -> Recipe:
    """The recipe at a corner, with what else of the space makes its training fast, or slow."""
    changes = dict(corner)
    for key, end in FASTER_END.items():
        numbers = _numbers(space, key)
        if numbers:
            changes[key] = end(numbers) if fast else (min if end is max else max)(numbers)
    return recipe.with_values(changes)


def _relevant(space: Space, recipe: Recipe) -> list[str]:
    """Keys that shape the model, and those that their conditions hang on."""
    shapeless = SHAPELESS if recipe.model.builder is None and f"{MODEL}builder" not in space else set()
    wanted = {key for key in space if key.startswith(MODEL)} - shapeless
    for key in reversed(ordered(space)):
        if key in wanted:
            wanted |= set(space[key].when)
    return [key for key in ordered(space) if key in wanted]


def _values(space: Space, key: str, *, few: int = FEW_VALUES) -> list[Plain]:
    parameter = space[key]
    if isinstance(parameter, CategoricalParameter):
        return list(parameter.choices)
    if not isinstance(parameter, FloatParameter):
        every = range(parameter.low, parameter.high + 1, parameter.step or 1)
        if len(every) <= few:
            return list(every)
    named = [value for other in space.values() for value in other.when.get(key, [])]
    return list(dict.fromkeys([*bounds(_ending(parameter)), *named]))


def _ending(parameter: Parameter) -> Parameter:
    """The parameter with the last value that its step reaches for its end."""
    if isinstance(parameter, CategoricalParameter) or parameter.step is None:
        return parameter
    steps = math.floor((parameter.high - parameter.low) / parameter.step + 1e-9)
    return parameter.model_copy(update={"high": parameter.low + steps * parameter.step})


def _numbers(space: Space, key: str) -> list[int | float]:
    values: Sequence[Plain] = bounds(space[key]) if key in space else []
    return [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]


def _point(index: int, values: Sequence[Sequence[Plain]]) -> list[Plain]:
    """One point of the product of all values; the last parameter changes fastest."""
    chosen = []
    for choices in reversed(values):
        index, place = divmod(index, len(choices))
        chosen.append(choices[place])
    return chosen[::-1]


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[place * (len(items) - 1) // (most - 1)] for place in range(most)]
