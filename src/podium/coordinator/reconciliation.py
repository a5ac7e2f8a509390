"""Owns making MLflow agree with the study: what the study knows to have ended is written again where MLflow lacks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from podium.coordinator.attempts import history
from podium.coordinator.bookkeeping import STATUSES, Bookkeeper
from podium.coordinator.trial import Plan
from podium.engines.base import TrialRecord
from podium.errors import InvalidInput
from podium.recipe import Recipe
from podium.tracking.runs import Recorder


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """What MLflow has of a trial: its run's status, its state tag, the epochs of its curve."""

    status: str
    state: str
    epochs: frozenset[int]


def reconcile(
    records: Sequence[TrialRecord], runs: Mapping[int, RecordedRun], recorder: Recorder, plan: Plan
) -> list[int]:
    """Write what differs into MLflow, the study being right; answers the trials that were written again.

    `runs` is what MLflow says after all records have been delivered. A trial that the study has running
    is left to its next attempt, which takes its run up again. A RUNNING run of a trial that the study
    does not know (its store was put back to an older state) is closed.
    """
    book = Bookkeeper(recorder, plan)
    again = [
        record
        for record in records
        if record.state != "running" and not _is_on_record(record, runs.get(record.number))
    ]
    for record in again:
        book.write_again(record, _recipe(record, plan))
    known = {record.number for record in records}
    for number, run in runs.items():
        if number not in known and run.status == "RUNNING":
            book.close(number)
    return [record.number for record in again]


def _is_on_record(record: TrialRecord, run: RecordedRun | None) -> bool:
    return (
        run is not None
        and run.status == STATUSES[record.state]
        and run.state == record.state
        and run.epochs >= history(record).keys()
    )


def _recipe(record: TrialRecord, plan: Plan) -> Recipe:
    try:
        return plan.recipe.with_values(record.parameters)
    except InvalidInput:
        return plan.recipe  # it failed for that, and says so
