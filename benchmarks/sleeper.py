"""Owns a training that takes time and nothing else: what benchmarks/cluster.py has its actors run."""

from __future__ import annotations

import time
from collections.abc import Callable

from podium.result import EpochEvent, TrainingJob, TrainingResult, Verdict

EPOCH_SECONDS = 1.0
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


def sleep(job: TrainingJob, report: Callable[[EpochEvent], Verdict]) -> TrainingResult:
    """Sleep through the epochs of a job."""
    accuracy = 0.0
    for epoch in range(1, job.epochs + 1):
        time.sleep(EPOCH_SECONDS)
        accuracy = (1 - job.recipe.model.dropout) * (1 - 0.5**epoch)
        metrics = dict.fromkeys(METRICS, accuracy)
        report(EpochEvent(epoch=epoch, metrics=metrics, seconds=EPOCH_SECONDS, images=1000))
    return TrainingResult(
        status="finished",
        best_epoch=job.epochs,
        metrics=dict.fromkeys(METRICS, accuracy),
        epochs=job.epochs,
        seconds=job.epochs * EPOCH_SECONDS,
        images_per_second=1000.0,
        weights_sha256="0" * 64,
        final_weights_sha256="0" * 64,
        parameters=0,
        device="none",
        threads=1,
    )
