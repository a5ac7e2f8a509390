"""Owns the sweep file: a recipe, a search space, an engine and a budget, read and checked as one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from podium.errors import Fault, InvalidInput
from podium.recipe import Recipe, has_key, read_recipe, unknown_key
from podium.sweep_checks import meaning_faults
from podium.sweep_settings import (
    EPOCH_METRICS as EPOCH_METRICS,
)
from podium.sweep_settings import (
    SETTINGS as SETTINGS,
)
from podium.sweep_settings import (
    ConstraintSettings as ConstraintSettings,
)
from podium.sweep_settings import (
    EngineSettings as EngineSettings,
)
from podium.sweep_settings import (
    KerasTunerSettings as KerasTunerSettings,
)
from podium.sweep_settings import (
    LimitSettings as LimitSettings,
)
from podium.sweep_settings import (
    ListedSettings as ListedSettings,
)
from podium.sweep_settings import (
    Objectives as Objectives,
)
from podium.sweep_settings import (
    ObjectiveSettings as ObjectiveSettings,
)
from podium.sweep_settings import (
    OptunaSettings as OptunaSettings,
)
from podium.sweep_settings import (
    SweepFile as SweepFile,
)
from podium.yaml_file import Document, parse_value, read_document, validated


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep as resolved: the file, its recipe with overrides applied, where it came from."""

    file: SweepFile
    recipe: Recipe
    path: Path
    code: Path | None

    def document(self) -> dict[str, Any]:
        """Everything that decides the outcome, as plain JSON: what the identity hashes."""
        content = self.file.model_dump(exclude={"recipe", "code", *SETTINGS})
        # Checks judge a training, after it; resources say where it runs.
        recipe = self.recipe.model_dump(exclude={"code", "checks", "resources"})
        return {"sweep": content, "recipe": recipe}

    def identity(self, *, train_digest: str, code_digest: str | None) -> str:
        """SHA-256 over the resolved file (less SETTINGS), the data and the user's code."""
        content = {**self.document(), "train_digest": train_digest, "code_digest": code_digest}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_sweep(path: Path, assignments: Sequence[str] = (), *, data: str | None = None) -> Sweep:
    """Read a sweep file and its recipe, apply `key=value` assignments, and check all of it.

    Raises: InvalidInput with every fault, each with file and line where it has one.
    """
    document = read_document(path)
    content = document.content
    values = parse_assignments(assignments)
    for_sweep = {key: value for key, value in values.items() if _is_sweep_key(key)}
    for_recipe = {key: value for key, value in values.items() if key not in for_sweep}
    _reject_ambiguous(for_sweep)
    _settle_engine(content, for_sweep)
    _assign_all(content, for_sweep)
    sweep_faults: list[Fault] = []
    file: SweepFile | None = None
    try:
        file = validated(SweepFile, Document(content=content, lines=document.lines, file=document.file))
    except InvalidInput as error:
        sweep_faults += error.faults
    if data is not None:
        for_recipe["data.reference"] = data
    recipe, recipe_faults = _read_recipe_part(content, document, path, for_recipe)
    sweep_faults += recipe_faults
    if file is not None:
        sweep_faults += [
            document.fault(fault.key or "", fault.message, got=fault.got, allowed=fault.allowed)
            for fault in meaning_faults(file, recipe)
        ]
    code, code_faults = _code_root(file, recipe, path, document)
    sweep_faults += code_faults
    if sweep_faults or file is None or recipe is None:
        count = len(sweep_faults)
        raise InvalidInput(f"{path}: {count} fault{'s' if count > 1 else ''}.", faults=sweep_faults)
    return Sweep(file=file, recipe=recipe, path=path.resolve(), code=code)


def sweep_as_typed(
    path: Path,
    assignments: Sequence[str],
    *,
    data: str | None,
    trials: int | None,
    hours: float | None,
    workers: int | None,
    executor: str | None = None,
) -> Sweep:
    """`read_sweep` with a command's options over it. Raises: InvalidInput with every fault."""
    options = {"budget.trials": trials, "budget.hours": hours, "workers": workers, "executor": executor}
    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    return read_sweep(path, [*assignments, *given], data=data)


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """`['a.b=1e-3']` to `{'a.b': 0.001}`. Raises: InvalidInput on anything that is not key=value."""
    values: dict[str, Any] = {}
    faults = []
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            faults.append(
                Fault(message=f"'{text}' is not key=value", got=text, allowed="for example training.epochs=5")
            )
            continue
        values[key.strip()] = parse_value(value)
    if faults:
        raise InvalidInput("an assignment cannot be read.", faults=faults)
    return values


