"""Owns the protocol between the coordinator and whatever places attempts on processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from podium.result import EpochEvent, Failure, TrainingJob, TrainingResult, Verdict


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at training a trial; `key` is unique within the study: '3.1' is trial 3, first attempt."""

    key: str
    job: TrainingJob


@dataclass(frozen=True, kw_only=True)
class Started:
    """A worker has taken the attempt. `place` names machine, process and device."""

    key: str
    place: str


@dataclass(frozen=True, kw_only=True)
class EpochDone:
    """One epoch is over; the worker waits for `answer` before it goes on."""

    key: str
    epoch: EpochEvent


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The attempt is over: a result, or the failure that took its place."""

    key: str
    outcome: TrainingResult | Failure


@dataclass(frozen=True)
class Notice:
    """Something that people who watch should know, about no attempt in particular."""

    text: str


Event = Started | EpochDone | Ended | Notice


class Executor(Protocol):
    """Places attempts. A lost worker comes back as Ended with a Failure of cause 'lost' (or 'memory')."""

    @property
    def free(self) -> int:
        """How many attempts can be submitted now and start at once."""

    def submit(self, attempt: Attempt) -> None:
        """Hand an attempt to a free worker. Never blocks on training."""

    def events(self, timeout_seconds: float) -> list[Event]:
        """All events that are ready; waits up to the timeout for the first."""

    def answer(self, key: str, verdict: Verdict) -> None:
        """Reply to EpochDone."""

    def cancel(self, key: str) -> None:
        """Kill the worker of this attempt at once; no further event of it arrives."""

    def close(self) -> None:
        """End all workers; returns when none is left."""
