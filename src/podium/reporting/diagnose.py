"""Owns the diagnosis: what a run's learning curves say, in one tag, one sentence and one remedy.

Losses are measured in units of ln(classes), the loss of a network that guesses; accuracies by how much of
what guessing leaves wrong they get right. So the thresholds do not depend on the number of classes. They
were set on recorded curves of real trainings (tests/reporting/curves), between the runs made to show a
finding and those made not to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Tag = Literal[
    "healthy",
    "overfitting",
    "underfitting",
    "stuck at chance",
    "diverged",
    "learning rate too high",
    "learning rate too low",
    "still improving",
    "too short to tell",
]
Curve = NDArray[np.float64]

EXPLODED = 10.0  # x ln(classes): a network this wrong is far worse than one that guesses
AT_CHANCE = 0.05  # share of the possible gain; the noise of 200 validation images is about 0.02
LOSS_AT_CHANCE = 0.95  # x ln(classes): a loss below it means that something was learnt, if not yet shown
FLAT = 0.01  # relative fall of the training loss over the whole run below which nothing moves
ACCURACY_GAP = 0.15  # the guide's 15 points
RISE = 1.10  # validation loss over its lowest: epochs of healthy runs differ by up to 7 %
RISE_LEAST = 0.02  # x ln(classes): 10 % of a loss near zero is no rise
WARMING_UP = 0.02  # validation accuracy gained an epoch: batch normalisation's averages still lag behind
OSCILLATION = (
    0.045  # x ln(classes) of way back and forth an epoch; healthy runs up to 0.03, too high from 0.07
)
SLOW_FALL = 0.03  # x ln(classes) an epoch; a rate that suits falls 5 to 30 % in the first epochs
NEAR_GUESSING = 0.8  # x ln(classes): where a training loss is after an epoch or two at a rate that suits
IMPROVING = 0.003  # x ln(classes) an epoch: ten more epochs would be worth 3 %
HALF_LEARNT = 0.5  # of what guessing leaves wrong, on images that it was trained on


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """One finding: its tag, a sentence with the numbers it rests on, and what to try next."""

    tag: Tag
    sentence: str
    remedy: str


def diagnose(history: pd.DataFrame, *, classes: int, stopped_early: bool) -> Diagnosis:
    """What the curves of a finished run say; the most serious finding is the one that is given.

    `history`: one row an epoch with `epoch`, `loss`, `accuracy`, `val_loss`, `val_accuracy`; a loss that
    was not finite is NaN. `stopped_early`: EarlyStopping ended the run before its last planned epoch.
    Raises: ValueError if a column is missing or there are fewer than two classes.
    """
    missing = {"epoch", "loss", "accuracy", "val_loss", "val_accuracy"} - set(history.columns)
    if missing:
        raise ValueError(f"history lacks {', '.join(sorted(missing))}; it has {', '.join(history.columns)}.")
    if classes < 2:
        raise ValueError(f"classes: got {classes}; a classification has at least 2.")
    curves = _Curves.of(history, classes=classes, stopped_early=stopped_early)
    if not len(curves.loss):
        return _diagnosis("too short to tell", "No epoch was finished.")
    checks: list[Callable[[_Curves], Diagnosis | None]] = [
        _diverged,
        _stuck_at_chance,
        _too_short,
        _rate_too_high,
        _overfitting,
        _rate_too_low,
        _still_improving,
        _underfitting,
    ]
    for check in checks:
        found = check(curves)
        if found is not None:
            return found
    return _diagnosis(
        "healthy",
        f"Training and validation agree (accuracy {curves.end(curves.accuracy):.3f} and "
        f"{curves.end(curves.val_accuracy):.3f}) and the curves have levelled off.",
    )


@dataclass(frozen=True, kw_only=True)
class _Curves:
    """Curves by epoch; losses in units of ln(classes)."""

    loss: Curve
    val_loss: Curve
    accuracy: Curve
    val_accuracy: Curve
    chance: float
    stopped_early: bool

    @classmethod
    def of(cls, history: pd.DataFrame, *, classes: int, stopped_early: bool) -> _Curves:
        ordered = history.sort_values("epoch")
        unit = math.log(classes)
        return cls(
            loss=ordered["loss"].to_numpy(dtype=float) / unit,
            val_loss=ordered["val_loss"].to_numpy(dtype=float) / unit,
            accuracy=ordered["accuracy"].to_numpy(dtype=float),
            val_accuracy=ordered["val_accuracy"].to_numpy(dtype=float),
            chance=1 / classes,
            stopped_early=stopped_early,
        )

    def end(self, curve: Curve) -> float:
        """The mean of the last three epochs: a single one is noisy."""
        return float(curve[-3:].mean())

    def gain(self, accuracy: float) -> float:
        """0 for a network that guesses, 1 for one that is always right."""
        return (accuracy - self.chance) / (1 - self.chance)


def _diverged(curves: _Curves) -> Diagnosis | None:
    for name, curve in (("training", curves.loss), ("validation", curves.val_loss)):
        wrong = np.flatnonzero(~np.isfinite(curve))
        if len(wrong):
            sentence = f"The {name} loss was not a finite number from epoch {wrong[0] + 1} on."
            return _diagnosis("diverged", sentence)
    worst = int(curves.loss.argmax())
    recovered = curves.gain(curves.end(curves.val_accuracy)) > AT_CHANCE
    if curves.loss[worst] > EXPLODED and not recovered:
        return _diagnosis(
            "diverged",
            f"The training loss exploded in epoch {worst + 1}, to {curves.loss[worst]:.3g} times that of "
            "guessing, and did not recover.",
        )
    return None


def _stuck_at_chance(curves: _Curves) -> Diagnosis | None:
    best = max(curves.end(curves.accuracy), curves.end(curves.val_accuracy))
    loss = min(curves.end(curves.loss), curves.end(curves.val_loss))
    if curves.gain(best) > AT_CHANCE or loss < LOSS_AT_CHANCE:
        return None
    if _falls_steadily(curves.loss) and curves.loss[-1] < (1 - FLAT) * curves.loss[0]:
        return None  # it learns, too slowly to show
    times = float(curves.loss[0])
    began = f", and the loss began at {times:.1f} times that of guessing" if times > 2 else ""
    return _diagnosis(
        "stuck at chance",
        f"After {len(curves.loss)} epochs accuracy is {best:.3f}; guessing gives {curves.chance:.3f}{began}.",
    )


def _too_short(curves: _Curves) -> Diagnosis | None:
    if len(curves.loss) > 1:
        return None
    return _diagnosis("too short to tell", "One epoch shows no trend.")


def _rate_too_high(curves: _Curves) -> Diagnosis | None:
    # The first third is left out: every run is restless at first, and a rate that was lowered in time is well.
    later = curves.val_loss[len(curves.val_loss) // 3 :]
    steps = np.diff(later)
    if len(steps) < 3:
        return None
    back_and_forth = float((np.abs(steps).sum() - abs(steps.sum())) / len(steps))
    if back_and_forth < OSCILLATION:
        return None
    return _diagnosis(
        "learning rate too high",
        f"The validation loss jumps up and down: {back_and_forth:.0%} of the loss of guessing an epoch, "
        f"where a settled run stays under {OSCILLATION:.1%}.",
    )


def _overfitting(curves: _Curves) -> Diagnosis | None:
    warming_up = len(curves.loss) < 3 or np.diff(curves.val_accuracy[-3:]).mean() > WARMING_UP
    gap = curves.end(curves.accuracy) - curves.end(curves.val_accuracy)
    if gap > ACCURACY_GAP and not warming_up:
        return _diagnosis(
            "overfitting",
            f"Training accuracy is {100 * gap:.0f} points above validation accuracy "
            f"({curves.end(curves.accuracy):.3f} and {curves.end(curves.val_accuracy):.3f}).",
        )
    # Dropout and augmentation push training accuracy below validation accuracy; the losses still tell.
    smooth = pd.Series(curves.val_loss).rolling(3).mean()
    if smooth.notna().sum() < 3:
        return None
    lowest = int(smooth.argmin())
    rise = curves.end(curves.val_loss) - smooth[lowest]
    rising = rise > max((RISE - 1) * smooth[lowest], RISE_LEAST)
    if rising and curves.end(curves.loss) < curves.loss[lowest]:
        return _diagnosis(
            "overfitting",
            f"Since epoch {lowest + 1} the validation loss rose by {rise / smooth[lowest]:.0%} "
            "while the training loss fell.",
        )
    return None


def _rate_too_low(curves: _Curves) -> Diagnosis | None:
    epochs = len(curves.loss)
    per_epoch = float(curves.loss[0] - curves.loss[-1]) / (epochs - 1)
    near_guessing = curves.end(curves.loss) > NEAR_GUESSING
    if epochs < 6 or not near_guessing or per_epoch > SLOW_FALL or not _falls_steadily(curves.loss):
        return None
    if _still_improving(curves) is None:
        return None
    return _diagnosis(
        "learning rate too low",
        f"The training loss falls steadily but by only {per_epoch:.1%} of the loss of guessing an epoch, "
        f"and after {epochs} epochs is {curves.end(curves.loss):.2f} times that of guessing.",
    )


def _still_improving(curves: _Curves) -> Diagnosis | None:
    if curves.stopped_early:
        return None
    # As EarlyStopping sees it: by how much the best of the last epochs beats the best before them.
    epochs = len(curves.val_loss)
    window = max(min(2, epochs - 1), epochs // 4)
    per_epoch = float(curves.val_loss[:-window].min() - curves.val_loss[-window:].min()) / window
    if per_epoch < IMPROVING:
        return None
    return _diagnosis(
        "still improving",
        f"The validation loss was still falling by {per_epoch:.1%} of the loss of guessing an epoch "
        "when the run ended.",
    )


def _underfitting(curves: _Curves) -> Diagnosis | None:
    # The greater of the two: dropout and augmentation make training images the harder ones.
    best = max(curves.end(curves.accuracy), curves.end(curves.val_accuracy))
    if curves.gain(best) >= HALF_LEARNT:
        return None
    return _diagnosis(
        "underfitting",
        f"Accuracy levelled off at {curves.end(curves.accuracy):.3f} on training and "
        f"{curves.end(curves.val_accuracy):.3f} on validation images: less than half of what can be learnt.",
    )


def _falls_steadily(curve: Curve) -> bool:
    return len(curve) > 2 and float((np.diff(curve) < 0).mean()) >= 0.9


REMEDIES: dict[Tag, str] = {
    "healthy": "Nothing needs mending; for more, try a larger model or more data.",
    "overfitting": "More dropout, stronger augmentation, weight decay or more data; or a smaller model.",
    "underfitting": "A larger model, more epochs or a higher learning rate; less dropout and augmentation.",
    "stuck at chance": "Check labels and preprocessing; then change the learning rate by a factor of ten: down "
    "if the first loss was above that of guessing, else up.",
    "diverged": "Lower the learning rate by a factor of ten, or clip gradients (optimizer.clipnorm: 1.0).",
    "learning rate too high": "Lower the learning rate, by a factor of three to ten, or enlarge the batches.",
    "learning rate too low": "Raise the learning rate, by a factor of three to ten.",
    "still improving": "Train for more epochs.",
    "too short to tell": "Train for at least three epochs.",
}


def _diagnosis(tag: Tag, sentence: str) -> Diagnosis:
    return Diagnosis(tag=tag, sentence=sentence, remedy=REMEDIES[tag])
