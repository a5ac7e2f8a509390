"""Owns a plan as it is answered: its numbers, its JSON, its text and what is doubtful in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from podium.engines.grid_points import combinations, grid_size
from podium.reporting.ranking import duration
from podium.session import plan_tables
from podium.session.calibration import Measured
from podium.session.corner_sizes import Built
from podium.session.plan_costs import (
    SECONDS_PER_HOUR,
    Rates,
    SecondsSpan,
    disk_bytes,
    rates,
    seconds,
    within_hours,
)
from podium.session.plan_extent import Extent, Span, extent
from podium.session.space_survey import BASELINE, Corner, Survey
from podium.sweep_file import KerasTunerSettings, Sweep

CONTINUOUS = "continuous"


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """A sweep file and what was found of it. `filled_cache`: the dataset cache, if the images were decoded into it."""

    spec: Sweep
    survey: Survey
    threads: int
    free_bytes: int
    filled_cache: Path | None

    @property
    def measured(self) -> list[Measured]:
        """All that was trained for a moment."""
        return list(self.survey.calibration.measured.values())

    @property
    def baseline(self) -> Measured:
        """The recipe as it stands."""
        return self.survey.calibration.measured[BASELINE]

    @cached_property
    def combinations(self) -> int | None:
        """Different points of the space, None if it has a continuous parameter."""
        return combinations(self.spec.file.space)

    @cached_property
    def grid(self) -> int | None:
        """Points of the engine's grid, None if it lays none."""
        return grid_size(self.spec.file.engine, self.spec.file.space)

    @cached_property
    def extent(self) -> Extent:
        """Trials and epochs, hours aside."""
        return extent(self.spec)

    @cached_property
    def rates(self) -> Rates:
        """Seconds of an epoch and of a trial's start."""
        return rates(self.baseline, self.measured)

    @cached_property
    def trials_and_epochs(self) -> tuple[Span, Span]:
        """As far as the hours go, too."""
        return within_hours(
            self.extent, self.rates, workers=self.survey.workers, hours=self.spec.file.budget.hours
        )

    @cached_property
    def seconds(self) -> SecondsSpan:
        """Wall time."""
        return seconds(
            self.extent,
            self.rates,
            workers=self.survey.workers,
            hours=self.spec.file.budget.hours,
            warm_seconds=self.survey.calibration.warm_seconds,
        )

    @cached_property
    def disk_bytes(self) -> int:
        """The most that lies on disk while the sweep runs."""
        engine = self.spec.file.engine
        return disk_bytes(
            self.trials_and_epochs[0].most,
            self.measured,
            parameters=self.survey.largest,
            workers=self.survey.workers,
            continued=isinstance(engine, KerasTunerSettings) and engine.oracle == "hyperband",
        )


def document(plan: SweepPlan) -> dict[str, Any]:
    """The JSON keys of the answer."""
    trials, epochs = plan.trials_and_epochs
    space = {key: parameter.model_dump() for key, parameter in plan.spec.file.space.items()}
    content = {
        "space": space,
        "combinations": CONTINUOUS if plan.combinations is None else plan.combinations,
        "grid_points": plan.grid,
        "corners": [_corner(corner, plan.spec) for corner in plan.survey.corners],
        "corner_count": plan.survey.corner_count,
        "measured": [_measured(plan.survey, name) for name in plan.survey.calibration.measured],
        "trials": {"min": trials.least, "max": trials.most},
        "epochs": {"min": epochs.least, "max": epochs.most},
        "seconds": {"min": plan.seconds.least, "max": plan.seconds.most},
        "disk_bytes": plan.disk_bytes,
        "images_per_second": plan.baseline.images_per_second,
        "workers": plan.survey.workers,
        "threads": plan.threads,
        "worker_memory_bytes": plan.survey.worker_bytes,
        "filled_cache": None if plan.filled_cache is None else str(plan.filled_cache),
    }
    return {"sweep": plan.spec.file.name, "plan": content}


