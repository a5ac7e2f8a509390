"""Owns a trainer that takes no time: ten epochs of a learning curve that the trial's parameters give."""

from __future__ import annotations

from collections.abc import Callable

from podium.result import EpochEvent, TrainingJob, TrainingResult, Verdict

TRAINER = "toy_worker:train"


def train(job: TrainingJob, report: Callable[[EpochEvent], Verdict]) -> TrainingResult:
    """Validation accuracy rises towards 1 - dropout."""
    limit = 1.0 - job.recipe.model.dropout
    status = "finished"
    metrics: dict[str, float] = {}
    epoch = 0
    for epoch in range(1, job.epochs + 1):
        accuracy = limit * (1.0 - 0.6**epoch)
        metrics = {"loss": 1 / epoch, "accuracy": accuracy, "val_loss": 1 / epoch, "val_accuracy": accuracy}
        verdict = report(EpochEvent(epoch=epoch, metrics=metrics, seconds=0.001, images=10))
        if verdict is not Verdict.CONTINUE:
            status = "pruned" if verdict is Verdict.PRUNE else "interrupted"
            break
    return TrainingResult(
        status=status,  # type: ignore[arg-type]
        best_epoch=epoch,
        metrics=metrics,
        epochs=epoch,
        seconds=0.001 * epoch,
        images_per_second=10_000.0,
        weights_sha256="0" * 64,
        final_weights_sha256="0" * 64,
        parameters=0,
        device="toy",
        threads=1,
    )
