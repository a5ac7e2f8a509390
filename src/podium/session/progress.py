"""Owns what people see while trials run: a live table in a terminal, one line an event elsewhere."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from podium import live
from podium.coordinator.trial import LiveTrial
from podium.engines.base import Outcome
from podium.result import EpochEvent, Goal, better
from podium.search_space import short_names

STATUS_SECONDS = 1.0
RECENT_ROWS = 8


def short(parameters: Mapping[str, Any]) -> str:
    """Parameters in one line: short names, numbers to three digits."""
    names = short_names(parameters)
    return " ".join(f"{names[key]}={_brief(value)}" for key, value in parameters.items())


class Progress:
    """Watches a loop. Writes to `console` (standard error) and to the sweep's status file.

    Best so far is of trials that are complete and within `limits`, and of those that are running.
    """

    def __init__(
        self,
        *,
        console: Console,
        metric: str,
        goal: Goal,
        total: int | None,
        status_folder: Path | None = None,
        limits: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._metric = metric
        self._goal = goal
        self._total = total
        self._folder = status_folder
        self._clock = clock
        self._start = clock()
        self._rows: dict[int, dict[str, Any]] = {}
        self._ended = 0
        self._ended_before = 0
        self._limits = limits or {}
        self._settled: tuple[int, float] | None = None  # the best of those that have ended
        self._running: dict[int, float] = {}
        self._written_at = float("-inf")
        self._live = (
            Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        )

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        self._write_status(ended=True)

    def take_over(self, *, ended: int, best: float | None, best_trial: int | None) -> None:
        """Start from what earlier starts of the sweep did."""
        self._ended = self._ended_before = ended
        if best is not None and best_trial is not None:
            self._settled = (best_trial, best)

    def started(self, trial: LiveTrial) -> None:
        """An attempt was handed to a worker."""
        self._row(trial)["state"] = "running"
        again = f", attempt {trial.attempt}" if trial.attempt > 1 else ""
        self._line(
            f"trial {trial.number} starts{again}: {short(trial.proposal.parameters) or 'recipe as it is'}"
        )

    def epoch(self, trial: LiveTrial, event: EpochEvent) -> None:
        """An epoch is over."""
        row = self._row(trial)
        row["epoch"], row["value"] = event.epoch, trial.best
        if trial.best is not None:
            self._running[trial.number] = trial.best
        shown = " ".join(f"{name} {value:.4g}" for name, value in event.metrics.items())
        self._line(
            f"trial {trial.number} epoch {event.epoch}/{trial.epochs}: {shown} ({event.seconds:.1f} s)"
        )

    def ended(self, trial: LiveTrial, outcome: Outcome) -> None:
        """A trial is over and on record."""
        self._ended += 1
        row = self._row(trial)
        row["state"], row["value"] = outcome.state, outcome.value
        self._running.pop(trial.number, None)
        if outcome.state == "complete" and outcome.value is not None and self._within(outcome):
            self._settled = self._better(self._settled, (trial.number, outcome.value))
        value = "" if outcome.value is None else f", {self._metric} {outcome.value:.4f}"
        why = f" ({outcome.message.splitlines()[0]})" if outcome.message else ""
        self._line(f"trial {trial.number} {outcome.state}{value}{why}; {self._left()}")

    def message(self, text: str) -> None:
        """Anything else worth a line."""
        self._console.print(text, highlight=False, markup=False)

    def _row(self, trial: LiveTrial) -> dict[str, Any]:
        return self._rows.setdefault(
            trial.number,
            {"trial": trial.number, "parameters": short(trial.proposal.parameters), "epoch": 0, "epochs": trial.epochs,
             "value": trial.best, "state": "running"},
        )  # fmt: skip

    def _within(self, outcome: Outcome) -> bool:
        return all(outcome.measures.get(name, 0.0) <= limit for name, limit in self._limits.items())

    def _best(self) -> tuple[int | None, float | None]:
        """Trial and value."""
        return functools.reduce(self._better, self._running.items(), self._settled) or (None, None)

    def _better(self, one: tuple[int, float] | None, other: tuple[int, float]) -> tuple[int, float]:
        return other if one is None or better(other[1], one[1], self._goal) else one

    def _line(self, text: str) -> None:
        if self._live is None:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            self._live.update(self._table(), refresh=True)
        self._write_status()

    def _left(self) -> str:
        done = self._ended - self._ended_before
        number, value = self._best()
        best = "none yet" if value is None else f"{value:.4f} (trial {number})"
        if self._total is None or done == 0:
            return f"best so far {best}"
        seconds = (self._clock() - self._start) / done * max(0, self._total - self._ended)
        return f"best so far {best}; {self._ended} of {self._total}, about {_duration(seconds)} left"

    def _table(self) -> Table:
        table = Table(title=self._left(), title_justify="left", expand=True)
        for name in ("trial", "parameters", "epoch", self._metric, "state"):
            table.add_column(name, justify="right" if name in ("trial", "epoch", self._metric) else "left")
        for row in list(self._rows.values())[-RECENT_ROWS:]:
            value = "" if row["value"] is None else f"{row['value']:.4f}"
            table.add_row(
                str(row["trial"]), row["parameters"], f"{row['epoch']}/{row['epochs']}", value, row["state"]
            )
        return table

    def _write_status(self, *, ended: bool = False) -> None:
        if self._folder is None or (not ended and self._clock() - self._written_at < STATUS_SECONDS):
            return
        self._written_at = self._clock()
        number, value = self._best()
        status = {
            "sweep": self._folder.name,
            "running": not ended,
            "ended": self._ended,
            "total": self._total,
            "best": {"trial": number, "value": value},
            "trials": [row for row in self._rows.values() if row["state"] == "running"],
            "left": self._left(),
        }
        try:
            live.write_status(self._folder, status)
        except OSError as error:  # for those who look on: no reason to end what they look at
            self._console.print(f"the status of {self._folder.name} cannot be written: {error}", markup=False)


def _brief(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
