"""Owns the statistics over replayed searches: best value against epochs, regret, and whether the target holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from replay import Trace
from scipy import stats
from search_methods import Methods
from unit_cube import Coordinates

SHARE, REGRET_POINTS = 5, 0.5
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The default's mean less another's, in points of accuracy, at `epochs`; `low` to `high`: 95 %, paired by seed.

    Repeats of one seed share their first random proposals.
    """

    other: str
    epochs: int
    points: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """'behind' only if the whole interval is; 'undecided' if it may well be behind by more than is allowed."""
        if math.isnan(self.points):
            return "undecided"
        if self.high < 0:
            return "behind"
        return "ahead" if self.low > 0 else "level" if self.low >= -REGRET_POINTS else "undecided"

    def in_words(self) -> str:
        """One line for a terminal."""
        words = {
            "ahead": "ahead of",
            "level": "level with",
            "behind": "behind",
            "undecided": "not decided against",
        }
        verdict = words[self.verdict]
        return (
            f"{verdict} '{self.other}' at {self.epochs} epochs: {self.points:+.2f} points "
            f"(95 % from {self.low:+.2f} to {self.high:+.2f})"
        )


@dataclass(frozen=True, kw_only=True)
class Target:
    """What issue and README promise of the default, as measured. `regret`: points that it lacks at `epochs`.

    `final`: the mean value of TPE without pruning at the end of its budget.
    """

    final: float
    epochs: int
    regret: float
    regret_low: float
    regret_high: float
    comparisons: tuple[Comparison, ...]
    at_end: tuple[Comparison, ...]

    @property
    def holds(self) -> bool:
        """Whether the mean regret is within REGRET_POINTS and the default is level with or ahead of all, at `epochs`."""
        return self.regret <= REGRET_POINTS and all(
            each.verdict in ("ahead", "level") for each in self.comparisons
        )


def summary(traces: Mapping[str, Sequence[Trace]], methods: Methods, *, budget: int) -> pd.DataFrame:
    """One row a method, best first by its mean at a fifth of the budget; values in per cent, regret in points.

    `epochs_to_reach`: where the mean curve reaches TPE's final mean, `epochs_to_allowed`: where it comes within
    REGRET_POINTS; `median_to_reach`: the median over repeats of where each reaches it. Infinite where none does.
    """
    fifth = budget // SHARE
    final = float(np.mean(_curves(traces[methods.unpruned_tpe], budget)[:, -1]))
    rows = [_row(name, found, final, fifth=fifth, budget=budget) for name, found in traces.items()]
    return pd.DataFrame(rows).sort_values("fifth_mean", ascending=False, ignore_index=True)


def curves(traces: Mapping[str, Sequence[Trace]], *, budget: int, every: int) -> pd.DataFrame:
    """Mean, spread and quartiles of the best value after each `every` epochs; rows without a value are left out."""
    rows = []
    for name, found in traces.items():
        values = _curves(found, budget)
        for epochs in range(every, budget + 1, every):
            at = values[:, epochs]
            if not np.isnan(at).any():
                rows.append({"method": name, "epochs": epochs, "repeats": len(at), **_spread(at)})
    return pd.DataFrame(rows)


def target(traces: Mapping[str, Sequence[Trace]], methods: Methods, *, budget: int) -> Target:
    """Whether the default keeps what is promised of it."""
    fifth = budget // SHARE
    values = {name: _curves(found, budget) for name, found in traces.items()}
    tpe, default = values[methods.unpruned_tpe][:, -1], values[methods.default][:, fifth]
    rivals = [_best_rule(values, methods, fifth), methods.plain_random, methods.same_pruner]
    at_end = [methods.unpruned_tpe, _best_rule(values, methods, budget), *rivals[1:]]
    lack = _difference(methods.unpruned_tpe, fifth, default, tpe)
    return Target(
        final=float(np.mean(tpe)),
        epochs=fifth,
        regret=-lack.points,
        regret_low=-lack.high,
        regret_high=-lack.low,
        comparisons=tuple(
            _difference(name, fifth, default, values[name][:, fifth])
            for name in rivals
            if name is not None and name != methods.default
        ),
        at_end=tuple(
            _difference(name, budget, values[methods.default][:, -1], values[name][:, -1])
            for name in at_end
            if name is not None and name != methods.default
        ),
    )


def _row(name: str, found: Sequence[Trace], final: float, *, fifth: int, budget: int) -> dict[str, Any]:
    values = _curves(found, budget)
    mean = values.mean(axis=0)
    median = float(np.median([_reached(row, final) for row in values]))
    early = [gap for trace in found for spent, gap in trace.moved if spent < fifth]
    return {
        "method": name,
        "repeats": len(found),
        **{f"fifth_{key}": 100 * value for key, value in _spread(values[:, fifth]).items()},
        "regret_at_fifth": 100 * (final - float(mean[fifth])),
        **{f"end_{key}": 100 * value for key, value in _spread(values[:, budget]).items()},
        "regret_at_end": 100 * (final - float(mean[budget])),
        "epochs_to_reach": _reached(mean, final),
        "epochs_to_allowed": _reached(mean, final - REGRET_POINTS / 100),
        "median_to_reach": median,
        "trials": float(np.mean([len(trace.moved) for trace in found])),
        "epochs": float(np.mean([trace.epochs for trace in found])),
        "moved_at_fifth": float(np.mean(early)),
        "moved": float(np.mean([gap for trace in found for _, gap in trace.moved])),
        "ran_out": float(np.mean([trace.ran_out for trace in found])),
        "seconds": float(np.mean([trace.seconds for trace in found])),
    }


def _reached(curve: Coordinates, value: float) -> float:
    return float(np.argmax(curve >= value)) if (curve >= value).any() else np.inf


def _best_rule(values: Mapping[str, Coordinates], methods: Methods, epochs: int) -> str | None:
    """The variant of the one-epoch rule that is best then: chosen afterwards, in its favour."""
    means = {name: float(np.mean(values[name][:, epochs])) for name in methods.one_epoch}
    known = {name: mean for name, mean in means.items() if not np.isnan(mean)}
    return max(known, key=lambda name: known[name]) if known else None


def _difference(other: str, epochs: int, mine: Coordinates, its: Coordinates) -> Comparison:
    gaps = 100 * (mine - its)
    mean, error = float(np.mean(gaps)), float(stats.sem(gaps))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(gaps) - 1)) * error
    return Comparison(other=other, epochs=epochs, points=mean, low=mean - reach, high=mean + reach)


def _spread(values: Coordinates) -> dict[str, float]:
    low, middle, high = np.percentile(values, [25, 50, 75])
    spread = float(np.std(values, ddof=1))
    return {"mean": float(np.mean(values)), "sd": spread, "q25": low, "median": middle, "q75": high}


def _curves(traces: Sequence[Trace], budget: int) -> Coordinates:
    """Shape (repeats, budget + 1)."""
    return np.stack([trace.curve(budget) for trace in traces])
