"""The Pareto front of several objectives, in words and in the picture."""

from __future__ import annotations

import io
from itertools import pairwise, product

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from podium.reporting import pareto, pareto_plots, pictures, style
from podium.reporting.sweep_record import SweepRecord
from podium.sweep_file import ObjectiveSettings

ACCURACY = ObjectiveSettings(metric="val_accuracy", goal="maximize")
SIZE = ObjectiveSettings(metric="parameters", goal="minimize")
SECONDS = ObjectiveSettings(metric="seconds", goal="minimize")
LOSS = ObjectiveSettings(metric="val_loss", goal="minimize")


def trial(number, accuracy, size, state="complete", *, front=False, feasible=True):
    return {
        "trial": number,
        "run_id": f"run-{number}",
        "state": state,
        "value": accuracy,
        "seconds": 60.0,
        "epochs": 6,
        "epochs_planned": 6,
        "cause": None,
        "message": None,
        "diagnosis": None,
        "feasible": feasible,
        "front": front,
        "objective.val_accuracy": accuracy,
        "objective.parameters": size,
        "objective.seconds": size / 100,
        "objective.val_loss": 1 - accuracy,
        "params.model.depth": number % 4,
    }


TRIALS = pd.DataFrame(
    [
        trial(0, 0.70, 4_000.0),
        trial(1, 0.80, 4_000.0, front=True),
        trial(2, 0.60, 1_000.0, front=True),
        trial(3, 0.90, 90_000.0, feasible=False),
        trial(4, 0.50, 700.0, "pruned"),
        trial(5, np.nan, np.nan, "failed"),
    ]
)


def sweep(*objectives, trials=TRIALS, limits=None):
    return SweepRecord(
        name="sizes",
        metric=objectives[0].metric,
        goal=objectives[0].goal,
        trials=trials,
        histories=pd.DataFrame(
            columns=["run_id", "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
        ),
        importances=None,
        importance_evaluator="",
        commands=[],
        objectives=objectives,
        limits=limits or {},
    )


def words(parts):
    console = Console(width=200, record=True, file=io.StringIO())
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))
    return console.export_text()


def marks(figure: Figure, panel=0):
    """Names of what is drawn in a panel, each with its points."""
    found = {}
    for collection in figure.axes[panel].collections:
        found[collection.get_label()] = [tuple(map(float, point)) for point in collection.get_offsets()]
    return found


def test_front_stands_best_first_by_the_first_objective():
    assert pareto.front(sweep(ACCURACY, SIZE))["trial"].tolist() == [1, 2]
    assert pareto.front(sweep(SIZE, ACCURACY))["trial"].tolist() == [2, 1]


def test_front_is_told_with_all_objectives_and_what_is_infeasible():
    text = words(pareto.shown(sweep(ACCURACY, SIZE, limits={"parameters": 5_000})))

    assert "val_accuracy (higher is better), parameters (lower is better)" in text
    assert "feasible with at most 5,000 parameters" in text
    assert "0.8000       4,000" in text
    assert (
        "2 of 4 complete trials are on the Pareto front; 1 are infeasible, and therefore not on it: 3."
        in text
    )


def test_values_leave_out_parameters_that_a_trial_lacks():
    trials = TRIALS.assign(**{"params.optimizer.momentum": [None, 0.9, None, None, None, None]})

    first, second = pareto.values(sweep(ACCURACY, SIZE, trials=trials)) or []

    assert first["params"] == {"model.depth": 1, "optimizer.momentum": 0.9}
    assert second["params"] == {"model.depth": 2}


def test_sweep_with_one_objective_has_no_front():
    assert pareto.values(sweep(ACCURACY)) is None
    assert pareto.shown(sweep(ACCURACY)) == []


def test_sweep_of_several_objectives_without_their_values_is_refused():
    with pytest.raises(ValueError, match=r"sizes: a frame lacks the columns objective\.seconds"):
        sweep(ACCURACY, SECONDS, trials=TRIALS.drop(columns="objective.seconds"))


