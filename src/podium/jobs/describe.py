"""Owns `podium describe`: a recipe's network, layer by layer, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from podium.answer import Answer
from podium.datasets.prepare import prepare
from podium.datasets.shapes import known_shape
from podium.errors import InvalidInput, PodiumError
from podium.recipe_sections import DataSettings
from podium.session.corner_sizes import Built, Layer, NotBuilt, build_all
from podium.stores import dataset_cache
from podium.sweep_file import recipe_with_assignments

MEGA = 1e6
UNKNOWN = "?"


def describe(path: Path, assignments: Sequence[str], *, data: str | None, batch: int | None) -> Answer:
    """Build a recipe's network in a process of its own and tell its size; nothing is recorded.

    Raises: PodiumError if it cannot be built; InvalidInput if the recipe trains no network.
    """
    recipe = recipe_with_assignments(path, assignments, data=data, seed=None)
    if recipe.classical is not None:
        raise InvalidInput(f"{path} trains {recipe.classical.name}, which has no network to describe.")
    image_shape, classes = _shape(recipe.data)
    batch = batch or recipe.training.batch_size
    [built] = build_all(
        [recipe],
        image_shape=image_shape,
        classes=classes,
        code=Path(recipe.code) if recipe.code else None,
        layers=True,
    )
    if isinstance(built, NotBuilt):
        raise PodiumError(f"the model of {path} cannot be built: {built.reason}")
    field, whole = _widest(built.layers)
    values = {
        "recipe": str(path),
        "image_shape": list(image_shape),
        "classes": classes,
        "parameters": built.parameters,
        "multiply_adds": built.multiply_adds,
        "views": recipe.model.views,
        "receptive_field": field,
        "batch": batch,
        "weight_bytes": 4 * built.parameters,
        "state_bytes": built.state_bytes,
        "activation_bytes": built.activation_bytes,
        "training_bytes": built.training_bytes(batch),
        "layers": [asdict(layer) for layer in built.layers],
    }
    return Answer(values=values, shown=[_table(built, max(image_shape[:2])), *_sums(values, whole)])


def _shape(settings: DataSettings) -> tuple[tuple[int, int, int], int]:
    """Shape of the images and number of classes; what has no name is decoded into the cache."""
    known = known_shape(settings)
    if known is not None:
        return known
    dataset = prepare(settings, cache=dataset_cache())
    return dataset.image_shape, len(dataset.class_names)


def _widest(layers: Sequence[Layer]) -> tuple[int | None, bool]:
    """The receptive field of the last layer that has one in pixels, and whether a later one sees the whole image."""
    fields = [layer.receptive_field for layer in layers]
    in_pixels = [field for field in fields if field]
    return (in_pixels[-1] if in_pixels else None), 0 in fields


def _table(built: Built, side: int) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("layer", "kind"):
        table.add_column(heading, no_wrap=True)
    for heading in ("output", "parameters", "multiply-adds", "sees"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in built.layers:
        shape = UNKNOWN if layer.output_shape is None else "x".join(map(str, layer.output_shape))
        work = UNKNOWN if layer.multiply_adds is None else f"{layer.multiply_adds:,}"
        cells = (layer.name, layer.kind, shape, f"{layer.parameters:,}", work, _sees(layer, side))
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _sees(layer: Layer, side: int) -> str:
    field = layer.receptive_field
    if field is None:
        return UNKNOWN
    if field == 0:
        return "all"
    return f"{field}x{field}" + (" (all)" if field >= 2 * side - 1 else "")


def _sums(values: dict[str, Any], whole: bool) -> list[str]:
    height, width, channels = values["image_shape"]
    work = values["multiply_adds"]
    field = values["receptive_field"]
    pixels = UNKNOWN if field is None else f"{field}x{field} pixels"
    sees = f"the last feature map sees {pixels} of {height}x{width}" + (
        ", the layers after it the whole image" if whole else ""
    )
    memory = values["training_bytes"]
    of_what = "an image" if values["views"] == 1 else "each of an image's two views"
    return [
        "",
        f"images {height}x{width}x{channels}, {values['classes']} classes",
        f"{values['parameters']:,} parameters ({values['weight_bytes'] / MEGA:.1f} MB in float32)",
        f"multiply-adds of {of_what}, forward: " + (UNKNOWN if work is None else f"{work:,}"),
        sees,
        f"memory to train with batches of {values['batch']}: "
        + (UNKNOWN if memory is None else f"about {memory / MEGA:.0f} MB")
        + ": weights, gradients, the optimizer's variables, and each layer's output twice",
    ]
