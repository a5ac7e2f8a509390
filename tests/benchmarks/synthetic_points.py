"""Makes small tables of made-up curves over the space of sweeps/cifar10.yaml."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from points_table import Point, Table
from record_points import SWEEP, how_made, parameters_of

from podium.result import TrainingArrays
from podium.sweep_file import Sweep, read_sweep

EPOCHS = 9
NOWHERE = Path("nowhere")
ARRAYS = TrainingArrays(
    images=NOWHERE, labels=NOWHERE, split=NOWHERE, train_digest="", split_digest="", class_names=("a", "b")
)


def small_sweep() -> Sweep:
    """The sweep of sweeps/cifar10.yaml with few epochs."""
    return read_sweep(SWEEP, [f"training.epochs={EPOCHS}"])


def made_up_point(number: int, parameters: dict[str, object], *, best: float) -> Point:
    """A curve that rises in equal steps to `best`."""
    rising = tuple(round(best * (epoch + 1) / EPOCHS, 6) for epoch in range(EPOCHS))
    return Point(
        point=number,
        parameters=parameters,
        val_accuracy=rising,
        val_loss=rising,
        accuracy=rising,
        seconds=(1.0,) * EPOCHS,
        size=1000,
    )


def made_up_table(points: int) -> Table:
    """The baseline and Sobol points; the best value grows with the learning rate."""
    sweep = small_sweep()
    found = {}
    for number, parameters in enumerate(parameters_of(sweep, points)):
        best = 0.3 + 50 * float(parameters["optimizer.learning_rate"])
        found[number] = made_up_point(number, parameters, best=best)
    return Table(made=how_made(sweep, ARRAYS), points=found)


def cut_short(table: Table, number: int, *, epochs: int) -> Table:
    """The table with one point whose training failed after so many epochs."""
    failed = replace(
        table.points[number], val_accuracy=table.points[number].val_accuracy[:epochs], failed="nan"
    )
    return replace(table, points={**table.points, number: failed})