def recipe_with_assignments(
    path: Path, assignments: Sequence[str], *, data: str | None, seed: int | None
) -> Recipe:
    """A recipe file with `key=value` assignments, a data reference and a seed put over it."""
    values = parse_assignments(assignments)
    if data is not None:
        values["data.reference"] = data
    if seed is not None:
        values["training.seed"] = seed
    known = Recipe()
    faults = [
        unknown_key(key, known)
        for key in values
        if not has_key(known, key) and not key.startswith("model.parameters.")
    ]
    if faults:
        raise InvalidInput("an assignment names no key of a recipe.", faults=faults)
    return read_recipe(path, values)


def _is_sweep_key(key: str) -> bool:
    return key.split(".")[0] in SweepFile.model_fields


def _reject_ambiguous(for_sweep: Mapping[str, Any]) -> None:
    faults = [
        Fault(
            message="is a key of the sweep file and of the recipe",
            key=key,
            allowed="edit the file that you mean",
        )
        for key in for_sweep
        if key.split(".")[0] in Recipe.model_fields
    ]
    if faults:
        raise InvalidInput("an assignment is ambiguous.", faults=faults)


def _settle_engine(content: dict[str, Any], assigned: Mapping[str, Any]) -> None:
    """Name the engine, which tells its kinds apart.

    Another engine keeps nothing of the file's but the seed, another sampler or pruner none of its options.
    """
    chosen = assigned.get("engine.name")
    engine = content.setdefault("engine", {})
    if not isinstance(engine, dict):
        return  # validation says so
    engine.setdefault("name", "optuna")
    if chosen is not None and chosen != engine["name"]:
        engine = content["engine"] = {key: value for key, value in engine.items() if key == "seed"}
    for kind, part in (
        (OptunaSettings, "sampler"),
        (OptunaSettings, "pruner"),
        (KerasTunerSettings, "oracle"),
    ):
        named = engine.get(part, kind.model_fields[part].default)
        if assigned.get(f"engine.{part}", named) != named:
            engine.pop(f"{part}_options", None)


def _assign_all(content: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        section, _, rest = key.partition(".")
        if not rest:
            content[section] = value
        elif section == "space":  # keys of the space hold dots themselves
            name, _, attribute = rest.rpartition(".")
            if isinstance(value, dict):
                _inside(content, "space")[rest] = value
            else:
                _inside(_inside(content, "space"), name)[attribute] = value
        else:
            here = _inside(content, section)
            *path, last = rest.split(".")
            for step in path:
                here = _inside(here, step)
            here[last] = value


def _inside(content: dict[str, Any], key: str) -> dict[str, Any]:
    """The mapping at a key, made where there is none: whether one belongs there is for validation to say."""
    inner = content.get(key)
    if not isinstance(inner, dict):
        inner = content[key] = {}
    return inner


def _read_recipe_part(
    content: Mapping[str, Any], document: Document, path: Path, overrides: Mapping[str, Any]
) -> tuple[Recipe | None, list[Fault]]:
    name = content.get("recipe")
    if not isinstance(name, str):
        return None, []  # the sweep file's own fault says so
    recipe_path = path.parent / name
    if not os.path.isfile(recipe_path):
        return None, [document.fault("recipe", f"no file {recipe_path}", got=name)]
    known = Recipe()
    faults = [
        unknown_key(key, known)
        for key in overrides
        if not has_key(known, key) and not key.startswith("model.parameters.")
    ]
    if faults:
        return None, faults
    try:
        return read_recipe(recipe_path, overrides), []
    except InvalidInput as error:
        return None, list(error.faults) or [document.fault("recipe", error.message, got=name)]


def _code_root(
    file: SweepFile | None, recipe: Recipe | None, path: Path, document: Document
) -> tuple[Path | None, list[Fault]]:
    if file is not None and file.code is not None:
        root = path.parent / file.code
        if not os.path.isdir(root):
            return None, [document.fault("code", f"no folder {root}", got=file.code)]
        return root.resolve(), []
    return (Path(recipe.code) if recipe is not None and recipe.code else None), []


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of SweepFile or Recipe, for editors."""
    return model.model_json_schema()
