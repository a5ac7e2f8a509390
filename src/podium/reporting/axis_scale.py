"""Owns where a parameter's values lie on an axis: linear, logarithmic, or one place a category."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from podium.reporting import style

MISSING, MISSING_HEIGHT = "not set", -0.14
FEW = 6
SPREAD = 0.3  # of the way from place to place
SPREAD_HEIGHT = 0.05  # of the whole axis
GOLDEN = 0.618034


@dataclass(frozen=True, kw_only=True)
class AxisScale:
    """An axis over observed values. `categories` is empty for numbers; values that are missing lie apart."""

    low: float
    high: float
    log: bool
    categories: tuple[str, ...]

    @classmethod
    def of(cls, values: pd.Series, *, log: bool = False) -> AxisScale:
        """The axis of a column; one place a value where values are texts, or few numbers that recur."""
        present = values.dropna()
        if any(isinstance(value, str | bool | np.bool_) for value in present):
            return cls._of_places(sorted({_place(value) for value in present}))
        numbers = pd.to_numeric(present).astype(float)
        numbers = numbers[np.isfinite(numbers)]
        distinct = sorted(numbers.unique())
        recurring = len(numbers) >= 3 * len(distinct) or all(one.is_integer() for one in distinct)
        if 1 < len(distinct) <= FEW and recurring:
            return cls._of_places([_number(value) for value in distinct])
        if not len(numbers):
            return cls(low=0.0, high=1.0, log=False, categories=())
        low, high = float(numbers.min()), float(numbers.max())
        return cls(low=low, high=high, log=log and low > 0, categories=())

    @classmethod
    def _of_places(cls, names: list[str]) -> AxisScale:
        return cls(low=0.0, high=max(len(names) - 1.0, 1.0), log=False, categories=tuple(names))

    def coordinates(self, values: pd.Series) -> NDArray[np.float64]:
        """Where values lie in the axis's own units; missing ones are NaN."""
        if self.categories:
            places = {name: float(index) for index, name in enumerate(self.categories)}
            return np.array([places.get(_place(value), np.nan) for value in values], dtype=float)
        return pd.to_numeric(values, errors="coerce").to_numpy(dtype=float)

    def spread(self, values: pd.Series) -> NDArray[np.float64]:
        """`coordinates`, those of one place moved apart a little, so that marks do not hide each other."""
        coordinates = self.coordinates(values)
        return coordinates + SPREAD * _evenly(len(coordinates)) if self.categories else coordinates

    def positions(self, values: pd.Series) -> NDArray[np.float64]:
        """Heights between 0 (lowest) and 1 (highest), those of one place a little apart; missing ones below."""
        found = self._height(self.coordinates(values))
        if self.categories:
            found = found + SPREAD_HEIGHT * _evenly(len(found))
        return np.where(np.isfinite(found), found, MISSING_HEIGHT)

    def ticks(self, *, with_missing: bool) -> list[tuple[float, str]]:
        """Heights between 0 and 1 with their labels, few enough to be read."""
        missing = [(MISSING_HEIGHT, MISSING)] if with_missing else []
        if self.categories:
            step = max(1, -(-len(self.categories) // 10))
            shown = list(enumerate(self.categories))[::step]
            return missing + [(float(self._height(np.array([index]))[0]), name) for index, name in shown]
        return missing + [
            (float(self._height(np.array([value]))[0]), _number(value)) for value in self._round()
        ]

    def apply_to(self, axes: Axes) -> None:
        """Set up a horizontal axis for `coordinates`."""
        if self.categories:
            step = max(1, -(-len(self.categories) // FEW))
            places = list(range(len(self.categories)))[::step]
            names = [style.plain(style.shortened(self.categories[place], 10)) for place in places]
            axes.set_xticks(places, names)
            axes.set_xlim(-0.5, len(self.categories) - 0.5)
        elif self.log:
            axes.set_xscale("log")
            if self.high / self.low < 10:  # a logarithmic axis without a power of ten would have no labels
                axes.set_xticks(self._round(), [_number(value) for value in self._round()])
                axes.set_xticks([], minor=True)
        else:
            whole = float(self.low).is_integer() and float(self.high).is_integer()
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=whole and self.high - self.low < FEW))

    def _height(self, values: NDArray[Any]) -> NDArray[np.float64]:
        numbers = np.asarray(values, dtype=float)
        low, high = self.low, self.high
        if self.log:
            numbers, low, high = np.log(numbers), float(np.log(low)), float(np.log(high))
        if high == low:
            return np.where(np.isfinite(numbers), 0.5, np.nan)
        return (numbers - low) / (high - low)

    def _round(self) -> list[float]:
        """Both ends and round values between them that keep clear of the ends."""
        if self.high == self.low:
            return [self.low]
        locator = LogLocator(numticks=FEW) if self.log else MaxNLocator(5)
        between = [float(value) for value in locator.tick_values(self.low, self.high)]
        heights = self._height(np.array(between))
        clear = [value for value, height in zip(between, heights, strict=True) if 0.08 < height < 0.92]
        return [self.low, *clear, self.high]


def with_place_for_missing(values: pd.Series) -> pd.Series:
    """A column whose missing values have a place of their own where the others are few that recur, else are left out."""
    present = values.dropna()
    if len(present) == len(values) or 2 * present.nunique() > len(present):
        return present
    return values.astype(object).where(values.notna(), MISSING)


def _evenly(count: int) -> NDArray[np.float64]:
    """So many numbers between -0.5 and 0.5: multiples of the golden ratio spread evenly without chance."""
    return np.asarray(np.arange(count) * GOLDEN % 1 - 0.5, dtype=float)


def _place(value: object) -> str:
    """The name of a value's place: texts and truth values as they are, numbers as they are labelled."""
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return _number(float(value))
    return str(value)


def _number(value: float) -> str:
    text = f"{value:.6g}" if value.is_integer() else f"{value:.3g}"
    if 0 < abs(value) < 1e-3:
        digits, _, power = f"{value:.1e}".partition("e")
        text = f"{digits.removesuffix('.0')}e{int(power)}"
    return text
