"""Owns what training is asked for and what it answers: job, epoch event, verdict, result."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from podium.recipe import Recipe

Goal = Literal["maximize", "minimize"]
FailureCause = Literal["error", "nan", "memory", "lost"]


@dataclass(frozen=True, kw_only=True)
class TrainingArrays:
    """Where a worker finds its data, and what it must hash to. Nothing here leads to test data.

    `images`: .npy, uint8 (n, height, width, channels). `labels`: .npy, int64 (n,). `split`: .npz with
    int64 `train` and `validation` indices into both. Digests are SHA-256 in hexadecimal.
    """

    images: Path
    labels: Path
    split: Path
    train_digest: str
    split_digest: str
    class_names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """All that a worker gets for one attempt.

    `folder` is the attempt's own: checkpoints, best.keras and predictions go there. `epochs` is the last epoch of the
    training; `resume_from` another attempt's folder whose checkpoint is continued. `code` is the import root of a
    user's own model.
    """

    recipe: Recipe
    arrays: TrainingArrays
    folder: Path
    epochs: int
    metric: str = "val_accuracy"
    goal: Goal = "maximize"
    resume_from: Path | None = None
    code: Path | None = None


@dataclass(frozen=True, kw_only=True)
class EpochEvent:
    """One finished epoch, counted from 1. `metrics` holds loss, accuracy, val_loss, val_accuracy, learning_rate."""

    epoch: int
    metrics: dict[str, float]
    seconds: float
    images: int


class Verdict(StrEnum):
    """What the coordinator answers to an epoch."""

    CONTINUE = "continue"
    PRUNE = "prune"
    INTERRUPT = "interrupt"


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What one attempt came to.

    `status`: finished, pruned or interrupted. `metrics` are those of `best_epoch`, the best epoch by the
    objective's metric; `weights_sha256` hashes that epoch's weights, `final_weights_sha256` those after the last epoch
    that was trained, whichever weights a callback put back. `model_file` is best.keras, None where the
    model is not made of stock Keras objects or the attempt was pruned or interrupted (`not_promotable` says why).
    """

    status: Literal["finished", "pruned", "interrupted"]
    best_epoch: int
    metrics: dict[str, float]
    epochs: int
    seconds: float
    images_per_second: float
    weights_sha256: str
    final_weights_sha256: str
    parameters: int
    device: str
    threads: int
    model_file: Path | None = None
    model_sha256: str | None = None
    not_promotable: str | None = None
    details: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an attempt ended without a result."""

    cause: FailureCause
    message: str
    traceback: str = ""


def better(a: float, b: float, goal: Goal) -> bool:
    """Whether value `a` beats `b`."""
    return a > b if goal == "maximize" else a < b
