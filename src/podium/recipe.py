"""Owns the recipe: one full training configuration, as a file in experiments/ and as checked settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from podium.errors import Fault, InvalidInput
from podium.yaml_file import Document, nearest, read_document, validated

Precision = Literal["float32", "bfloat16", "float16"]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Plain = bool | int | float | str | None


class Settings(BaseModel):
    """Frozen settings that forbid unknown keys and convert nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ValidationSettings(Settings):
    """Which part of the training images is set aside to choose by.

    `stratified` keeps the share of each class; `first` takes the first images, as the guide does.
    """

    method: Literal["stratified", "first"] = "stratified"
    fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    seed: Seed = 0


class DataSettings(Settings):
    """`reference`: see docs/reference.md; `image_size` resizes to a square of so many pixels;
    `train_limit` trains on a stratified subset of so many images (validation stays whole)."""

    reference: Annotated[str, Field(min_length=1)] = "digits"
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    train_limit: Annotated[int, Field(ge=1)] | None = None
    validation: ValidationSettings = ValidationSettings()


class ModelSettings(Settings):
    """The guide's CNN: `depth` blocks of two 3x3 convolutions, `filters` doubling from block to block.

    The head has two dense layers, of `dense_units` and of half as many. `normalization_momentum` is batch
    normalisation's: the share of the old moving average that each step keeps. `builder` names a function
    `package.module:function` of one's own instead; it gets `parameters`.
    """

    depth: Annotated[int, Field(ge=1, le=4)] = 3
    filters: Annotated[int, Field(ge=1, le=1024)] = 32
    dropout: Fraction = 0.25
    dense_units: Annotated[int, Field(ge=2, le=65_536)] = 256
    dense_dropout: Fraction = 0.5
    normalization_momentum: Fraction = 0.99
    builder: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = None
    parameters: dict[str, Plain] = {}


class ScheduleSettings(Settings):
    """Learning rate over all steps of `training.epochs`: Keras's CosineDecay or ExponentialDecay.

    `warmup_epochs` rise linearly from 0 (cosine only); `decay_rate` is the factor over the whole training
    (exponential) and the floor as a share of the rate (cosine).
    """

    name: Literal["cosine", "exponential"]
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 0.0
    decay_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.01

    @model_validator(mode="after")
    def _fits_together(self) -> ScheduleSettings:
        if self.name == "exponential" and (self.warmup_epochs or self.decay_rate == 0.0):
            raise ValueError("an exponential schedule has no warm-up and a decay_rate above 0")
        return self


class OptimizerSettings(Settings):
    """A Keras optimizer. `weight_decay` 0 and `clipnorm` null are off; `momentum` is for sgd and rmsprop."""

    name: Literal["adam", "adamw", "nadam", "sgd", "rmsprop"] = "adam"
    learning_rate: Annotated[float, Field(gt=0.0, le=100.0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    clipnorm: Annotated[float, Field(gt=0.0)] | None = None
    momentum: Fraction = 0.0
    nesterov: bool = False
    schedule: ScheduleSettings | None = None


class AugmentationSettings(Settings):
    """Random changes of training images. `strength` scales the ranges; 0 is off, 1 is the guide's.

    `rotation` is in turns (0.1 is up to 36 degrees either way), `zoom` a share of the size.
    """

    strength: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0
    flip: bool = True
    rotation: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1
    zoom: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1


class PlateauSettings(Settings):
    """keras.callbacks.ReduceLROnPlateau."""

    monitor: Literal["val_loss", "val_accuracy", "loss", "accuracy"] = "val_loss"
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    patience: Annotated[int, Field(ge=1)] = 3
    min_lr: Annotated[float, Field(ge=0.0)] = 1e-7


class EarlyStoppingSettings(Settings):
    """keras.callbacks.EarlyStopping with restore_best_weights."""

    monitor: Literal["val_loss", "val_accuracy", "loss", "accuracy"] = "val_loss"
    patience: Annotated[int, Field(ge=1)] = 10


class CallbackSettings(Settings):
    """The standard callbacks; null switches one off. ModelCheckpoint is always there."""

    reduce_lr_on_plateau: PlateauSettings | None = PlateauSettings()
    early_stopping: EarlyStoppingSettings | None = EarlyStoppingSettings()


class TrainingSettings(Settings):
    """`seed` sets initialisation, shuffling and augmentation; `deterministic` makes reruns repeat to the bit."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 50
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    seed: Seed = 0
    deterministic: bool = True


class Recipe(Settings):
    """One full training configuration."""

    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    callbacks: CallbackSettings = CallbackSettings()
    training: TrainingSettings = TrainingSettings()
    precision: Precision = "float32"
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
