"""What every search method must keep, whichever library it is from."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
from toy_sweeps import (
    EPOCHS,
    FINITE_SPACE,
    SPACE,
    outcome_of,
    play,
    quality,
    toy_engine,
    toy_sweep,
)

from podium.engines.base import Done, Engine, Outcome, Proposal, Wait
from podium.engines.make import option_faults
from podium.engines.optuna_space import distribution, holds
from podium.engines.study import list_studies, prepare_storage, study_exists
from podium.errors import SweepError
from podium.search_space import is_active, ordered
from podium.sweep_file import Sweep

EXTRAS = {"gp": "torch", "cmaes": "cmaes"}


def _method(name: str, engine: dict[str, Any]) -> Any:
    missing = name in EXTRAS and importlib.util.find_spec(EXTRAS[name]) is None
    marks = [pytest.mark.skipif(missing, reason=f"the extra '{name}' is not installed")]
    if engine["name"] == "keras_tuner":
        marks.append(pytest.mark.slow)
    return pytest.param(engine, id=name, marks=marks)


OPTUNA = [
    _method(
        name, {"name": "optuna", "sampler": name, "pruner": "none", "sampler_options": options, "seed": 3}
    )
    for name, options in {
        "tpe": {"n_startup_trials": 4},
        "gp": {"n_startup_trials": 4},
        "cmaes": {},
        "nsga2": {"population_size": 4},
        "qmc": {},
        "random": {},
    }.items()
]
KERAS_TUNER = [
    _method(
        f"keras_tuner-{name}", {"name": "keras_tuner", "oracle": name, "oracle_options": options, "seed": 3}
    )
    for name, options in {
        "random": {},
        "bayesian": {"num_initial_points": 5},
        "hyperband": {},
    }.items()
]
GRIDS = [
    _method("grid", {"name": "optuna", "sampler": "grid", "pruner": "none", "seed": 3}),
    _method("keras_tuner-grid", {"name": "keras_tuner", "oracle": "grid", "seed": 3}),
]
ALL = OPTUNA + KERAS_TUNER
SMALL_SPACE = {key: SPACE[key] for key in ("optimizer.learning_rate", "model.depth", "optimizer.clipnorm")}
CHEAP = [
    _method("random", {"name": "optuna", "sampler": "random", "pruner": "none"}),
    _method("qmc", {"name": "optuna", "sampler": "qmc", "pruner": "none"}),
    _method("keras_tuner-random", {"name": "keras_tuner", "oracle": "random"}),
]


def points(proposals: list[Proposal]) -> list[dict[str, Any]]:
    return [dict(proposal.parameters) for proposal in proposals]


def space_for(engine: dict[str, Any]) -> dict[str, Any]:
    """The Bayesian Oracle takes seconds for a proposal in eleven dimensions."""
    return SMALL_SPACE if engine.get("oracle") == "bayesian" else SPACE


def faults_in(sweep: Sweep, parameters: dict[str, Any]) -> list[str]:
    """What of a proposal is not of the space: too much, too little, out of bounds, of another type."""
    space = sweep.file.space
    faults = []
    active: dict[str, Any] = {}
    for key in ordered(space):
        if is_active(space[key], active):
            if key not in parameters:
                faults.append(f"{key} is active and missing")
                break
            active[key] = parameters[key]
            kind = {"float": float, "int": int}.get(space[key].type)
            if not holds(distribution(space[key]), active[key]) or (
                kind is not None and type(active[key]) is not kind
            ):
                faults.append(f"{key} is {active[key]!r}")
    return faults + [f"{key} is not active" for key in parameters if key not in active]


@pytest.mark.parametrize("engine", ALL)
def test_every_method_searches_the_same_space_in_bounds_and_types(
    engine: dict[str, Any], tmp_path: Path
) -> None:
    sweep = toy_sweep(tmp_path, engine)
    assert option_faults(sweep.file) == []
    trials = 7 if engine.get("oracle") == "bayesian" else 16  # of which its model proposes 2, each in seconds
    played = play(toy_engine(sweep), trials)
    assert len(played.proposals) == trials
    for proposal in played.proposals:
        assert faults_in(sweep, dict(proposal.parameters)) == [], proposal
    if trials == 16:
        assert {key for point in points(played.proposals) for key in point} == set(SPACE)


@pytest.mark.parametrize("engine", ALL)
def test_trial_0_is_the_baseline(engine: dict[str, Any], tmp_path: Path) -> None:
    sweep = toy_sweep(tmp_path, engine)
    proposal = toy_engine(sweep).ask()
    flat = sweep.recipe.flat()
    assert isinstance(proposal, Proposal)
    assert proposal.number == 0
    assert dict(proposal.parameters) == {key: flat[key] for key in proposal.parameters}
    assert proposal.epochs is None
    # The recipe's filters, 32, are in the space; its conditional keys are not active.
    assert set(proposal.parameters) == set(SPACE) - {"optimizer.momentum"}


@pytest.mark.parametrize("engine", ALL)
def test_a_baseline_outside_of_the_space_is_trial_0_all_the_same(
    engine: dict[str, Any], tmp_path: Path
) -> None:
    sweep = toy_sweep(tmp_path, engine, recipe={"optimizer": {"learning_rate": 0.5}})
    played = play(toy_engine(sweep), 6)
    assert played.proposals[0].parameters["optimizer.learning_rate"] == 0.5
    assert [proposal.number for proposal in played.proposals] == list(range(6))
    for proposal in played.proposals[1:]:
        assert faults_in(sweep, dict(proposal.parameters)) == []


@pytest.mark.parametrize("engine", ALL)
def test_the_same_seed_gives_the_same_proposals_and_another_seed_others(
    engine: dict[str, Any], tmp_path: Path
) -> None:
    first, second, other = (
        points(
            play(
                toy_engine(toy_sweep(tmp_path, {**engine, "seed": seed}, space=space_for(engine))), 7
            ).proposals
        )
        for seed in (0, 0, 1)
    )
    assert first == second
    assert first[1:] != other[1:]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ALL)
def test_a_resumed_study_continues_its_numbers_with_the_proposals_of_an_uninterrupted_one(
    engine: dict[str, Any], url: str, tmp_path: Path
) -> None:
    sweep = toy_sweep(tmp_path, engine, space=space_for(engine))
    whole = play(toy_engine(sweep), 8).proposals
    resumed: list[Proposal] = []
    for stop in (4, 1, 3):
        running = toy_engine(sweep, url=url, create=not resumed)
        resumed += play(running, stop).proposals
        running.close()
    assert [proposal.number for proposal in resumed] == list(range(8))
    assert resumed == whole


@pytest.mark.slow
@pytest.mark.parametrize("engine", ALL)
def test_a_trial_that_a_kill_left_running_is_told_by_the_next_process(
    engine: dict[str, Any], url: str, tmp_path: Path
) -> None:
    sweep = toy_sweep(tmp_path, engine)
    killed = toy_engine(sweep, url=url)
    play(killed, 3)
    proposal = killed.ask()
    assert isinstance(proposal, Proposal)
    killed.report(proposal.number, proposal.first_epoch + 1, 0.5)
    killed.close()

    going_on = toy_engine(sweep, url=url, create=False)
    left = going_on.trials()[-1]
    assert left.state == "running"
    assert left.proposal == proposal
    assert left.curve == {proposal.first_epoch + 1: 0.5}
    following = going_on.ask()
    assert isinstance(following, Proposal | Wait)
    if isinstance(following, Proposal):
        assert following.number == proposal.number + 1
    # Epochs that were reported before the kill change nothing.
    assert going_on.report(proposal.number, proposal.first_epoch + 1, 0.1) is False
    going_on.report(proposal.number, proposal.first_epoch + 2, 0.6)
    going_on.tell(proposal.number, Outcome(state="complete", value=0.6))
    told = going_on.trials()[proposal.number]
    assert told.state == "complete"
    assert list(told.curve.values()) == [0.5, 0.6]
    with pytest.raises(SweepError, match="told twice"):
        going_on.tell(proposal.number, Outcome(state="complete", value=0.6))
    going_on.close()


@pytest.mark.parametrize("engine", ALL + GRIDS)
def test_a_failed_trial_is_never_proposed_again_unchanged(engine: dict[str, Any], tmp_path: Path) -> None:
    sweep = toy_sweep(tmp_path, engine, space=FINITE_SPACE)
    running = toy_engine(sweep)
    failed: list[dict[str, Any]] = []
    seen = 0
    for _ in range(40):
        proposal = running.ask()
        if not isinstance(proposal, Proposal):
            break
        seen += 1
        point = dict(proposal.parameters)
        if proposal.parent is None:
            assert point not in failed
        if len(failed) < 8 and point not in failed:
            failed.append(point)
            cause = ("error", "nan", "memory", "lost")[len(failed) % 4]
            running.tell(proposal.number, Outcome(state="failed", cause=cause))  # type: ignore[arg-type]
        else:
            running.tell(proposal.number, outcome_of(running, proposal))
    assert len(failed) == 8
    # 3 depths x (adam + 3 strengths under sgd); KerasTuner calls a space used up after 20 repetitions.
    chance = engine["name"] == "keras_tuner" and engine["oracle"] != "grid"
    assert seen >= (8 if chance else 12)
    states = [(trial.state, trial.cause) for trial in running.trials()]
    assert sum(state == "failed" for state, _ in states) == 8
    assert {cause for _, cause in states} == {"error", "nan", "memory", "lost", None}


@pytest.mark.parametrize("engine", GRIDS)
def test_a_grid_covers_each_active_point_once_and_ends(engine: dict[str, Any], tmp_path: Path) -> None:
    sweep = toy_sweep(tmp_path, engine, space=FINITE_SPACE, recipe={"optimizer": {"name": "nadam"}})
    assert option_faults(sweep.file) == []
    played = play(toy_engine(sweep), 100)
    assert isinstance(played.ended, Done)
    grid = [tuple(sorted(point.items())) for point in points(played.proposals[1:])]
    assert len(grid) == len(set(grid)) == 3 * (1 + 3)


@pytest.mark.slow
@pytest.mark.parametrize("engine", GRIDS)
def test_a_resumed_grid_goes_on_where_it_stopped(engine: dict[str, Any], url: str, tmp_path: Path) -> None:
    sweep = toy_sweep(tmp_path, engine, space=FINITE_SPACE)
    whole = play(toy_engine(sweep), 100).proposals
    resumed: list[Proposal] = []
    for stop in (1, 3, 2, 100):
        running = toy_engine(sweep, url=url, create=not resumed)
        resumed += play(running, stop).proposals
        running.close()
    assert resumed == whole


@pytest.mark.parametrize("engine", CHEAP)
def test_conditions_hold_and_log_scales_are_sampled_as_such_over_1000_proposals(
    engine: dict[str, Any], tmp_path: Path
) -> None:
    sweep = toy_sweep(tmp_path, engine)
    running: Any = toy_engine(sweep)
    proposals: list[Proposal] = []
    for _ in range(1001):
        proposal = running.ask()
        assert isinstance(proposal, Proposal)
        assert faults_in(sweep, dict(proposal.parameters)) == []
        proposals.append(proposal)
    sampled = points(proposals[1:])
    # On a log scale each of the three decades gets a third: 5 standard deviations are 7.5 points.
    rates = [math.log10(point["optimizer.learning_rate"]) for point in sampled]
    for decade in (-4, -3, -2):
        share = sum(decade <= rate < decade + 1 for rate in rates) / len(rates)
        assert abs(share - 1 / 3) < 0.075
    sizes = [math.log2(point["training.batch_size"]) for point in sampled]
    assert abs(sum(size < 6 for size in sizes) / len(sizes) - 0.5) < 0.08
    # Conditional parameters are there about as often as their conditions hold, no more.
    assert abs(sum("optimizer.momentum" in point for point in sampled) / 1000 - 0.5) < 0.08
    assert abs(sum("model.dense_units" in point for point in sampled) / 1000 - 0.25) < 0.07
    assert {point["augmentation.strength"] for point in sampled} == {0.0, 0.3, 0.6, 0.9}
    assert {point["model.filters"] for point in sampled} == set(range(8, 57, 8))
    assert {point["model.depth"] for point in sampled} == {1, 2, 3, 4}
    assert {point["optimizer.clipnorm"] for point in sampled} == {None, 1.0}
    assert {min(point["training.batch_size"] for point in sampled) >= 16} == {True}


@pytest.mark.parametrize("goal", ["maximize", "minimize"])
@pytest.mark.parametrize(
    "engine",
    [
        _method("tpe", {"name": "optuna", "sampler": "tpe", "pruner": "none"}),
        _method(
            "keras_tuner-bayesian",
            {"name": "keras_tuner", "oracle": "bayesian", "oracle_options": {"num_initial_points": 12}},
        ),
    ],
)
def test_learning_methods_find_more_than_chance_in_both_directions(
    engine: dict[str, Any], goal: str, tmp_path: Path
) -> None:
    metric = "val_accuracy" if goal == "maximize" else "val_loss"
    space = {key: SPACE[key] for key in ("optimizer.learning_rate", "model.dropout")}
    recipe = {"optimizer": {"learning_rate": 1e-4}, "model": {"dropout": 0.6}}
    trials = 40 if engine["name"] == "optuna" else 16
    sweep = toy_sweep(
        tmp_path, engine, space=space, recipe=recipe, objective={"metric": metric, "goal": goal}
    )
    running = toy_engine(sweep)
    proposals = play(running, trials, goal=goal).proposals
    learned = [quality(point, EPOCHS) for point in points(proposals[12:])]
    drawn = [quality(point, EPOCHS) for point in points(proposals[1:12])]
    assert sum(learned) / len(learned) > sum(drawn) / len(drawn)
    best = running.best()
    values = {trial.number: trial.value for trial in running.trials()}
    top = max if goal == "maximize" else min
    assert values[best[0]] == top(value for value in values.values() if value is not None)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [OPTUNA[-1], KERAS_TUNER[0]])
def test_studies_and_their_facts_outlive_the_process(
    engine: dict[str, Any], new_url: str, tmp_path: Path
) -> None:
    url = new_url
    assert not study_exists(url, "toy")
    assert not (tmp_path / "studies.db").exists()
    prepare_storage(url)
    sweep = toy_sweep(tmp_path, engine)
    first: Engine = toy_engine(sweep, url=url)
    first.remember("parent", "abc")
    play(first, 2)
    first.note(0, "run_id", "late")
    running = first.ask()
    assert isinstance(running, Proposal)
    first.note(running.number, "run_id", "early")
    first.close()
    again = toy_engine(sweep, url=url, create=False)
    assert again.recall("parent") == "abc"
    assert again.recall("nothing") is None
    assert [trial.attributes.get("run_id") for trial in again.trials()] == ["late", None, "early"]
    again.close()
    assert [(study.name, study.facts) for study in list_studies(url)] == [("toy", {"parent": "abc"})]
    with pytest.raises(SweepError, match="there already"):
        toy_engine(sweep, url=url)
    with pytest.raises(SweepError, match="no study 'other'"):
        toy_engine(sweep, name="other", url=url, create=False)
