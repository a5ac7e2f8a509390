"""Owns what can go wrong: the errors that Podium raises, with their exit codes and remedies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing wrong with what a person wrote: where, what arrived, what is allowed."""

    message: str
    key: str | None = None
    got: object = None
    allowed: str | None = None
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        text = f"{self.key}: {self.message}" if self.key else self.message
        if self.allowed:
            text += f" Allowed: {self.allowed}."
        return f"{place}: {text}" if place else text


class PodiumError(Exception):
    """Any failure that Podium explains. Exit code 1 unless a subclass says otherwise."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str | None = None, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  {fault}" for fault in self.faults)])


class InvalidInput(PodiumError):
    """A file, argument or setting that cannot be used as it is; carries every fault at once."""

    exit_code = 2


class DatasetError(InvalidInput):
    """A dataset reference that cannot be read, or whose content is not what it should be."""


class SweepError(PodiumError):
    """Ends the whole sweep: going on would repeat the same failure."""


def install(*extras: str) -> str:
    """What to do where the libraries of an extra are not installed."""
    return f"Install it in Podium's folder: make extras EXTRAS={','.join(extras)}"


class TrialFailed(PodiumError):
    """Ends one trial; the sweep goes on. `cause` is one of result.FailureCause's values."""

    def __init__(self, message: str, *, cause: str, traceback: str = "") -> None:
        super().__init__(message)
        self.cause = cause
        self.traceback = traceback


class Refused(PodiumError):
    """A gate said no."""

    exit_code = 3


class Interrupted(PodiumError):
    """Stopped by a person; `resume_command` goes on from here."""

    exit_code = 130

    def __init__(self, message: str, *, resume_command: str) -> None:
        super().__init__(message, remedy=f"Go on with: {resume_command}")
        self.resume_command = resume_command