def test_front_that_is_still_empty_is_said_to_be():
    empty = sweep(ACCURACY, SIZE, trials=TRIALS.tail(1))

    assert "0 of 0 complete trials" in words(pareto.shown(empty))
    assert pareto.values(empty) == []
    assert pictures.pareto_picture(empty).uri is None


def test_picture_tells_front_infeasible_and_pruned_apart_by_shape():
    figure = pareto_plots.pareto(TRIALS, [ACCURACY, SIZE], {"parameters": 5_000})

    found = marks(figure)
    assert found[pareto_plots.FRONT] == [(4_000.0, 0.8), (1_000.0, 0.6)]
    assert found["infeasible (beyond a limit)"] == [(90_000.0, 0.9)]
    assert found["pruned"] == [(700.0, 0.5)]
    shapes = {(mark["marker"], mark["facecolors"] == "none") for mark in pareto_plots.MARKS.values()}
    assert len(shapes) == len(pareto_plots.MARKS)
    [axes] = figure.axes
    assert axes.get_xlabel() == "parameters, lower is better ←"
    assert axes.get_ylabel() == "val_accuracy, higher is better ↑"
    assert axes.get_xscale() == "log"
    assert "limit" in axes.get_legend_handles_labels()[1]
    assert {text.get_text() for text in axes.texts} == {"1", "2"}


@pytest.mark.parametrize(("goal_up", "goal_right"), list(product(["maximize", "minimize"], repeat=2)))
def test_step_line_parts_what_was_reached_from_what_was_not(goal_up, goal_right):
    """Every corner of the line is as good as a trial of the front, or worse."""
    up = ObjectiveSettings.model_construct(metric="val_accuracy", goal=goal_up)
    right = ObjectiveSettings.model_construct(metric="parameters", goal=goal_right)
    same = goal_up == goal_right
    points = [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)] if same else [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]
    trials = pd.DataFrame([trial(i, y, x, front=True) for i, (x, y) in enumerate(points)])

    [axes] = pareto_plots.pareto(trials, [up, right], {}).axes

    [line] = [line for line in axes.lines if line.get_label() == "Pareto front"]
    for x, y in stairs(line):
        reached = [
            (x >= a if goal_right == "minimize" else x <= a) and (y >= b if goal_up == "minimize" else y <= b)
            for a, b in points
        ]
        assert any(reached), (x, y)


def stairs(line):
    """The corners between a step line's points."""
    points = list(zip(*line.get_data(), strict=True))
    between = [
        ((right[0], left[1]) if line.get_drawstyle() == "steps-post" else (left[0], right[1]))
        for left, right in pairwise(points)
    ]
    return [*points, *between]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objectives", "panels"), [([ACCURACY, SIZE, SECONDS], 3), ([ACCURACY, SIZE, SECONDS, LOSS], 6)]
)
def test_three_or_four_objectives_are_drawn_pair_by_pair(objectives, panels):
    figure = pareto_plots.pareto(TRIALS, objectives, {"parameters": 5_000})

    assert len(figure.axes) == panels
    pairs = {(axes.get_xlabel().split(",")[0], axes.get_ylabel().split(",")[0]) for axes in figure.axes}
    assert len(pairs) == panels
    assert all(len(marks(figure, panel)[pareto_plots.FRONT]) == 2 for panel in range(panels))
    assert style.to_png(figure).startswith(b"\x89PNG")


def test_trial_that_lacks_an_objective_is_left_out_and_counted():
    trials = TRIALS.assign(**{"objective.parameters": [np.inf, *TRIALS["objective.parameters"][1:]]})

    assert "complete, not on the front" not in marks(pareto_plots.pareto(trials, [ACCURACY, SIZE], {}))
    assert (
        "Not shown, for lack of a value: 2 of 6 trials."
        in pictures.pareto_picture(sweep(ACCURACY, SIZE, trials=trials)).caption
    )
