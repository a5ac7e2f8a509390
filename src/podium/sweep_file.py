"""Owns the sweep file: a recipe, a search space, an engine and a budget, read and checked as one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from podium.errors import Fault, InvalidInput
from podium.recipe import Recipe, Seed, Settings, has_key, read_recipe, unknown_key
from podium.search_space import Parameter, Space, bounds, condition_faults
from podium.yaml_file import ONE, SEVERAL, Document, parse_value, read_document, validated

Metric = Literal["val_accuracy", "val_loss", "parameters", "seconds"]
METRIC_GOALS = {
    "val_accuracy": "maximize",
    "val_loss": "minimize",
    "parameters": "minimize",
    "seconds": "minimize",
}
EPOCH_METRICS = ("val_accuracy", "val_loss")


class OptunaSettings(Settings):
    """Optuna's study: a sampler proposes, a pruner stops. Options are those of the library's classes.

    `gp` and `cmaes` need extras of the same name. `patient` wraps another pruner, named in pruner_options.
    """

    name: Literal["optuna"] = "optuna"
    sampler: Literal["tpe", "gp", "cmaes", "nsga2", "qmc", "random", "grid"] = "tpe"
    pruner: Literal["median", "percentile", "hyperband", "successive_halving", "patient", "none"] = (
        "hyperband"
    )
    sampler_options: dict[str, Any] = {}
    pruner_options: dict[str, Any] = {}
    seed: Seed = 0


class KerasTunerSettings(Settings):
    """A KerasTuner Oracle. Options are those of the library's class.

    `hyperband` goes on with new brackets until the budget ends, unless its options set hyperband_iterations.
    """

    name: Literal["keras_tuner"]
    oracle: Literal["random", "bayesian", "hyperband", "grid"] = "hyperband"
    oracle_options: dict[str, Any] = {}
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _has_no_pruner(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.keys() & {"pruner", "pruner_options"}:
            raise ValueError(
                "KerasTuner has no pruners: take engine.name 'optuna', or engine.oracle 'hyperband' without one"
            )
        return content


EngineSettings = Annotated[OptunaSettings | KerasTunerSettings, Field(discriminator="name")]


class ObjectiveSettings(Settings):
    """What is optimised.

    `val_accuracy`, `val_loss`: of every epoch; a trial's value is the best over its epochs. `parameters`
    (the model's size) and `seconds` (of the training) stand beside one of those.
    """

    metric: Metric = "val_accuracy"
    goal: Literal["maximize", "minimize"] = "maximize"


def _one_or_several(value: object) -> str:
    return SEVERAL if isinstance(value, list | tuple) else ONE


Objectives = Annotated[
    Annotated[ObjectiveSettings, Tag(ONE)]
    | Annotated[list[ObjectiveSettings], Field(min_length=2, max_length=4), Tag(SEVERAL)],
    Discriminator(_one_or_several),
]


class LimitSettings(Settings):
    """What a feasible trial keeps within."""

    at_most: Annotated[int, Field(ge=1)]


class ConstraintSettings(Settings):
    """What makes a trial infeasible; `parameters` is the model's size."""

    parameters: LimitSettings | None = None


class BudgetSettings(Settings):
    """Limits of the whole sweep, over all workers and restarts. At least one must be set."""

    trials: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    hours: Annotated[float, Field(gt=0.0)] | None = None


class ConfirmSettings(Settings):
    """How many leaders `podium confirm` trains again, on how many fresh seeds."""

    top: Annotated[int, Field(ge=1, le=100)] = 3
    seeds: Annotated[int, Field(ge=2, le=100)] = 5


class SweepFile(Settings):
    """A sweep as written."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    question: str = ""
    recipe: str
    engine: EngineSettings = OptunaSettings()
    objective: Objectives = ObjectiveSettings()
    constraints: ConstraintSettings = ConstraintSettings()
    budget: BudgetSettings
    space: Annotated[Space, Field(min_length=1)]
    confirm: ConfirmSettings = ConfirmSettings()
    workers: Annotated[int, Field(ge=1, le=4096)] | None = None
    executor: Literal["local"] = "local"
    code: str | None = None

    @property
    def objectives(self) -> tuple[ObjectiveSettings, ...]:
        """All objectives, in the file's order."""
        return (self.objective,) if isinstance(self.objective, ObjectiveSettings) else tuple(self.objective)

    @property
    def epoch_objective(self) -> ObjectiveSettings:
        """The objective that every epoch has a value of: it picks the best epoch, and pruners see it."""
        return next(objective for objective in self.objectives if objective.metric in EPOCH_METRICS)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep as resolved: the file, its recipe with overrides applied, where it came from."""

    file: SweepFile
    recipe: Recipe
    path: Path
    code: Path | None

    def document(self) -> dict[str, Any]:
        """Everything that decides the outcome, as plain JSON: what the identity hashes."""
        content = self.file.model_dump(exclude={"budget", "workers", "executor", "recipe", "code", "confirm"})
        recipe = self.recipe.model_dump(exclude={"code"})
        return {"sweep": content, "recipe": recipe}

    def identity(self, *, train_digest: str, code_digest: str | None) -> str:
        """SHA-256 over the resolved file (less budget, workers, executor), the data and the user's code."""
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
    _settle_engine(content, for_sweep.get("engine.name"))
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
            for fault in _meaning_faults(file, recipe)
        ]
    code, code_faults = _code_root(file, recipe, path, document)
    sweep_faults += code_faults
    if sweep_faults or file is None or recipe is None:
        count = len(sweep_faults)
        raise InvalidInput(f"{path}: {count} fault{'s' if count > 1 else ''}.", faults=sweep_faults)
    return Sweep(file=file, recipe=recipe, path=path.resolve(), code=code)


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


