"""Owns what a trial's attempts leave behind: epochs on record, losses, checkpoints to go on from or to drop."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from podium.coordinator.trial import Plan, attempt_folder
from podium.engines.base import Proposal, TrialRecord
from podium.result import EpochEvent

# Facts about a trial that the study keeps, by name.
ATTEMPTS = "attempts"
HISTORY = "history"
LOSSES = "losses"
INTERRUPTED = "interrupted_attempt"
EPOCHS_BEFORE = "epochs_before_attempt"


def attempts(record: TrialRecord) -> int:
    """How many attempts have been started."""
    return int(record.attributes.get(ATTEMPTS) or 0)


def history(record: TrialRecord) -> dict[int, EpochEvent]:
    """The epochs that the study has in full, by number, whichever attempt trained them."""
    events = [EpochEvent(**each) for each in json.loads(str(record.attributes.get(HISTORY) or "[]"))]
    return {event.epoch: event for event in events}


def without_old_epochs(record: TrialRecord) -> TrialRecord:
    """The record, without its epochs if the trial has ended: nothing asks for them again, and trials may be thousands."""
    if record.state == "running":
        return record
    attributes = {key: value for key, value in record.attributes.items() if key != HISTORY}
    return replace(record, curve={}, attributes=attributes)


def history_text(events: Mapping[int, EpochEvent]) -> str:
    """What `history` reads."""
    return json.dumps([asdict(events[epoch]) for epoch in sorted(events)])


def losses(record: TrialRecord) -> dict[int, str]:
    """The attempts that came to no end of their own, and why."""
    found = json.loads(str(record.attributes.get(LOSSES) or "{}"))
    return {int(attempt): str(why) for attempt, why in found.items()}


def losses_with_dead_coordinator(record: TrialRecord) -> dict[int, str]:
    """The losses of a trial that an earlier start left running.

    Its last attempt was lost with the coordinator, unless it was interrupted in order. It counts only
    if it brought nothing: a trial that kills its coordinator each time must end, a long one that
    many reboots cut short must not.
    """
    found, last = losses(record), attempts(record)
    brought_nothing = len(history(record)) <= int(record.attributes.get(EPOCHS_BEFORE) or 0)
    if last > 0 and record.attributes.get(INTERRUPTED) != last and brought_nothing:
        found.setdefault(last, f"the coordinator died during attempt {last}")
    return found


def source(plan: Plan, records: Mapping[int, TrialRecord], proposal: Proposal, attempt: int) -> Path | None:
    """The folder whose checkpoint an attempt goes on from: an earlier attempt's, else the parent trial's."""
    for earlier in range(attempt - 1, 0, -1):
        folder = plan.attempt_folder(proposal.number, earlier)
        if checkpoints(folder):
            return folder
    if proposal.parent is None:
        return None
    parent = records[proposal.parent]
    original = parent.attributes.get("duplicate_of")
    if original is not None:
        parent = records[int(original)]
    folders = [plan.attempt_folder(parent.number, each) for each in range(attempts(parent), 0, -1)]
    return next((folder for folder in folders if checkpoints(folder)), None)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in an attempt's folder, oldest first."""
    return sorted(path for path in folder.glob("checkpoint-*") if path.is_dir())


def drop_checkpoints(plan: Plan, record: TrialRecord, *, planned_epochs: int) -> None:
    """Remove an ended trial's checkpoints. A trial cut short by its engine may be promoted: it keeps the newest."""
    for path in left_over(plan.folder, record, planned_epochs=planned_epochs):
        # Out of sight first: one that is removed half-way must not look like a checkpoint.
        gone = path.with_name(f".{path.name}-gone")
        path.rename(gone)
        shutil.rmtree(gone)


def left_over(folder: Path, record: TrialRecord, *, planned_epochs: int) -> list[Path]:
    """The checkpoints of an ended trial that nothing can go on from; `folder` is the study's."""
    may_continue = (
        record.state == "complete"
        and record.proposal is not None
        and record.proposal.epochs is not None
        and record.proposal.epochs < planned_epochs
    )
    folders = [attempt_folder(folder, record.number, each) for each in range(1, attempts(record) + 1)]
    found = [path for folder in folders for path in checkpoints(folder)]
    return found[:-1] if may_continue else found
