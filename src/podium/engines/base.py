"""Owns the protocol between the coordinator and whatever proposes trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from podium.result import FailureCause

Scalar = bool | int | float | str | None
TrialState = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One configuration to train.

    `parameters`: dotted recipe keys to values, active ones only. `epochs` ends the training earlier
    than the recipe; `first_epoch` and `parent` continue another trial's checkpoint.
    """

    number: int
    parameters: Mapping[str, Scalar]
    epochs: int | None = None
    first_epoch: int = 0
    parent: int | None = None


@dataclass(frozen=True)
class Wait:
    """Nothing to propose until another trial is told."""


@dataclass(frozen=True)
class Done:
    """Nothing more to propose, ever."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the coordinator tells about an ended trial.

    `value` is the epoch objective at the best epoch. `measures` are what further objectives and
    constraints are about, by metric: parameters, seconds, and the best epoch's metrics.
    """

    state: Literal["complete", "pruned", "failed"]
    value: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    cause: FailureCause | None = None
    message: str = ""
    attributes: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial as the study remembers it, across restarts.

    `curve`: epoch (from 1) to objective value. `values`: all objectives of a complete trial, in the sweep
    file's order. `feasible`: keeps within the sweep's constraints, as far as they were measured.
    """

    number: int
    state: TrialState
    parameters: Mapping[str, Scalar]
    value: float | None
    curve: Mapping[int, float]
    cause: FailureCause | None = None
    message: str = ""
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    proposal: Proposal | None = None
    values: tuple[float, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    feasible: bool = True


class Engine(Protocol):
    """Proposes trials and learns from them. One process uses an engine at a time.

    Everything it is told is durable in the study store when the call returns; an engine made anew on
    the same study goes on where the last one stopped, with the same proposals.
    """

    def ask(self) -> Proposal | Wait | Done:
        """The next configuration; trial 0 is the baseline, that is the recipe as it stands."""

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Record the objective after `epoch`; True means that the trial should stop here (pruned)."""

    def tell(self, number: int, outcome: Outcome) -> None:
        """Record how the trial ended. Telling a trial that has ended already is an error."""

    def trials(self) -> list[TrialRecord]:
        """All trials of the study, in the order of their numbers, running ones included."""

    def trial(self, number: int) -> TrialRecord:
        """One trial of the study."""

    def best(self) -> list[int]:
        """Numbers of the best complete, feasible trials: all ties, or the Pareto front of several objectives."""

    def remember(self, key: str, value: Scalar) -> None:
        """Keep a fact about the study itself (parent run, seconds used)."""

    def recall(self, key: str) -> Scalar:
        """A fact kept by `remember`, None if there is none."""

    def note(self, number: int, key: str, value: Scalar) -> None:
        """Keep a fact about a trial (its run id, its attempts)."""

    def close(self) -> None:
        """Give the store's connections back. The engine is not used after it."""
