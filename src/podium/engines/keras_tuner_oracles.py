"""Owns KerasTuner's Oracles as a sweep file names them: loading, the space in their words, their state."""

from __future__ import annotations

import importlib
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from podium.engines.base import Scalar
from podium.engines.options import signature_faults
from podium.engines.optuna_space import distribution, holds, stepped
from podium.errors import Fault
from podium.result import Goal
from podium.search_space import CategoricalParameter, FloatParameter, Parameter, fits, is_active, ordered
from podium.sweep_file import KerasTunerSettings

METRIC = "objective"
CLASSES = {
    "random": "RandomSearchOracle",
    "bayesian": "BayesianOptimizationOracle",
    "hyperband": "HyperbandOracle",
    "grid": "GridSearchOracle",
}
WITHHELD = (
    "objective",
    "max_trials",
    "max_epochs",
    "seed",
    "hyperparameters",
    "allow_new_entries",
    "tune_new_entries",
    "max_retries_per_trial",
    "max_consecutive_failed_trials",
)
HIDDEN = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}


def load_library() -> Any:
    """The keras_tuner package. It loads TensorFlow, which must not take a GPU in the coordinator."""
    if "keras_tuner" in sys.modules or "tensorflow" in sys.modules:
        return importlib.import_module("keras_tuner")
    before = {name: os.environ.get(name) for name in HIDDEN}
    os.environ.update(HIDDEN)
    try:
        library = importlib.import_module("keras_tuner")
        tensorflow = sys.modules.get("tensorflow")
        if tensorflow is not None:
            tensorflow.config.set_visible_devices([], "GPU")  # and lists the devices now, once for all
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return library


@contextmanager
def calling(*, on_one_thread: bool = False) -> Iterator[None]:
    """Around calls of an Oracle: without the library's warnings that a user can do nothing about.

    On one thread the Bayesian Oracle takes 3 s for a proposal that takes it 30 s on threads that workers
    need, since it asks its model of the results thousands of times; setting the limit takes 20 ms.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*(currentThread|getName)")
        warnings.filterwarnings("ignore", category=UserWarning, module=r"sklearn\.gaussian_process")
        with threadpool_limits(1) if on_one_thread else nullcontext():
            yield


def oracle_option_faults(settings: KerasTunerSettings) -> list[Fault]:
    """Unknown options, wrong types, and what the Oracle's class itself refuses."""
    place = "engine.oracle_options"
    factory = getattr(load_library().oracles, CLASSES[settings.oracle])
    faults = signature_faults(factory, settings.oracle_options, place=place, withheld=WITHHELD)
    if not faults:
        try:
            make_oracle(settings, {}, goal="maximize", epochs=9)
        except (ValueError, TypeError, ArithmeticError) as error:
            faults.append(
                Fault(message=str(error).splitlines()[0], key=place, got=repr(settings.oracle_options))
            )
    return faults


def make_oracle(
    settings: KerasTunerSettings, space: Mapping[str, Parameter], *, goal: Goal, epochs: int
) -> Any:
    """A new Oracle that writes no files, repeats no trial by itself and has no budget of its own."""
    library = load_library()
    factory = getattr(library.oracles, CLASSES[settings.oracle])
    unwritten = type(
        f"Unwritten{factory.__name__}",
        (factory,),
        {"save": lambda self: None, "_save_trial": lambda self, trial: None},
    )
    own: dict[str, Any] = {
        "objective": library.Objective(METRIC, "max" if goal == "maximize" else "min"),
        "hyperparameters": hyperparameters(space),
        "allow_new_entries": False,
        "tune_new_entries": False,
        "max_consecutive_failed_trials": sys.maxsize,  # the coordinator decides when to stop
        # Never 0, for which an Oracle takes a seed by chance.
        "seed": 1 + int(np.random.SeedSequence(settings.seed).generate_state(1)[0]) // 2,
    }
    if settings.oracle == "hyperband":
        own |= {"max_epochs": epochs, "hyperband_iterations": None}
    else:
        own |= {"max_trials": None}
    oracle = unwritten(**{**own, **settings.oracle_options})
    oracle.verbose = 0
    return oracle


