"""What people see while trials run."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from podium import live
from podium.coordinator.trial import LiveTrial
from podium.engines.base import Outcome, Proposal
from podium.recipe import Recipe
from podium.result import EpochEvent
from podium.session.progress import Progress, short


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def a_trial(number: int, *, attempt: int = 1) -> LiveTrial:
    parameters = {"optimizer.learning_rate": 0.00123456, "model.depth": number}
    return LiveTrial(
        proposal=Proposal(number=number, parameters=parameters),
        recipe=Recipe(),
        attempt=attempt,
        epochs=5,
        folder=Path("none"),
    )


def show(console: Console, clock: Clock, folder: Path | None = None) -> Progress:
    return Progress(
        console=console, metric="val_accuracy", goal="maximize", total=4, status_folder=folder, clock=clock
    )


def play(progress: Progress, clock: Clock) -> None:
    """Trial 0 finishes after 60 s, trial 1 is in its second attempt."""
    first, second = a_trial(0), a_trial(1, attempt=2)
    progress.started(first)
    first.best = 0.5
    progress.epoch(first, EpochEvent(epoch=1, metrics={"val_accuracy": 0.5}, seconds=2.0, images=10))
    clock.now = 60.0
    progress.ended(first, Outcome(state="complete", value=0.5))
    progress.started(second)
    second.best = 0.25
    progress.epoch(second, EpochEvent(epoch=2, metrics={"val_accuracy": 0.25}, seconds=2.0, images=10))


def test_where_there_is_no_terminal_each_event_is_one_plain_line() -> None:
    file, clock = StringIO(), Clock()
    with show(Console(file=file, width=40), clock) as progress:
        play(progress, clock)
        progress.ended(a_trial(2), Outcome(state="failed", message="it broke\nand more"))
        progress.message("[as it is]")
    assert file.getvalue().splitlines() == [
        "trial 0 starts: learning_rate=0.00123 depth=0",
        "trial 0 epoch 1/5: val_accuracy 0.5 (2.0 s)",
        "trial 0 complete, val_accuracy 0.5000; best so far 0.5000 (trial 0); 1 of 4, about 3 min 0 s left",
        "trial 1 starts, attempt 2: learning_rate=0.00123 depth=1",
        "trial 1 epoch 2/5: val_accuracy 0.25 (2.0 s)",
        "trial 2 failed (it broke); best so far 0.5000 (trial 0); 2 of 4, about 1 min 0 s left",
        "[as it is]",
    ]


def test_a_terminal_shows_one_live_table() -> None:
    file, clock = StringIO(), Clock()
    with show(Console(file=file, force_terminal=True, width=100), clock) as progress:
        play(progress, clock)
    last = file.getvalue().rpartition("best so far")[2]
    assert "0.5000 (trial 0); 1 of 4, about 3 min 0 s left" in last
    rows = [line.split("│") for line in last.splitlines() if "depth=" in line]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["0", "learning_rate=0.00123 depth=0", "1/5", "0.5000", "complete"],
        ["1", "learning_rate=0.00123 depth=1", "2/5", "0.2500", "running"],
    ]


def test_a_resumed_sweep_counts_what_was_done_but_not_its_time() -> None:
    file, clock = StringIO(), Clock()
    with show(Console(file=file, width=40), clock) as progress:
        progress.take_over(ended=2, best=0.9, best_trial=1)
        clock.now = 10.0
        progress.ended(a_trial(2), Outcome(state="complete", value=0.5))
    assert file.getvalue().strip().endswith("best so far 0.9000 (trial 1); 3 of 4, about 10 s left")


def test_best_so_far_is_of_what_could_win() -> None:
    file = StringIO()
    progress = Progress(
        console=Console(file=file), metric="val_accuracy", goal="maximize", total=4, limits={"parameters": 10}
    )
    for number, (best, state, parameters) in enumerate(
        [(0.5, "complete", 10), (0.9, "complete", 11), (0.8, "pruned", 1)]
    ):
        trial = a_trial(number)
        trial.best = best
        progress.epoch(trial, EpochEvent(epoch=1, metrics={"val_accuracy": best}, seconds=2.0, images=10))
        progress.ended(trial, Outcome(state=state, value=best, measures={"parameters": parameters}))  # type: ignore[arg-type]
    assert file.getvalue().count("best so far 0.5000") == 3


def test_other_shells_read_the_status_and_its_end(tmp_path: Path) -> None:
    clock = Clock()
    with show(Console(file=StringIO()), clock, tmp_path) as progress:
        play(progress, clock)
        status = live.read_status(tmp_path)
        assert status is not None
        assert status["running"]
    status = live.read_status(tmp_path)
    assert status is not None
    assert not status["running"]
    assert (status["ended"], status["total"]) == (1, 4)
    assert status["best"] == {"trial": 0, "value": 0.5}
    assert [(row["trial"], row["epoch"], row["epochs"]) for row in status["trials"]] == [(1, 2, 5)]


def test_parameters_are_shown_short() -> None:
    assert (
        short({"a.b.rate": 0.000123456, "c.batch_size": 64, "d": True})
        == "rate=0.000123 batch_size=64 d=True"
    )