def _settle_engine(content: dict[str, Any], chosen: object) -> None:
    """Name the engine, which tells its kinds apart; another engine keeps nothing of the file's but the seed."""
    engine = content.setdefault("engine", {})
    if not isinstance(engine, dict):
        return  # validation says so
    engine.setdefault("name", "optuna")
    if chosen is not None and chosen != engine["name"]:
        content["engine"] = {key: value for key, value in engine.items() if key == "seed"}


def _assign_all(content: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        section, _, rest = key.partition(".")
        if not rest:
            content[section] = value
        elif section == "space":  # keys of the space hold dots themselves
            name, _, attribute = rest.rpartition(".")
            if isinstance(value, dict):
                content.setdefault("space", {})[rest] = value
            else:
                content.setdefault("space", {}).setdefault(name, {})[attribute] = value
        else:
            here = content.setdefault(section, {})
            *path, last = rest.split(".")
            for step in path:
                here = here.setdefault(step, {})
            here[last] = value


def _read_recipe_part(
    content: Mapping[str, Any], document: Document, path: Path, overrides: Mapping[str, Any]
) -> tuple[Recipe | None, list[Fault]]:
    name = content.get("recipe")
    if not isinstance(name, str):
        return None, []  # the sweep file's own fault says so
    recipe_path = path.parent / name
    if not recipe_path.is_file():
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


def _meaning_faults(file: SweepFile, recipe: Recipe | None) -> list[Fault]:
    faults = condition_faults(file.space)
    if file.budget.trials is None and file.budget.hours is None:
        faults.append(Fault(message="sets neither trials nor hours", key="budget"))
    faults += _objective_faults(file)
    if recipe is not None:
        for key, parameter in file.space.items():
            faults += _value_faults(key, parameter, recipe)
    return faults


def _objective_faults(file: SweepFile) -> list[Fault]:
    several = len(file.objectives) > 1
    faults = []
    for index, objective in enumerate(file.objectives):
        place = f"objective.{index}" if several else "objective"
        goal = METRIC_GOALS[objective.metric]
        if objective.goal != goal:
            faults.append(
                Fault(
                    message=f"{objective.metric} is to {goal}",
                    key=f"{place}.goal",
                    got=objective.goal,
                    allowed=goal,
                )
            )
        if objective.metric in [other.metric for other in file.objectives[:index]]:
            faults.append(
                Fault(message="is an objective already", key=f"{place}.metric", got=objective.metric)
            )
    if all(objective.metric not in EPOCH_METRICS for objective in file.objectives):
        got = ", ".join(objective.metric for objective in file.objectives)
        faults.append(
            Fault(
                message="needs a metric of the training",
                key="objective",
                got=got,
                allowed=", ".join(EPOCH_METRICS),
            )
        )
    return faults


def _value_faults(key: str, parameter: Parameter, recipe: Recipe) -> list[Fault]:
    if not has_key(recipe, key):
        fault = unknown_key(key, recipe)
        return [Fault(message=fault.message, key=f"space.{key}", got=key, allowed=fault.allowed)]
    if key.startswith("data.") or key in ("code", "training.seed"):
        return [
            Fault(
                message="cannot be searched over: trials would not be comparable", key=f"space.{key}", got=key
            )
        ]
    faults = []
    for value in bounds(parameter):
        try:
            recipe.with_values({key: value})
        except InvalidInput as error:
            message = error.faults[0].message if error.faults else error.message
            faults.append(
                Fault(
                    message=f"the recipe does not accept {value!r}: {message}", key=f"space.{key}", got=value
                )
            )
    return faults


def _code_root(
    file: SweepFile | None, recipe: Recipe | None, path: Path, document: Document
) -> tuple[Path | None, list[Fault]]:
    if file is not None and file.code is not None:
        root = (path.parent / file.code).resolve()
        if not root.is_dir():
            return None, [document.fault("code", f"no folder {root}", got=file.code)]
        return root, []
    return (Path(recipe.code) if recipe is not None and recipe.code else None), []


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of SweepFile or Recipe, for editors."""
    return model.model_json_schema()