def shown(plan: SweepPlan) -> list[object]:
    """The plan for people."""
    file, found = plan.spec.file, plan.survey
    limit = file.constraints.parameters
    hidden = plan_tables.hidden_corners(found)
    parts: list[object] = [
        f"plan of {file.name}: {file.question}".rstrip(": "),
        "",
        plan_tables.space_table(file.space),
        f"combinations: {CONTINUOUS if plan.combinations is None else f'{plan.combinations:,}'}"
        + ("" if plan.grid is None else f"; the grid has {plan.grid:,} points"),
        "",
        plan_tables.corner_table(found, most_parameters=None if limit is None else limit.at_most),
        *([f"and {hidden:,} more corners (--json has those that were built)"] if hidden else []),
        _about_memory(found),
        "",
        plan_tables.measured_table(found),
        "",
        plan_tables.total_table(_totals(plan)),
        "nothing was recorded"
        + ("" if plan.filled_cache is None else f"; the images were decoded into {plan.filled_cache}"),
    ]
    return parts


def doubts(plan: SweepPlan) -> list[str]:
    """What of the plan a person should look at."""
    found = []
    cannot = [corner for corner in plan.survey.corners if corner.problem]
    if cannot:
        found.append(f"{len(cannot)} of {len(plan.survey.corners)} models looked at cannot be trained")
    for name, failure in plan.survey.calibration.failed.items():
        found.append(
            f"the corner of {name} could not be trained, so it is not in the times: {failure.message}"
        )
    if plan.survey.corner_count > len(plan.survey.corners):
        found.append(
            f"{len(plan.survey.corners)} of {plan.survey.corner_count:,} corners were built, evenly spread"
        )
    if plan.disk_bytes > plan.free_bytes:
        found.append(
            f"the disk has {decimal(plan.free_bytes)} left, the sweep may need {decimal(plan.disk_bytes)}"
        )
    asked = plan.spec.file.workers or 1
    if plan.survey.workers < asked:
        found.append(f"{asked} workers are asked for, {plan.survey.workers} can run: one a GPU")
    return found


def _totals(plan: SweepPlan) -> Sequence[tuple[str, str]]:
    trials, epochs = plan.trials_and_epochs
    text, workers = plan_tables.span_text, plan.survey.workers
    measured = f"{len(plan.measured)} configuration{'s' if len(plan.measured) > 1 else ''}"
    device = plan.baseline.device
    hours = plan.spec.file.budget.hours
    ended = ""
    if hours is not None and plan.seconds.most > hours * SECONDS_PER_HOUR:
        ended = f"; budget.hours may end it, after {hours:g} h"
    return [
        ("trials", text(trials.least, trials.most)),
        ("epochs", text(epochs.least, epochs.most)),
        (
            "time",
            f"{text(plan.seconds.least, plan.seconds.most, duration)}, by {measured} measured now{ended}",
        ),
        ("disk", f"at most {decimal(plan.disk_bytes)} while it runs, about half of it kept"),
        ("workers", f"{workers} of {plan.threads} thread{'s' if plan.threads > 1 else ''} each, on {device}"),
        (
            "baseline",
            f"{plan.baseline.parameters:,} parameters, {plan.baseline.images_per_second:,.0f} images/s",
        ),
    ]


def _about_memory(found: Survey) -> str:
    room = "is not known" if found.worker_bytes is None else decimal(found.worker_bytes)
    return (
        f"memory is an estimate for batches of {found.batch}: the baseline's measured peak, and beyond it weights, "
        f"gradients, optimizer, and each layer's output twice an image; what a worker can have: {room}"
    )


def _corner(corner: Corner, spec: Sweep) -> dict[str, Any]:
    built = corner.built if isinstance(corner.built, Built) else None
    limit = spec.file.constraints.parameters
    return {
        "params": dict(corner.parameters),
        "parameters": built.parameters if built else None,
        "multiply_adds": built.multiply_adds if built else None,
        "memory_bytes": corner.memory_bytes,
        "trainable": corner.problem is None,
        "reason": corner.problem,
        "feasible": None if built is None else limit is None or built.parameters <= limit.at_most,
    }


def _measured(found: Survey, name: str) -> dict[str, Any]:
    one = found.calibration.measured[name]
    return {
        "name": name,
        "params": dict(found.changes[name]),
        "images_per_second": one.images_per_second,
        "epoch_seconds": one.epoch_seconds,
        "start_seconds": one.start_seconds,
        "peak_memory_bytes": one.peak_bytes,
    }
