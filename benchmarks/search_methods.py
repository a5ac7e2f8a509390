"""Owns which searches are compared: the default of a sweep, the references of the target, and all other methods."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from podium.engines.optuna_samplers import EXTRAS
from podium.sweep_file import OptunaSettings, Sweep

CONTINUED = (1, 2, 4, 6)  # of the one-epoch rule; what is left of the epochs goes into first epochs
HYPERBAND_3 = {"min_resource": 3}
HALVING_3 = {"min_resource": 3, "reduction_factor": 3}
PRUNED: dict[str, tuple[str, ...]] = {
    "tpe": ("none", "median", "percentile", "patient", "hyperband", "successive_halving"),
    "random": ("none", "median", "hyperband", "successive_halving"),
    "qmc": ("none", "median", "hyperband", "successive_halving"),
    "nsga2": ("none", "hyperband"),
    "cmaes": ("none", "median", "hyperband"),
    "gp": ("none", "hyperband"),
}
WITH_OPTIONS: list[dict[str, Any]] = [
    {"sampler": "tpe", "pruner": "hyperband", "pruner_options": HYPERBAND_3},
    {"sampler": "tpe", "pruner": "successive_halving", "pruner_options": HALVING_3},
    {"sampler": "random", "pruner": "hyperband", "pruner_options": HYPERBAND_3},
    {"sampler": "random", "pruner": "successive_halving", "pruner_options": HALVING_3},
]
ORACLES = ("random", "hyperband", "bayesian")


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to search. `settings`: `engine:` of a sweep file less the seed; None: the one-epoch rule on `first` points."""

    name: str
    settings: Mapping[str, Any] | None = None
    first: int = 0


@dataclass(frozen=True, kw_only=True)
class Methods:
    """All methods, and the names of those that the target is about; `left_out` says which cannot run here and why.

    `same_pruner` is random search with the default's pruner, None where the default is KerasTuner's, which has none.
    """

    all: tuple[Method, ...]
    default: str
    unpruned_tpe: str
    plain_random: str
    same_pruner: str | None
    one_epoch: tuple[str, ...]
    left_out: tuple[str, ...]


def methods_for(sweep: Sweep, *, points: int, early: int, only: tuple[str, ...] = ()) -> Methods:
    """What to compare on so many recorded points. `only`: parts of names; the default and its references stay.

    The one-epoch rule is there with every division of `early` epochs that the points allow.
    """
    default = sweep.file.engine.model_dump(exclude={"seed"}, exclude_defaults=True)
    default = {"name": sweep.file.engine.name, **default}
    tpe, random = (_optuna({"sampler": sampler, "pruner": "none"}) for sampler in ("tpe", "random"))
    references = [_engine(settings) for settings in (default, tpe, random)]
    if isinstance(sweep.file.engine, OptunaSettings):
        kept = {key: value for key, value in default.items() if key not in ("sampler", "sampler_options")}
        references.append(_engine({**kept, "sampler": "random"}))
    counts = {best: early - best * (sweep.recipe.training.epochs - 1) for best in CONTINUED}
    rules = [
        Method(name=f"one epoch of {count}, then the best {best}", first=count)
        for best, count in counts.items()
        if best < count <= points
    ]
    others, left_out = _others()
    if only:
        others = [method for method in others if any(part in method.name for part in only)]
    unique = {method.name: method for method in [*references, *rules, *others]}
    return Methods(
        all=tuple(unique.values()),
        default=references[0].name,
        unpruned_tpe=references[1].name,
        plain_random=references[2].name,
        same_pruner=references[3].name if len(references) > 3 else None,
        one_epoch=tuple(rule.name for rule in rules),
        left_out=left_out,
    )


def _others() -> tuple[list[Method], tuple[str, ...]]:
    found, left_out = [], []
    for sampler, pruners in PRUNED.items():
        library = EXTRAS.get(sampler)
        if library is not None and importlib.util.find_spec(library) is None:
            left_out.append(f"{sampler}: {library} is not installed")
            continue
        found += [_engine(_optuna({"sampler": sampler, "pruner": pruner})) for pruner in pruners]
    found += [_engine(_optuna(settings)) for settings in WITH_OPTIONS]
    found += [_engine({"name": "keras_tuner", "oracle": oracle}) for oracle in ORACLES]
    return found, (*left_out, "grid: the space has ranges without a step")


def _optuna(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": "optuna", **settings}


def _engine(settings: Mapping[str, Any]) -> Method:
    """A method named after what differs from the settings' defaults."""
    if settings["name"] == "keras_tuner":
        main = f"KerasTuner {settings.get('oracle', 'hyperband')}"
    else:
        main = f"{settings.get('sampler', 'tpe')} + {settings.get('pruner', 'hyperband')}"
    options = {**settings.get("sampler_options", {}), **settings.get("pruner_options", {})}
    options |= settings.get("oracle_options", {})
    shown = ", ".join(f"{key} {value}" for key, value in options.items())
    return Method(name=f"{main} ({shown})" if shown else main, settings=dict(settings))
