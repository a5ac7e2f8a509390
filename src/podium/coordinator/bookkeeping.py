"""Owns how a trial's life is told to the tracker: tags, metrics and status of its run."""

from __future__ import annotations

import json
from typing import Any, Literal

from podium.coordinator.attempts import attempts, history, losses
from podium.coordinator.outcomes import DUPLICATE, TRACEBACK, trained_metrics
from podium.coordinator.outcomes import trained as trained
from podium.coordinator.trial import Plan
from podium.engines.base import Proposal, TrialRecord
from podium.recipe import Recipe
from podium.result import EpochEvent
from podium.tracking.runs import Recorder

LONGEST_TAG = 4000
STATUSES: dict[str, Literal["FINISHED", "KILLED", "FAILED"]] = {
    "complete": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
}
# Of a training's result, what MLflow shows as numbers; the best epoch's metrics come beside them.
NUMBERS = ("best_epoch", "epochs", "epochs_planned", "seconds", "images_per_second", "parameters")
TEXTS = ("weights_sha256", "final_weights_sha256", "model_sha256", "not_promotable", "device", "threads")


class Bookkeeper:
    """Writes one run a trial. Nothing here waits for the tracking store.

    The end of a run is written from the study's record alone, so that it can be written again from it.
    """

    def __init__(self, recorder: Recorder, plan: Plan) -> None:
        self._recorder = recorder
        self._plan = plan

    def start(self, proposal: Proposal, recipe: Recipe, attempt: int) -> None:
        """Open the trial's run, or take it up again."""
        inputs_of = self._plan.inputs_of
        tags = {
            **self._plan.tags,
            **self._plan.run_tags(proposal),
            "podium.trial": str(proposal.number),
            "podium.state": "running",
            "podium.attempts": str(attempt),
        }
        if proposal.parent is not None:
            tags["podium.continues_trial"] = str(proposal.parent)
        self._recorder.start_run(
            proposal.number,
            name=self._plan.run_name(proposal),
            parameters=recipe.flat(),
            tags=tags,
            inputs=self._plan.inputs if inputs_of is None else inputs_of(recipe),
        )

    def epoch(self, number: int, event: EpochEvent) -> None:
        """Record an epoch; one that is on record already changes nothing."""
        self._recorder.epoch(number, event)

    def end(self, record: TrialRecord) -> None:
        """Close the run of a trial that the study knows to have ended."""
        traceback = record.attributes.get(TRACEBACK)
        self._recorder.end_run(
            record.number,
            status=STATUSES[record.state],
            metrics=self._metrics(record),
            tags=self._tags(record),
            text_artifacts={"traceback.txt": str(traceback)} if traceback else {},
        )

    def write_again(self, record: TrialRecord, recipe: Recipe) -> None:
        """Write the whole run of an ended trial from the study's record."""
        assert record.proposal is not None
        self.start(record.proposal, recipe, max(1, attempts(record)))
        for event in history(record).values():
            self.epoch(record.number, event)
        self.end(record)

    def close(self, number: int) -> None:
        """An interrupted trial is not left RUNNING; another start takes it up again."""
        self._recorder.end_run(
            number, status="KILLED", metrics={}, tags={"podium.state": "interrupted"}, text_artifacts={}
        )

    def run_id(self, number: int) -> str | None:
        """The trial's run id, once the store has given one."""
        return self._recorder.run_id(number)

    def wait_for_run_id(self, number: int, timeout_seconds: float) -> str:
        """The trial's run id. Raises: PodiumError if the store gives none in time."""
        return self._recorder.wait_for_run_id(number, timeout_seconds)

    def _metrics(self, record: TrialRecord) -> dict[str, float]:
        metrics = {f"best_{name}": value for name, value in trained_metrics(record).items()}
        if DUPLICATE in record.attributes:
            return metrics  # the rest is what training took, and this trial took none
        result = trained(record)
        if "best_epoch" in result:
            metrics |= {name: float(result[name]) for name in NUMBERS}
        return metrics

    def _tags(self, record: TrialRecord) -> dict[str, str]:
        tags = {"podium.state": record.state, "podium.attempts": str(max(1, attempts(record)))}
        if record.message:
            tags["podium.reason"] = record.message[:LONGEST_TAG]
        if record.state == "complete" and not record.feasible:
            tags["podium.infeasible"] = "true"  # beyond a limit of the sweep's constraints: no candidate
        if record.cause:
            tags["podium.cause"] = record.cause
        lost = losses(record)
        if lost:
            lines = [f"attempt {attempt}: {why}" for attempt, why in sorted(lost.items())]
            tags["podium.lost_attempts"] = "\n".join(lines)[:LONGEST_TAG]
        original = record.attributes.get(DUPLICATE)
        if original is not None:
            tags["podium.duplicate_of"] = str(original)
            run_id = self.run_id(int(original))
            if run_id is not None:
                tags["podium.duplicate_of_run"] = run_id
        return tags | _result_tags(trained(record))


def _result_tags(result: dict[str, Any]) -> dict[str, str]:
    tags = {f"podium.{name}": _text(result[name]) for name in TEXTS if result.get(name) is not None}
    return tags | {f"podium.{name}": _text(value) for name, value in result.get("details", {}).items()}


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:LONGEST_TAG]