def hyperparameters(space: Mapping[str, Parameter]) -> Any:
    """The space in KerasTuner's words; choices and stepped floats by their index, of whatever type they are.

    Conditions are what HyperParameters.conditional_scope makes; that itself cannot put a parameter under
    two parents that do not depend on each other.
    """
    library = load_library()
    kinds = library.engine.hyperparameters
    parent = importlib.import_module("keras_tuner.src.engine.conditions").Parent
    made = library.HyperParameters()
    for key in ordered(space):
        parameter = space[key]
        conditions = [
            parent(other, [_encoded(space[other], value) for value in values])
            for other, values in parameter.when.items()
        ]
        listed = _listed(parameter)
        if listed is not None:
            hp = kinds.Choice(key, list(range(len(listed))), conditions=conditions)
        elif isinstance(parameter, FloatParameter):
            hp = kinds.Float(
                key, parameter.low, parameter.high, sampling=parameter.scale, conditions=conditions
            )
        else:
            assert not isinstance(parameter, CategoricalParameter)
            # With a step even where it is 1: without one, the upper end of [0, 1] gives high + 1.
            step = None if parameter.scale == "log" else parameter.step or 1
            hp = kinds.Int(
                key,
                parameter.low,
                parameter.high,
                step=step,
                sampling=parameter.scale,
                conditions=conditions,
            )
        made.merge([hp])
    return made


def decoded(space: Mapping[str, Parameter], values: Mapping[str, Any]) -> dict[str, Scalar]:
    """An Oracle's values as the recipe's, active ones only, in the space's order."""
    chosen: dict[str, Scalar] = {}
    for key in ordered(space):
        parameter = space[key]
        if not is_active(parameter, chosen):
            continue
        listed = _listed(parameter)
        if listed is not None:
            chosen[key] = listed[values[key]]
        elif isinstance(parameter, FloatParameter):
            chosen[key] = min(max(float(values[key]), parameter.low), parameter.high)
        else:
            assert not isinstance(parameter, CategoricalParameter)
            chosen[key] = min(max(int(values[key]), parameter.low), parameter.high)
    return chosen


def encoded(space: Mapping[str, Parameter], chosen: Mapping[str, Scalar]) -> dict[str, Any] | None:
    """The recipe's values as an Oracle's, None if they are no point of the space."""
    if not fits(space, chosen) or not all(holds(distribution(space[key]), chosen[key]) for key in chosen):
        return None
    return {key: _encoded(space[key], value) for key, value in chosen.items()}


def get_state(oracle: Any) -> dict[str, Any]:
    """All that an Oracle knows, for JSON, its own objects in it; not the space, which the sweep file holds."""
    state = oracle.get_state()
    del state["hyperparameters"]
    if math.isinf(state.get("hyperband_iterations", 0)):
        state["hyperband_iterations"] = None
    trials = [
        {
            "trial_id": trial.trial_id,
            "values": trial.hyperparameters.values,
            "status": trial.status,
            "score": trial.score,
            "best_step": trial.best_step,
        }
        for trial in oracle.trials.values()
    ]
    document: dict[str, Any] = {"state": state, "trials": trials}
    if hasattr(oracle, "_populate_next"):  # the grid's place, which GridSearchOracle leaves out of its state
        linked = oracle._ordered_ids
        document["grid"] = {
            "populate_next": oracle._populate_next,
            "memory": linked._memory,
            "next": list(linked._next_index.items()),
            "last": linked._last_index,
        }
    return document


def set_state(oracle: Any, document: Mapping[str, Any]) -> None:
    """Bring an Oracle of the same settings to a state that `get_state` gave; keeps parts of the document."""
    oracle.trials = {}
    for kept in document["trials"]:
        trial = new_trial(oracle, kept["trial_id"], kept["values"], status=kept["status"])
        trial.score, trial.best_step = kept["score"], kept["best_step"]
        oracle.trials[trial.trial_id] = trial
    state = {**document["state"], "hyperparameters": oracle.hyperparameters.get_config()}
    if "hyperband_iterations" in state and state["hyperband_iterations"] is None:
        state["hyperband_iterations"] = math.inf
    oracle.set_state(state)
    if "grid" in document:
        grid, linked = document["grid"], oracle._ordered_ids
        oracle._populate_next = list(grid["populate_next"])
        linked._memory = list(grid["memory"])
        linked._data_to_index = {data: index for index, data in enumerate(linked._memory)}
        linked._next_index.clear()
        linked._next_index.update((here, after) for here, after in grid["next"])
        linked._last_index = grid["last"]


def new_trial(oracle: Any, trial_id: str, values: Mapping[str, Any], *, status: str) -> Any:
    """A trial of the Oracle's with given values; not yet among its trials."""
    own = oracle.get_space()
    own.values = dict(values)
    factory = importlib.import_module("keras_tuner.src.engine.trial").Trial
    return factory(hyperparameters=own, trial_id=trial_id, status=status)


def _listed(parameter: Parameter) -> list[Scalar] | None:
    if isinstance(parameter, CategoricalParameter):
        return list(parameter.choices)
    if isinstance(parameter, FloatParameter) and parameter.step is not None:
        return list(stepped(parameter))
    return None


def _encoded(parameter: Parameter, value: Scalar) -> Any:
    listed = _listed(parameter)
    if listed is None:
        return value
    return next(
        index for index, choice in enumerate(listed) if type(choice) is type(value) and choice == value
    )
