"""Owns what the loop is made of: a trial in training, the plan that all trials share, who watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from podium.engines.base import Outcome, Proposal
from podium.recipe import Recipe
from podium.result import EpochEvent, Goal, TrainingJob, TrainingResult
from podium.tracking.runs import DataInput


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits over all workers and restarts; None is unlimited.

    `no_improvement`: no trial is started after so many, by number, that came after the best one.
    """

    trials: int | None = None
    hours: float | None = None
    epochs: int | None = None
    no_improvement: int | None = None


@dataclass(kw_only=True)
class LiveTrial:
    """A trial that is being trained, or just was. `history` holds its epochs on record, of all attempts.

    `in_epoch`: its worker trains an epoch, or is about to, as far as the coordinator knows.
    """

    proposal: Proposal
    recipe: Recipe
    attempt: int
    epochs: int
    folder: Path
    history: dict[int, EpochEvent] = field(default_factory=dict)
    resume_from: Path | None = None
    best: float | None = None
    place: str = ""
    stopped_for: str = ""
    in_epoch: bool = True

    @property
    def number(self) -> int:
        """The trial's number in the study."""
        return self.proposal.number

    @property
    def key(self) -> str:
        """The attempt's key."""
        return f"{self.number}.{self.attempt}"


class Observer(Protocol):
    """Is told what happens, for people who watch."""

    def started(self, trial: LiveTrial) -> None:
        """An attempt was handed to a worker."""

    def epoch(self, trial: LiveTrial, event: EpochEvent) -> None:
        """An epoch is over."""

    def ended(self, trial: LiveTrial, outcome: Outcome) -> None:
        """A trial is over and on record."""

    def message(self, text: str) -> None:
        """Anything else worth a line."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all trials of a sweep share.

    `job` turns a recipe, an attempt's folder and an epoch count into the worker's job; `package` is
    called once for each trial that left files, with its run id; `tags` go on every run,
    `run_tags` on one, and what `describe` finds on a trained trial's. `inputs_of` answers the data of a trial's own
    recipe, where recipes may split the data otherwise than `inputs` says.
    """

    recipe: Recipe
    metric: str
    goal: Goal
    folder: Path
    job: Callable[[Recipe, Path, int], TrainingJob]
    package: Callable[[LiveTrial, str, TrainingResult], None]
    tags: Mapping[str, str]
    inputs: Sequence[DataInput]
    describe: Callable[[LiveTrial, TrainingResult], Mapping[str, str]] = lambda trial, result: {}
    run_name: Callable[[Proposal], str] = lambda proposal: f"trial {proposal.number}"
    run_tags: Callable[[Proposal], Mapping[str, str]] = lambda _: {}
    inputs_of: Callable[[Recipe], Sequence[DataInput]] | None = None
    retries: int = 2
    grace_seconds: float = 20.0

    def attempt_folder(self, number: int, attempt: int) -> Path:
        """Where an attempt keeps its files."""
        return attempt_folder(self.folder, number, attempt)


def attempt_folder(folder: Path, number: int, attempt: int) -> Path:
    """Where an attempt keeps its files, in a study's folder."""
    return folder / f"trial-{number:04d}" / f"attempt-{attempt}"


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """How the loop ended. `seconds` are those of all starts of this sweep."""

    interrupted: bool
    reason: str
    seconds: float
