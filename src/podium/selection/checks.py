"""Owns the checks of a recipe: what a training had to come to, held to what it came to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from podium.recipe_sections import AtLeast, CheckSettings

Bound = Literal["at_least", "at_most"]
# Keras's accuracy is a float32: 900 of 1,000 right is 0.89999998, and at least 0.9 all the same.
DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check. `value` is None where it is not known, which is a failure."""

    name: str
    value: float | None
    bound: Bound
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the value is there and within the limit."""
        if self.value is None or not math.isfinite(self.value):
            return False
        value = round(self.value, DIGITS)
        return value >= self.limit if self.bound == "at_least" else value <= self.limit

    @property
    def sentence(self) -> str:
        """The check in words: `gap 0.1312 (at most 0.1)`."""
        value = "unknown" if self.value is None else f"{self.value:.4f}"
        return f"{self.name} {value} ({self.bound.replace('_', ' ')} {self.limit:g})"


def of_training(settings: CheckSettings | None, metrics: Mapping[str, float]) -> list[Check]:
    """The checks of a training's best epoch. `metrics`: `accuracy` and `val_accuracy` of that epoch.

    Training accuracy is the mean over the epoch's own batches, with augmentation and dropout.
    """
    if settings is None:
        return []
    train, validation = metrics.get("accuracy"), metrics.get("val_accuracy")
    gap = None if train is None or validation is None else train - validation
    found = [
        _at_least("train_accuracy", train, settings.train_accuracy),
        _at_least("val_accuracy", validation, settings.val_accuracy),
    ]
    checks = [check for check in found if check is not None]
    if settings.gap is not None:
        checks.append(Check(name="gap", value=gap, bound="at_most", limit=settings.gap.at_most))
    return checks


def of_test(settings: CheckSettings | None, accuracy: float | None) -> list[Check]:
    """The check of the test accuracy, for the moment when the test set is looked at; None: there is no test part."""
    check = _at_least("test_accuracy", accuracy, settings.test_accuracy) if settings else None
    return [check] if check is not None else []


def failed(checks: Sequence[Check]) -> list[Check]:
    """Those that did not pass."""
    return [check for check in checks if not check.passed]


def _at_least(name: str, value: float | None, limit: AtLeast | None) -> Check | None:
    return None if limit is None else Check(name=name, value=value, bound="at_least", limit=limit.at_least)
