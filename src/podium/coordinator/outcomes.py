"""Owns what the study is told about an ended attempt, and when failures are alike enough to end the sweep."""

from __future__ import annotations

import json
from typing import Any

from podium.coordinator.trial import LiveTrial
from podium.engines.base import Outcome, Scalar, TrialRecord
from podium.errors import SweepError
from podium.result import Failure, TrainingResult

ALIKE_FAILURES = 3
RESULT = "result"
TRACEBACK = "traceback"
DUPLICATE = "duplicate_of"


def of_result(result: TrainingResult, trial: LiveTrial, metric: str) -> Outcome:
    """The outcome of a training that came to its end, or was pruned."""
    pruned = result.status == "pruned"
    return Outcome(
        state="pruned" if pruned else "complete",
        value=result.metrics[metric],
        measures={**result.metrics, "parameters": float(result.parameters), "seconds": result.seconds},
        message=f"stopped by {trial.stopped_for}" if pruned else "",
        attributes={RESULT: json.dumps(_result_values(result, trial))},
    )


def of_failure(failure: Failure, trial: LiveTrial) -> Outcome:
    """The outcome of a trial that has no result."""
    attributes: dict[str, Scalar] = {RESULT: json.dumps({"metrics": {}, "epochs_planned": trial.epochs})}
    if failure.traceback:
        attributes[TRACEBACK] = failure.traceback
    return Outcome(state="failed", cause=failure.cause, message=failure.message, attributes=attributes)


def of_twin(twin: TrialRecord) -> Outcome:
    """The outcome of a trial equal to a finished one: the same, without training. Links to the first of them."""
    original = twin.attributes.get(DUPLICATE, twin.number)
    attributes: dict[str, Scalar] = {DUPLICATE: original, RESULT: twin.attributes.get(RESULT)}
    return Outcome(state="complete", value=twin.value, measures=twin.measures, attributes=attributes)


def trained(record: TrialRecord) -> dict[str, Any]:
    """What a trial's training came to, as the study keeps it: metrics and best_epoch, epochs, seconds, hashes."""
    values = json.loads(str(record.attributes.get(RESULT) or "{}"))
    return {**values.pop("metrics", {}), **values}


def trained_metrics(record: TrialRecord) -> dict[str, float]:
    """The best epoch's metrics, empty where there is no result."""
    found = json.loads(str(record.attributes.get(RESULT) or "{}")).get("metrics", {})
    return {str(name): float(value) for name, value in found.items()}


class FailureStreak:
    """Failures in a row; what was lost is alike by its cause, since the message names a process."""

    def __init__(self) -> None:
        self._recent: list[str] = []

    def end(self) -> None:
        """A trial did not fail by an error of the code."""
        self._recent.clear()

    def add(self, failure: Failure) -> SweepError | None:
        """Count a failure; answers the error that ends the sweep if the last ones were alike."""
        if failure.cause not in ("error", "lost"):
            self.end()
            return None
        self._recent.append(failure.message if failure.cause == "error" else failure.cause)
        last = self._recent[-ALIKE_FAILURES:]
        if len(last) < ALIKE_FAILURES or len(set(last)) > 1:
            return None
        return SweepError(
            f"{ALIKE_FAILURES} trials in a row failed with the same error; the last: {failure.message}",
            remedy="The traceback is on each trial's run in MLflow. Mend the cause, then go on with --resume.",
        )


def _result_values(result: TrainingResult, trial: LiveTrial) -> dict[str, Any]:
    return {
        "metrics": result.metrics,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "epochs_planned": trial.epochs,
        "seconds": result.seconds,
        "images_per_second": result.images_per_second,
        "parameters": result.parameters,
        "weights_sha256": result.weights_sha256,
        "final_weights_sha256": result.final_weights_sha256,
        "seed": trial.recipe.training.seed,
        "model_sha256": result.model_sha256,
        "not_promotable": result.not_promotable,
        "device": result.device,
        "threads": result.threads,
        "details": result.details,
    }
