"""Owns the statistics of comparing configurations seed by seed: corrected test and Holm's procedure.

The test is the corrected resampled t-test of Nadeau and Bengio (Machine Learning 52, 2003): trainings on
resampled splits of one dataset share most of their images, so their spread understates how the mean
would vary. Its variance factor is 1/S + n_validation/n_train instead of 1/S.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

TEST_NAME = "corrected resampled t-test (Nadeau and Bengio, 2003), two-sided, paired by seed"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One configuration less another: mean, spread and standard error of the paired differences, p."""

    difference: float
    spread: float
    error: float
    p: float


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """The corrected resampled t-test over the seeds in `paired` (a mask over all seeds)."""

    paired: NDArray[np.bool_]
    n_validation: int
    n_train: int
    alpha: float

    @property
    def factor(self) -> float:
        """Standard deviation of the differences to standard error of their mean."""
        return math.sqrt(1 / self.paired.sum() + self.n_validation / self.n_train)

    def critical(self, comparisons: int) -> float:
        """The t that one of so many comparisons must pass (Bonferroni, Holm's first step)."""
        return float(stats.t.isf(self.alpha / (2 * comparisons), self.paired.sum() - 1))

    def compare(self, values: NDArray[np.float64], others: NDArray[np.float64]) -> Comparison:
        """`values` less `others`, both one a seed and finite under the paired seeds."""
        differences = (values - others)[self.paired]
        spread = float(differences.std(ddof=1))
        if spread <= 1e-9 * max(1.0, float(np.abs(values).max())):
            # The same difference under every seed says that the measure is too coarse to show the noise,
            # not that there is none. What stands in: the rounding of two shares of n_validation images.
            spread = math.sqrt(1 / 6) / self.n_validation
        difference = float(differences.mean())
        error = spread * self.factor
        p = 2 * float(stats.t.sf(abs(difference) / error, len(differences) - 1))
        return Comparison(difference=difference, spread=spread, error=error, p=p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given. Source: Holm, 1979."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
