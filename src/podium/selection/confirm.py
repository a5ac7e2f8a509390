"""Owns the question whether a candidate beats the baseline over fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podium.errors import InvalidInput
from podium.result import Goal, better
from podium.selection.paired_test import TEST_NAME, Comparison, PairedTest, holm


@dataclass(frozen=True, kw_only=True)
class SeedRuns:
    """One configuration, trained once a seed: `values[i]` is the objective under the i-th seed.

    A value is None (or not finite) where that training failed. `name` is what sentences call it.
    """

    name: str
    params: Mapping[str, Any]
    run_ids: Sequence[str]
    values: Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """One configuration's numbers. `std` has ddof=1; `difference` is the mean paired one to the baseline.

    `ci95_vs_baseline`, `p` and `p_holm` are None for the baseline, and for a candidate with a failed seed.
    `significant`: better than the baseline, and Holm's procedure rejects equality.
    """

    name: str
    params: Mapping[str, Any]
    run_ids: tuple[str, ...]
    values: tuple[float | None, ...]
    mean: float | None
    std: float | None
    difference: float | None = None
    ci95_vs_baseline: tuple[float, float] | None = None
    p: float | None = None
    p_holm: float | None = None
    significant: bool = False

    def document(self) -> dict[str, Any]:
        """As plain values for JSON."""
        interval = None if self.ci95_vs_baseline is None else list(self.ci95_vs_baseline)
        return {
            "name": self.name,
            "params": dict(self.params),
            "run_ids": list(self.run_ids),
            "mean": self.mean,
            "std": self.std,
            "values": list(self.values),
            "difference": self.difference,
            "ci95_vs_baseline": interval,
            "p": self.p,
            "p_holm": self.p_holm,
            "significant": self.significant,
        }


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """The answer. `winner` is one of `candidates`, or `baseline` where none is significantly better.

    `smallest_detectable`: the smallest mean difference that would have been called significant here, that
    is the half-width at which Holm's first step (alpha / K, two-sided) rejects, with the root mean square
    of the candidates' standard deviations of paired differences. A true difference of this size would be
    found in about half of all repeats. None without candidates to compare.
    `tied`: the two best means cannot be told apart by the same test between those two alone.
    """

    metric: str
    goal: Goal
    seeds: tuple[int, ...]
    n_validation: int
    n_train: int
    alpha: float
    baseline: Confirmed
    candidates: tuple[Confirmed, ...]
    winner: Confirmed
    significant: bool
    tied: bool
    first_two: tuple[str, str] | None
    smallest_detectable: float | None

    def document(self) -> dict[str, Any]:
        """As plain values for JSON, with the keys that scripts depend on."""
        return {
            "baseline": self.baseline.document(),
            "candidates": [candidate.document() for candidate in self.candidates],
            "winner": self.winner.document(),
            "significant": self.significant,
            "tied": self.tied,
            "first_two": None if self.first_two is None else list(self.first_two),
            "test": {
                "name": TEST_NAME,
                "metric": self.metric,
                "goal": self.goal,
                "alpha": self.alpha,
                "significance": f"Holm over {len(self.candidates)}",
                "intervals": f"Bonferroni over {len(self.candidates)}",
                "n_validation": self.n_validation,
                "n_train": self.n_train,
                "smallest_detectable": self.smallest_detectable,
            },
            "seeds": list(self.seeds),
        }


def confirm(
    baseline: SeedRuns,
    candidates: Sequence[SeedRuns],
    *,
    metric: str,
    goal: Goal,
    seeds: Sequence[int],
    n_validation: int,
    n_train: int,
    alpha: float = 0.05,
) -> Confirmation:
    """Compare each candidate with the baseline over the same seeds and name the winner.

    A candidate with the baseline's parameters is the baseline and is left out, so K counts real rivals.
    A candidate with a failed seed cannot win. Seeds under which the baseline failed are left out for all.
    Raises: InvalidInput with fewer than two seeds to compare by; ValueError if values and seeds do not match.
    """
    rivals = [candidate for candidate in candidates if dict(candidate.params) != dict(baseline.params)]
    _check_shapes([baseline, *rivals], seeds)
    test = PairedTest(
        paired=np.isfinite(_array(baseline.values)), n_validation=n_validation, n_train=n_train, alpha=alpha
    )
    comparisons = [_compare(test, rival, baseline) for rival in rivals]
    base = _summary(baseline)
    judged = _judge(rivals, comparisons, test, goal)
    significant = [candidate for candidate in judged if candidate.significant]
    ranked = _ranked([base, *judged], goal)
    runs = {one.name: one for one in (baseline, *rivals)}
    between = _compare(test, runs[ranked[0].name], runs[ranked[1].name]) if len(ranked) > 1 else None
    return Confirmation(
        metric=metric,
        goal=goal,
        seeds=tuple(seeds),
        n_validation=n_validation,
        n_train=n_train,
        alpha=alpha,
        baseline=base,
        candidates=judged,
        winner=_ranked(significant, goal)[0] if significant else base,
        significant=bool(significant),
        first_two=(ranked[0].name, ranked[1].name) if len(ranked) > 1 else None,
        tied=between is not None and between.p > alpha,
        smallest_detectable=_smallest_detectable(comparisons, test),
    )


def median_seed_run(values: Sequence[float | None], run_ids: Sequence[str], goal: Goal) -> str:
    """The run whose value is the median over seeds; of an even number, the worse of the middle two.

    Failed seeds (None or not finite) are left out. Raises: ValueError if no seed has a value.
    """
    finished = [
        (value, run_id)
        for value, run_id in zip(values, run_ids, strict=True)
        if value is not None and math.isfinite(value)
    ]
    if not finished:
        raise ValueError("no seed run has a value, so none is the median.")
    worst_first = sorted(finished, key=lambda pair: pair[0], reverse=goal == "minimize")
    return worst_first[(len(worst_first) - 1) // 2][1]


def _check_shapes(configurations: Sequence[SeedRuns], seeds: Sequence[int]) -> None:
    for runs in configurations:
        if not len(runs.values) == len(runs.run_ids) == len(seeds):
            raise ValueError(
                f"{runs.name}: {len(runs.values)} values and {len(runs.run_ids)} run ids "
                f"for {len(seeds)} seeds; each seed needs one of each."
            )
    names = [runs.name for runs in configurations]
    if len(set(names)) != len(names):
        raise ValueError(f"configurations need names of their own, got {names}.")
    usable = int(np.isfinite(_array(configurations[0].values)).sum())
    if usable < 2:
        raise InvalidInput(
            f"the baseline has values under {usable} of {len(seeds)} seeds; a spread needs at least 2.",
            remedy="Confirm with more seeds: --seeds 5.",
        )


def _compare(test: PairedTest, one: SeedRuns, other: SeedRuns) -> Comparison | None:
    """None where `one` failed under a seed."""
    values = _array(one.values)
    return test.compare(values, _array(other.values)) if np.isfinite(values).all() else None


def _judge(
    rivals: Sequence[SeedRuns],
    comparisons: Sequence[Comparison | None],
    test: PairedTest,
    goal: Goal,
) -> tuple[Confirmed, ...]:
    # A rival with a failed seed still counts in K: it was one of the chances to find something.
    adjusted = holm([1.0 if comparison is None else comparison.p for comparison in comparisons])
    judged = []
    for runs, comparison, p_holm in zip(rivals, comparisons, adjusted, strict=True):
        if comparison is None:
            judged.append(_summary(runs))
            continue
        half = test.critical(len(rivals)) * comparison.error
        judged.append(
            _summary(
                runs,
                difference=comparison.difference,
                ci95_vs_baseline=(comparison.difference - half, comparison.difference + half),
                p=comparison.p,
                p_holm=p_holm,
                significant=p_holm <= test.alpha and better(comparison.difference, 0.0, goal),
            )
        )
    return tuple(judged)


def _summary(runs: SeedRuns, **compared: Any) -> Confirmed:
    numbers = _array(runs.values)
    finite = numbers[np.isfinite(numbers)]
    return Confirmed(
        name=runs.name,
        params=dict(runs.params),
        run_ids=tuple(runs.run_ids),
        values=tuple(float(value) if math.isfinite(value) else None for value in numbers),
        mean=float(finite.mean()) if len(finite) else None,
        std=float(finite.std(ddof=1)) if len(finite) > 1 else None,
        **compared,
    )


def _ranked(configurations: Sequence[Confirmed], goal: Goal) -> list[Confirmed]:
    """Best mean first; a configuration with a failed seed is no contender."""
    whole = [one for one in configurations if None not in one.values]
    return sorted(whole, key=lambda one: one.mean or 0.0, reverse=goal == "maximize")


def _smallest_detectable(comparisons: Sequence[Comparison | None], test: PairedTest) -> float | None:
    spreads = [comparison.spread for comparison in comparisons if comparison is not None]
    if not spreads:
        return None
    pooled = math.sqrt(sum(spread**2 for spread in spreads) / len(spreads))
    return test.critical(len(comparisons)) * pooled * test.factor


def _array(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=float)
