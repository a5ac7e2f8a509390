"""How searches are replayed on recorded points, and what is said of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from synthetic_points import EPOCHS, cut_short, made_up_table, small_sweep

from podium.engines.make import make_engine
from podium.engines.study import IN_MEMORY
from podium.sweep_file import KerasTunerSettings, OptunaSettings, Sweep

# isort: split
from replay import Recorded, Trace, recorded_sweep, replay_engine, replay_one_epoch_rule
from search_methods import methods_for
from search_summary import curves, summary, target
from substitution import substitute
from unit_cube import coordinates, distances

RANDOM = {"name": "optuna", "sampler": "random", "pruner": "none"}
HALVING = {"name": "optuna", "sampler": "random", "pruner": "successive_halving"}
HERE = {
    "optimizer.learning_rate": 1e-3,
    "training.batch_size": 64,
    "model.dropout": 0.3,
    "augmentation.strength": 1.0,
    "model.depth": 2,
}


def distance(a: dict[str, Any], b: dict[str, Any]) -> float:
    space = small_sweep().file.space
    [found] = distances(space, coordinates(space, a)[None, :], coordinates(space, b))
    return float(found)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, 0.0),
        ({"optimizer.learning_rate": 1e-2}, 0.5),
        ({"model.dropout": 0.6}, 0.5),
        ({"model.depth": 1}, 1 / 3),
        ({"training.batch_size": 256}, 1.0),
        ({"model.depth": 3, "model.dense_units": 128}, math.sqrt(1 / 9 + 1)),
    ],
)
def test_distance_in_the_unit_cube(change: dict[str, Any], expected: float) -> None:
    assert distance(HERE, {**HERE, **change}) == pytest.approx(expected)
    assert distance({**HERE, **change}, HERE) == pytest.approx(expected)


def test_nearest_unused_point_is_taken() -> None:
    table = made_up_table(30)
    recorded = Recorded(table, small_sweep().file.space)
    wanted = dict(table.points[7].parameters)
    assert (recorded.take(wanted)[0].point, recorded.left) == (7, 30)
    second, gap = recorded.take(wanted)
    assert second.point != 7
    others = [distance(wanted, dict(point.parameters)) for point in table.points.values() if point.point != 7]
    assert gap == pytest.approx(min(others))


def replayed(settings: dict[str, Any], *, budget: int, points: int = 30, failing: int | None = None) -> Trace:
    table = made_up_table(points)
    if failing is not None:
        table = cut_short(table, failing, epochs=2)
    return replay_engine(table, recorded_sweep(table, small_sweep()), settings, seed=0, budget=budget)


def test_unpruned_search_trains_whole_trials_within_its_budget() -> None:
    trace = replayed(RANDOM, budget=5 * EPOCHS + 2)
    assert (trace.epochs, len(trace.moved)) == (5 * EPOCHS + 2, 6)
    assert trace.moved[0] == (0, 0.0)
    curve = trace.curve(5 * EPOCHS + 2)
    assert math.isnan(curve[EPOCHS - 1])
    assert curve[EPOCHS] == pytest.approx(0.35)  # the baseline, whose learning rate is 0.001
    assert sorted(curve[EPOCHS:]) == list(curve[EPOCHS:])


def test_pruned_search_goes_on_until_the_points_are_used_up() -> None:
    trace = replayed(HALVING, budget=1000)
    assert trace.ran_out
    assert len(trace.moved) == 31
    assert trace.pruned > 15
    assert trace.epochs < 31 * EPOCHS / 2
    whole = {max(point.val_accuracy) for point in made_up_table(30).points.values()}
    assert {value for _, value in trace.steps} <= whole  # a pruned trial is no candidate


def test_point_whose_training_failed_costs_its_epochs_and_gives_no_value() -> None:
    trace = replayed(RANDOM, budget=1000, points=1, failing=1)
    assert (trace.failed, trace.epochs) == (1, EPOCHS + 3)
    assert [value for _, value in trace.steps] == [pytest.approx(0.35)]


ENGINES = [
    OptunaSettings(sampler="tpe", pruner="none"),
    pytest.param(KerasTunerSettings(name="keras_tuner", oracle="hyperband"), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("settings", ENGINES, ids=["optuna", "keras_tuner"])
def test_engine_learns_the_parameters_that_were_recorded(settings: Any) -> None:
    sweep: Sweep = small_sweep()
    file = sweep.file.model_copy(update={"engine": settings})
    engine = make_engine(
        replace(sweep, file=file), study_name="s", study_url=IN_MEMORY, epochs=EPOCHS, create=True
    )
    engine.ask()
    proposal = engine.ask()
    depth = 1 if proposal.parameters["model.depth"] != 1 else 2
    substitute(engine, file.space, proposal.number, {**HERE, "model.depth": depth})
    assert engine.trials()[1].parameters == {**HERE, "model.depth": depth}
    frozen = engine._record.frozen()[1]
    assert frozen.params == {**HERE, "model.depth": depth}
    assert set(frozen.distributions) == set(HERE)
    if isinstance(settings, KerasTunerSettings):
        values = engine._oracle.trials[engine._ids[1]].hyperparameters.values
        assert values["model.depth"] == depth
        assert "model.dense_units" not in values
        assert values["tuner/epochs"] == proposal.epochs
    engine.close()


@pytest.mark.slow
def test_promoted_trial_goes_on_with_its_parents_curve() -> None:
    trace = replayed({"name": "keras_tuner", "oracle": "hyperband"}, budget=150, points=60)
    assert trace.promoted > 5
    assert trace.epochs == 150
    assert max(value for _, value in trace.steps) > 0.35


def test_one_epoch_rule_continues_the_best_first_epochs() -> None:
    table = made_up_table(30)
    trace = replay_one_epoch_rule(table, first=31, seed=0, budget=31 + 2 * (EPOCHS - 1) + 3, epochs=EPOCHS)
    best = max(max(point.val_accuracy) for point in table.points.values())
    assert trace.steps == [(31 + EPOCHS - 1, best)]
    assert trace.epochs == 31 + 2 * (EPOCHS - 1) + 3


def traces_of(**values: list[tuple[int, float]]) -> dict[str, list[Trace]]:
    """For each method one trace a repeat, with one value each after so many epochs."""
    return {
        name: [Trace(steps=[step], moved=[(0, 0.1)], epochs=100) for step in steps]
        for name, steps in values.items()
    }


def judged(default: list[tuple[int, float]], rival: list[tuple[int, float]]) -> tuple[Any, Any]:
    methods = replace(
        methods_for(small_sweep(), points=30, early=20),
        default="default", unpruned_tpe="tpe", plain_random="random", same_pruner="rival", one_epoch=("rule",),
    )  # fmt: skip
    slow = [(90, 0.60), (90, 0.62), (90, 0.61)]
    traces = traces_of(
        default=default,
        tpe=slow,
        random=[(10, 0.5)] * 3,
        rival=rival,
        rule=[(15, 0.4), (15, 0.5), (15, 0.45)],
    )
    return target(traces, methods, budget=100), summary(traces, methods, budget=100)


def test_target_holds_for_a_default_that_is_as_good_in_a_fifth_of_the_epochs() -> None:
    found, rows = judged([(15, 0.61), (18, 0.60), (20, 0.61)], [(10, 0.605), (10, 0.6), (10, 0.605)])
    assert found.holds
    assert (found.final, found.epochs) == (pytest.approx(0.61), 20)
    assert found.regret == pytest.approx(100 * (0.61 - 1.82 / 3))
    assert {each.other: each.verdict for each in found.comparisons} == {
        "rule": "ahead", "random": "ahead", "rival": "level",
    }  # fmt: skip
    row = rows[rows["method"] == "default"].iloc[0]
    assert math.isinf(row["epochs_to_reach"])
    assert row["epochs_to_allowed"] == 20
    assert rows[rows["method"] == "tpe"].iloc[0]["epochs_to_reach"] == 90


def test_target_fails_for_a_default_that_is_late_or_behind() -> None:
    late, _ = judged([(30, 0.62), (18, 0.62), (15, 0.62)], [(10, 0.5)] * 3)
    assert not late.holds
    behind, _ = judged([(15, 0.62), (18, 0.62), (20, 0.62)], [(10, 0.64), (10, 0.65), (10, 0.64)])
    assert behind.regret < 0
    assert {each.other: each.verdict for each in behind.comparisons}["rival"] == "behind"
    assert not behind.holds


def test_target_does_not_hold_for_want_of_evidence() -> None:
    found, _ = judged([(15, 0.61), (18, 0.60), (20, 0.61)], [(10, 0.5), (10, 0.61), (10, 0.61)])
    assert {each.other: each.verdict for each in found.comparisons}["rival"] == "undecided"
    nobody_yet, _ = judged([(15, 0.61), (18, 0.60), (20, 0.61)], [(10, 0.5), (10, 0.5), (30, 0.5)])
    assert {each.other: each.verdict for each in nobody_yet.comparisons}["rival"] == "undecided"
    assert not found.holds
    assert not nobody_yet.holds


def test_curves_leave_out_epochs_without_a_value() -> None:
    lines = curves(traces_of(a=[(10, 0.5), (30, 0.7)]), budget=40, every=10)
    assert list(lines["epochs"]) == [30, 40]
    assert lines.iloc[0]["mean"] == pytest.approx(0.6)
