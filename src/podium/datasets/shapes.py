"""Owns the shapes of datasets before they are read: those that go by name are known without their images."""

from __future__ import annotations

from podium.datasets.array_sources import DIGITS_SIZE
from podium.datasets.decoding import Shape
from podium.datasets.references import Kind, parse_reference
from podium.recipe_sections import DataSettings

# Side of the images, and classes.
_NAMED: dict[Kind, tuple[int, int]] = {
    "digits": (DIGITS_SIZE, 10),
    "cifar10": (32, 10),
    "cifar100": (32, 100),
    "fashion_mnist": (28, 10),
}


def known_shape(settings: DataSettings) -> tuple[Shape, int] | None:
    """(height, width, 3) and number of classes of a dataset that goes by name, None of any other.

    Raises: DatasetError if the reference cannot be used.
    """
    named = _NAMED.get(parse_reference(settings.reference).kind)
    if named is None:
        return None
    side = settings.image_size or named[0]
    return (side, side, 3), named[1]
