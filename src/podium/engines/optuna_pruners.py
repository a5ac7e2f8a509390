"""Owns Optuna's pruners as a sweep file names them, with their defaults."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.trial import FrozenTrial

from podium.sweep_file import OptunaSettings

PRUNERS: dict[str, type[BasePruner]] = {
    "median": MedianPruner,
    "percentile": PercentilePruner,
    "hyperband": HyperbandPruner,
    "successive_halving": SuccessiveHalvingPruner,
    "patient": PatientPruner,
    "none": NopPruner,
}
WRAPPED, WRAPPED_OPTIONS = "wrapped_pruner", "wrapped_options"
WRAPPABLE = ("median", "percentile", "hyperband", "successive_halving", "none")


class FixedHyperband(HyperbandPruner):
    """Hyperband whose brackets follow from a key of the sweep's instead of the study's name.

    Optuna hashes the study's name and the trial's number, so that a sweep run again under another name
    would put its trials into other brackets.
    """

    def __init__(self, *, bracket_key: str, **options: Any) -> None:
        super().__init__(**options)
        self._bracket_key = bracket_key

    def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        named: Any = SimpleNamespace(study_name=self._bracket_key)
        return super()._get_bracket_id(named, trial)


@contextmanager
def asked_for() -> Iterator[None]:
    """Around making what a sweep file names: no warning on each proposal that it is new, or about to go."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*has been deprecated in v")
        yield


def make_pruner(settings: OptunaSettings, *, epochs: int) -> BasePruner:
    """The pruner of a sweep whose trials train for so many epochs.

    Raises: ValueError, TypeError on options that do not fit.
    """
    with asked_for():
        return _pruner(settings.pruner, settings.pruner_options, epochs=epochs, seed=settings.seed)


def _pruner(name: str, options: dict[str, Any], *, epochs: int, seed: int) -> BasePruner:
    settled = {**_defaults(name, epochs), **options}
    if name == "hyperband":
        return FixedHyperband(bracket_key=f"podium-{seed}", **settled)
    if name == "patient":
        inner = settled.pop(WRAPPED, "median")
        inner_options = settled.pop(WRAPPED_OPTIONS, {})
        wrapped = None if inner == "none" else _pruner(inner, inner_options, epochs=epochs, seed=seed)
        return PatientPruner(wrapped, **settled)
    factory: Any = PRUNERS[name]
    pruner: BasePruner = factory(**settled)
    return pruner


def _defaults(name: str, epochs: int) -> dict[str, Any]:
    """What Podium sets otherwise than the library: steps are epochs from 1, so a first rung is one epoch."""
    warmup = {"n_warmup_steps": max(1, epochs // 10)}
    defaults: dict[str, dict[str, Any]] = {
        "median": warmup,
        "percentile": {"percentile": 25.0, **warmup},
        "hyperband": {"min_resource": 1, "max_resource": epochs, "reduction_factor": 3},
        "successive_halving": {"min_resource": 1},
        "patient": {"patience": 2},
        "none": {},
    }
    return defaults[name]
