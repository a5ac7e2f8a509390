"""Owns the settings of a sweep file: engine, objectives, budget, space, and their types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from podium.recipe_sections import Plain, Seed, Settings
from podium.search_space import Space
from podium.yaml_file import ONE, SEVERAL

Metric = Literal["val_accuracy", "val_loss", "parameters", "seconds"]
METRIC_GOALS = {
    "val_accuracy": "maximize",
    "val_loss": "minimize",
    "parameters": "minimize",
    "seconds": "minimize",
}
EPOCH_METRICS = ("val_accuracy", "val_loss")
# Keys of the file that decide how far a sweep goes and where, not what comes out: no part of its identity.
SETTINGS = frozenset({"budget", "stop_when", "workers", "executor", "confirm"})


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


class ListedSettings(Settings):
    """A fixed list: the baseline, then each of `trials`, which is the baseline with some keys of the space changed.

    `seed` is where a confirmation's fresh seeds come from.
    """

    name: Literal["listed"]
    trials: Annotated[list[dict[str, Plain]], Field(min_length=1, max_length=10_000)]
    seed: Seed = 0


EngineSettings = Annotated[OptunaSettings | KerasTunerSettings | ListedSettings, Field(discriminator="name")]


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

    @property
    def limits(self) -> dict[str, int]:
        """The largest feasible value of each metric that has a limit."""
        return {} if self.parameters is None else {"parameters": self.parameters.at_most}


class BudgetSettings(Settings):
    """Limits of the whole sweep, over all workers and restarts. At least one must be set.

    `epochs` counts those on record. When hours or epochs are used, running trials end after the epoch they are in.
    """

    trials: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    hours: Annotated[float, Field(gt=0.0)] | None = None
    epochs: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None


class StopSettings(Settings):
    """When a sweep ends before its budget: after so many trials in a row, by number, without a new best."""

    no_improvement: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


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
    stop_when: StopSettings = StopSettings()
    warm_start: Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=20)] = []
    space: Annotated[Space, Field(min_length=1)]
    confirm: ConfirmSettings = ConfirmSettings()
    workers: Annotated[int, Field(ge=1, le=4096)] | None = None
    executor: Literal["local", "ray"] = "local"
    code: str | None = None

    @property
    def objectives(self) -> tuple[ObjectiveSettings, ...]:
        """All objectives, in the file's order."""
        return (self.objective,) if isinstance(self.objective, ObjectiveSettings) else tuple(self.objective)

    @property
    def epoch_objective(self) -> ObjectiveSettings:
        """The objective that every epoch has a value of: it picks the best epoch, and pruners see it."""
        return next(objective for objective in self.objectives if objective.metric in EPOCH_METRICS)
