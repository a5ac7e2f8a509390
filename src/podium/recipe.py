"""Owns the recipe: one full training configuration, as a file in experiments/ and as checked settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, model_validator

from podium.errors import Fault, InvalidInput
from podium.recipe_sections import (
    AugmentationSettings,
    CallbackSettings,
    CheckSettings,
    ClassicalSettings,
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    Plain,
    Precision,
    ResourceSettings,
    Settings,
    TrainingSettings,
)
from podium.yaml_file import Document, nearest, read_document, validated


class Recipe(Settings):
    """One full training configuration."""

    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    callbacks: CallbackSettings = CallbackSettings()
    training: TrainingSettings = TrainingSettings()
    classical: ClassicalSettings | None = None
    precision: Precision = "float32"
    checks: CheckSettings | None = None
    resources: ResourceSettings | None = None
    code: str | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.optimizer.schedule is not None and self.callbacks.reduce_lr_on_plateau is not None:
            raise ValueError(
                "optimizer.schedule and callbacks.reduce_lr_on_plateau both set the learning rate; "
                "set one of them to null"
            )
        return self

    def flat(self) -> dict[str, Plain]:
        """All settings as dotted keys and plain values."""
        return _flatten(self.model_dump(), "")

    def with_values(self, values: Mapping[str, Any]) -> Recipe:
        """This recipe with some dotted keys changed. Raises: InvalidInput with every fault."""
        content = self.model_dump()
        for key, value in values.items():
            _assign(content, key, value)
        return validated(Recipe, Document(content=content))


def read_recipe(path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe file and change some dotted keys. `code` is resolved from the file's folder.

    Raises: InvalidInput with every fault, each with its line.
    """
    document = read_document(path)
    content = document.content
    for key, value in (overrides or {}).items():
        _assign(content, key, value)
    recipe = validated(Recipe, Document(content=content, lines=document.lines, file=document.file))
    if recipe.code is not None:
        root = path.parent / recipe.code
        if not os.path.isdir(root):
            fault = document.fault("code", f"no folder {root}", got=recipe.code)
            raise InvalidInput(f"{path} has a fault.", faults=[fault])
        recipe = recipe.model_copy(update={"code": str(root.resolve())})
    return recipe


def has_key(recipe: Recipe, key: str) -> bool:
    """Whether a dotted key is one of a recipe's (free model.parameters only if the recipe names them)."""
    parts = key.split(".")
    if parts[:2] == ["model", "parameters"] and len(parts) == 3:
        return parts[2] in recipe.model.parameters
    return _is_field(Recipe, parts)


def unknown_key(key: str, recipe: Recipe) -> Fault:
    """The fault for a key that a recipe does not have."""
    return Fault(
        message=f"no such key in a recipe.{nearest(key, recipe.flat())}",
        key=key,
        got=key,
        allowed="dotted keys of a recipe, for example optimizer.learning_rate (see docs/reference.md)",
    )


def _is_field(model: type[BaseModel], parts: list[str]) -> bool:
    field = model.model_fields.get(parts[0])
    if field is None:
        return False
    if len(parts) == 1:
        return True
    members = getattr(field.annotation, "__args__", (field.annotation,))
    return any(
        isinstance(member, type) and issubclass(member, BaseModel) and _is_field(member, parts[1:])
        for member in members
    )


def _assign(content: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    here = content
    for step in path:
        inner = here.get(step)
        here[step] = here = dict(inner) if isinstance(inner, dict) else {}
    here[last] = value


def _flatten(content: Mapping[str, Any], prefix: str) -> dict[str, Plain]:
    flat: dict[str, Plain] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
