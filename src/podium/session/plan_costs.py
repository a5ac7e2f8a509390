"""Owns what a sweep costs by what was measured: seconds, memory and disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from podium.session.calibration import Measured
from podium.session.corner_sizes import Built
from podium.session.plan_extent import Extent, Span

SECONDS_PER_HOUR = 3600.0
WEIGHT_BYTES = 4  # of a saved weight, which is float32 in every precision


@dataclass(frozen=True, kw_only=True)
class SecondsSpan:
    """Wall seconds."""

    least: float
    most: float


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Seconds of an epoch on all images, and of what a trial takes besides: of the baseline, and of the fastest and
    slowest configuration measured."""

    baseline_epoch: float
    fast_epoch: float
    slow_epoch: float
    fast_start: float
    slow_start: float


def rates(baseline: Measured, others: Sequence[Measured]) -> Rates:
    """The rates of a calibration."""
    measured = [baseline, *others]
    return Rates(
        baseline_epoch=baseline.epoch_seconds,
        fast_epoch=min(one.epoch_seconds for one in measured),
        slow_epoch=max(one.epoch_seconds for one in measured),
        fast_start=min(one.start_seconds for one in measured),
        slow_start=max(one.start_seconds for one in measured),
    )


def within_hours(wanted: Extent, rate: Rates, *, workers: int, hours: float | None) -> tuple[Span, Span]:
    """Trials and epochs that the hours leave of an extent."""
    if hours is None:
        assert wanted.trials is not None
        assert wanted.epochs is not None
        return wanted.trials, wanted.epochs
    span = hours * SECONDS_PER_HOUR * workers
    slowest = rate.slow_epoch + rate.slow_start / wanted.trial.least
    epochs = Span(
        least=math.floor(span / slowest),
        most=math.ceil(span / rate.fast_epoch) + workers,  # an epoch that has begun is ended
    )
    trials = Span(
        least=max(1, epochs.least // wanted.trial.most), most=math.ceil(epochs.most / wanted.trial.least)
    )
    return _less(wanted.trials, trials), _less(wanted.epochs, epochs)


def seconds(
    wanted: Extent, rate: Rates, *, workers: int, hours: float | None, warm_seconds: float
) -> SecondsSpan:
    """From the first worker's start to the last trial's end.

    Least: all but the baseline is as fast as the fastest measured, and no worker is ever idle. Most: all but
    the baseline is as slow as the slowest, and one such trial comes last, alone.
    """
    limit = math.inf if hours is None else hours * SECONDS_PER_HOUR
    if wanted.trials is None or wanted.epochs is None:
        return SecondsSpan(least=limit, most=limit + rate.slow_epoch)
    first = wanted.baseline.least * rate.baseline_epoch
    rest = max(0, wanted.epochs.least - wanted.baseline.least) * rate.fast_epoch
    least = max(first, (first + rest + wanted.trials.least * rate.fast_start) / workers)
    first = wanted.baseline.most * rate.baseline_epoch
    rest = max(0, wanted.epochs.most - wanted.baseline.most) * rate.slow_epoch
    alone = wanted.trial.most * rate.slow_epoch + rate.slow_start
    most = (first + rest + wanted.trials.most * rate.slow_start + (workers - 1) * alone) / workers
    # Where the hours are used, a trial ends after the epoch that it is in.
    return SecondsSpan(
        least=min(warm_seconds + least, limit), most=min(warm_seconds + most, limit + rate.slow_epoch)
    )


def memory_bytes(
    network: Built, batch: int, *, anchor: Measured, anchor_network: Built, anchor_batch: int
) -> int | None:
    """Estimated memory of a worker that trains a network, None if not known.

    The anchor's measured peak, and on top what the network's own estimate is above the anchor's.
    """
    own, anchored = network.training_bytes(batch), anchor_network.training_bytes(anchor_batch)
    if own is None or anchored is None:
        return None
    return max(own, anchor.peak_bytes + own - anchored)


def disk_bytes(
    trials: int, measured: Sequence[Measured], *, parameters: int, workers: int, continued: bool
) -> int:
    """Most that lies on disk while the sweep runs, if every trial finishes with a model of so many parameters.

    A trial's files are there twice until the sweep ends, in its folder and as artifacts; checkpoints only while it
    trains, unless trials are `continued` later. Pictures and databases are not counted.
    """
    kept = max(one.kept_bytes + WEIGHT_BYTES * max(0, parameters - one.parameters) for one in measured)
    checkpoints = max(
        one.checkpoint_bytes * max(1.0, parameters / max(1, one.parameters)) for one in measured
    )
    held = trials if continued else workers
    return int(2 * trials * kept + held * checkpoints)


def _less(one: Span | None, other: Span) -> Span:
    if one is None:
        return other
    return replace(one, least=min(one.least, other.least), most=min(one.most, other.most))
