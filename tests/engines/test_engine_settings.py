"""What a sweep file may ask of an engine, and how it is told that it may not."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_sweeps import SPACE, toy_sweep

from podium.engines.make import option_faults
from podium.engines.options import allowed_options
from podium.engines.optuna_pruners import PRUNERS
from podium.engines.optuna_samplers import EXTRAS, SAMPLERS, make_sampler
from podium.errors import InvalidInput
from podium.sweep_file import OptunaSettings, read_sweep

OPTUNA = {"name": "optuna", "pruner": "none"}
TWO = [{"metric": "val_accuracy", "goal": "maximize"}, {"metric": "parameters", "goal": "minimize"}]
LIMIT = {"parameters": {"at_most": 1_000_000}}
EPOCHS = {"training.epochs": {"type": "int", "low": 1, "high": 9}}

REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "unknown option": (
        {**OPTUNA, "sampler_options": {"n_startup_trial": 3}},
        {},
        "engine.sampler_options.n_startup_trial: TPESampler has no option 'n_startup_trial' that a file can set. "
        "Did you mean 'n_startup_trials'? Allowed: consider_endpoints",
    ),
    "wrong type": (
        {**OPTUNA, "sampler_options": {"n_startup_trials": "3"}},
        {},
        "engine.sampler_options.n_startup_trials: got '3', TPESampler takes a whole number",
    ),
    "true for a number": (
        {**OPTUNA, "sampler_options": {"n_startup_trials": True}},
        {},
        "got True, TPESampler takes a whole number",
    ),
    "an object that JSON cannot hold": (
        {**OPTUNA, "sampler_options": {"gamma": 3}},
        {},
        "engine.sampler_options.gamma: TPESampler has no option 'gamma' that a file can set",
    ),
    "the seed is the engine's": (
        {**OPTUNA, "sampler_options": {"seed": 3}},
        {},
        "engine.sampler_options.seed: TPESampler has no option 'seed'",
    ),
    "no options at all": (
        {**OPTUNA, "sampler": "random", "sampler_options": {"n": 1}},
        {},
        "Allowed: RandomSampler takes no options here",
    ),
    "value that the library refuses": (
        {**OPTUNA, "sampler": "nsga2", "sampler_options": {"population_size": 1}},
        {},
        "engine.sampler_options: `population_size` must be greater than or equal to 2",
    ),
    "pruner option": (
        {"name": "optuna", "pruner": "hyperband", "pruner_options": {"reduction": 3}},
        {},
        "engine.pruner_options.reduction: HyperbandPruner has no option 'reduction'",
    ),
    "pruner value that the library refuses": (
        {"name": "optuna", "pruner": "percentile", "pruner_options": {"percentile": 200}},
        {},
        "engine.pruner_options: Percentile must be between 0 and 100",
    ),
    "what patient wraps": (
        {"name": "optuna", "pruner": "patient", "pruner_options": {"wrapped_pruner": "patient"}},
        {},
        "engine.pruner_options.wrapped_pruner: got 'patient' Allowed: median, percentile, hyperband",
    ),
    "options of what patient wraps": (
        {
            "name": "optuna",
            "pruner": "patient",
            "pruner_options": {"wrapped_pruner": "median", "wrapped_options": {"n_startup": 3}},
        },
        {},
        "engine.pruner_options.wrapped_options.n_startup: MedianPruner has no option 'n_startup'",
    ),
    "pruning with several objectives": (
        {"name": "optuna", "pruner": "median"},
        {"objective": TWO},
        "engine.pruner: Optuna cannot prune with several objectives Allowed: none",
    ),
    "constraints with a sampler that ignores them": (
        {**OPTUNA, "sampler": "random"},
        {"constraints": LIMIT},
        "engine.sampler: 'random' cannot keep to constraints Allowed: tpe, gp, nsga2",
    ),
    "epochs under hyperband": (
        {"name": "optuna", "pruner": "hyperband"},
        {"space": EPOCHS},
        "engine.pruner: hyperband allots the recipe's epochs itself",
    ),
    "a grid without end": (
        {**OPTUNA, "sampler": "grid"},
        {
            "space": {
                key: {"type": "int", "low": 1, "high": 1000}
                for key in ("model.filters", "training.batch_size")
            }
        },
        "space: the grid has 1,000,000 points",
    ),
}
REFUSED_BY_KERAS_TUNER: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "several objectives": (
        {"name": "keras_tuner", "oracle": "random"},
        {"objective": TWO},
        "one objective, or engine.name: optuna",
    ),
    "constraints": (
        {"name": "keras_tuner", "oracle": "random"},
        {"constraints": LIMIT},
        "no constraints, or engine.name: optuna",
    ),
    "epochs under hyperband": (
        {"name": "keras_tuner", "oracle": "hyperband"},
        {"space": EPOCHS},
        "engine.oracle: hyperband allots the recipe's epochs itself",
    ),
    "unknown option": (
        {"name": "keras_tuner", "oracle": "bayesian", "oracle_options": {"apha": 1e-3}},
        {},
        "engine.oracle_options.apha: BayesianOptimizationOracle has no option 'apha' that a file can set. "
        "Did you mean 'alpha'? Allowed: alpha, beta, num_initial_points",
    ),
    "wrong type": (
        {"name": "keras_tuner", "oracle": "hyperband", "oracle_options": {"factor": 2.5}},
        {},
        "engine.oracle_options.factor: got 2.5, HyperbandOracle takes a whole number",
    ),
    "value that the library refuses": (
        {"name": "keras_tuner", "oracle": "hyperband", "oracle_options": {"factor": 1}},
        {},
        "engine.oracle_options: factor needs to be a int larger than 1",
    ),
    "the budget is the sweep's": (
        {"name": "keras_tuner", "oracle": "random", "oracle_options": {"max_trials": 5}},
        {},
        "engine.oracle_options.max_trials: RandomSearchOracle has no option 'max_trials'",
    ),
}


def faults(folder: Path, engine: dict[str, Any], more: dict[str, Any]) -> list[str]:
    return [str(fault) for fault in option_faults(toy_sweep(folder, engine, **more).file)]


@pytest.mark.parametrize("case", REFUSED)
def test_what_optuna_cannot_do_is_refused_with_what_can(case: str, tmp_path: Path) -> None:
    engine, more, expected = REFUSED[case]
    assert any(expected in fault for fault in faults(tmp_path, engine, more)), faults(tmp_path, engine, more)


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED_BY_KERAS_TUNER)
def test_what_keras_tuner_cannot_do_is_refused_with_what_can(case: str, tmp_path: Path) -> None:
    engine, more, expected = REFUSED_BY_KERAS_TUNER[case]
    assert any(expected in fault for fault in faults(tmp_path, engine, more)), faults(tmp_path, engine, more)


@pytest.mark.parametrize("sampler", EXTRAS)
def test_a_sampler_whose_library_is_missing_names_the_extra(sampler: str, tmp_path: Path) -> None:
    found = faults(tmp_path, {**OPTUNA, "sampler": sampler}, {})
    if importlib.util.find_spec(EXTRAS[sampler]) is None:
        assert len(found) == 1
        assert f"make extras EXTRAS={sampler}" in found[0]
    else:
        assert found == []


def test_all_faults_are_found_at_once(tmp_path: Path) -> None:
    engine = {
        "name": "optuna",
        "sampler_options": {"gama": 1, "group": 1},
        "pruner": "median",
        "pruner_options": {"interval": 2},
    }
    assert len(faults(tmp_path, engine, {"objective": TWO})) == 4


def test_every_option_that_json_can_hold_is_accepted_and_reaches_the_library(tmp_path: Path) -> None:
    samples = {bool: False, float: 0.5, int: 2, str: "sobol", dict: {}}
    for name in ("tpe", "nsga2", "qmc"):
        known = allowed_options(SAMPLERS[name], ("seed", "search_space"))
        plain = {"bool", "int", "float", "str"}
        for parameter in inspect.signature(SAMPLERS[name].__init__).parameters.values():  # type: ignore[misc]
            kinds = {part.strip() for part in str(parameter.annotation).split("|")}
            if kinds & plain and parameter.name != "seed":
                assert parameter.name in known
        for option, kinds_of in known.items():
            value = next(value for kind, value in samples.items() if kind in kinds_of)
            engine = {**OPTUNA, "sampler": name, "sampler_options": {option: value}}
            assert faults(tmp_path, engine, {}) == [], (name, option, value)
    for name in PRUNERS:
        for option in allowed_options(PRUNERS[name]):
            assert option in inspect.signature(PRUNERS[name].__init__).parameters  # type: ignore[misc]


def test_new_and_old_options_of_the_library_raise_no_warning(tmp_path: Path) -> None:
    settings = OptunaSettings(sampler_options={"group": True, "prior_weight": 2.0, "multivariate": True})
    space = toy_sweep(tmp_path, OPTUNA).file.space
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        make_sampler(settings, space, number=1, proposal_seed=1)
    assert raised == []


def test_conditions_switch_grouped_tpe_on(tmp_path: Path) -> None:
    def grouped(space: dict[str, Any], **options: Any) -> bool:
        sweep = toy_sweep(tmp_path, {**OPTUNA, "sampler_options": options}, space=space)
        assert isinstance(sweep.file.engine, OptunaSettings)
        sampler: Any = make_sampler(sweep.file.engine, sweep.file.space, number=1, proposal_seed=1)
        return bool(sampler._group)

    flat = {"model.dropout": SPACE["model.dropout"]}
    assert grouped(SPACE)
    assert not grouped(flat)
    assert not grouped(SPACE, group=False)
    assert not grouped(SPACE, multivariate=False)


def test_another_engine_on_the_command_line_drops_the_files_options_but_the_seed(tmp_path: Path) -> None:
    toy_sweep(tmp_path, {**OPTUNA, "sampler_options": {"n_startup_trials": 3}, "seed": 7})
    path = tmp_path / "toy.yaml"
    engine = read_sweep(path, ["engine.name=keras_tuner", "engine.oracle=random"]).file.engine
    assert engine.model_dump() == {"name": "keras_tuner", "oracle": "random", "oracle_options": {}, "seed": 7}
    kept = read_sweep(path, ["engine.name=optuna", "engine.seed=1"]).file.engine
    assert kept.model_dump()["sampler_options"] == {"n_startup_trials": 3}


@pytest.mark.parametrize(
    ("engine", "objective", "expected"),
    [
        ({"name": "optna"}, None, "engine.name: got 'optna'. Did you mean 'optuna'?"),
        ({"sampler": "tpe", "samplr": 1}, None, "engine.samplr: unknown key. Did you mean 'sampler'?"),
        (
            {"name": "keras_tuner", "pruner": "median"},
            None,
            "KerasTuner has no pruners: take engine.name 'optuna'",
        ),
        (
            {},
            [{"metric": "seconds", "goal": "minimize"}, TWO[1]],
            "objective: needs a metric of the training",
        ),
        ({}, [*TWO, dict(TWO[1])], "objective.2.metric: is an objective already"),
        ({}, [{"metrc": "seconds"}, TWO[0]], "objective.0.metrc: unknown key. Did you mean 'metric'?"),
        ({}, {"metric": "parameters", "goal": "minimize"}, "objective: needs a metric of the training"),
    ],
)
def test_a_wrong_engine_or_objective_is_named_with_its_line(
    engine: dict[str, Any], objective: Any, expected: str, tmp_path: Path
) -> None:
    toy_sweep(tmp_path, {})
    path = tmp_path / "toy.yaml"
    content = {**yaml.safe_load(path.read_text()), "engine": engine}
    if objective is not None:
        content["objective"] = objective
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(InvalidInput) as refused:
        read_sweep(path)
    found = [str(fault) for fault in refused.value.faults]
    assert any(expected in fault for fault in found), found
    assert all(fault.startswith(f"{path}:") for fault in found)
