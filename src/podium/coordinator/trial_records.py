"""Owns every write about a trial: into the study first, into MLflow after it, so that the study is always right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from podium.coordinator import attempts
from podium.coordinator.bookkeeping import Bookkeeper
from podium.coordinator.trial import LiveTrial, Plan
from podium.engines.base import Done, Engine, Outcome, Proposal, Scalar, TrialRecord, Wait
from podium.errors import PodiumError, SweepError
from podium.result import EpochEvent, better
from podium.stores import redacted
from podium.tracking.runs import Recorder


class TrialRecords:
    """All trials of the study by number, those of earlier starts included.

    `epochs` counts those on record of all trials together.
    Raises: SweepError, naming the cause, from every method where the study or its engine fails.
    """

    def __init__(self, engine: Engine, recorder: Recorder, plan: Plan) -> None:
        self._engine = engine
        self._book = Bookkeeper(recorder, plan)
        self._plan = plan
        with _study():
            records = engine.trials()
        self.epochs = sum(len(attempts.history(record)) for record in records)
        self._records = {record.number: attempts.without_old_epochs(record) for record in records}
        self._finished: dict[str, TrialRecord] = {}
        for record in self._records.values():
            self._note_finished(record)

    def __len__(self) -> int:
        return len(self._records)

    def since_best(self) -> int:
        """How many ended trials have a higher number than the best one; all of them if there is no best."""
        with _study():
            best = min(self._engine.best(), default=-1)
        return sum(record.state != "running" for number, record in self._records.items() if number > best)

    def running(self) -> list[TrialRecord]:
        """Trials that have been handed out and have not ended."""
        return [record for record in self._records.values() if record.state == "running"]

    def attempts(self, number: int) -> int:
        """How many attempts of a trial have been started."""
        return attempts.attempts(self._records[number])

    def losses(self, number: int) -> dict[int, str]:
        """The attempts of a trial that were lost, and why."""
        return attempts.losses(self._records[number])

    def note_losses(self, number: int, losses: dict[int, str]) -> None:
        """Keep the attempts that were lost."""
        self._note(number, attempts.LOSSES, json.dumps(losses))

    def ask(self) -> Proposal | Wait | Done:
        """The engine's next proposal, on record as running."""
        with _study():
            proposal = self._engine.ask()
        if isinstance(proposal, Proposal):
            self._records[proposal.number] = TrialRecord(
                number=proposal.number,
                state="running",
                parameters=proposal.parameters,
                value=None,
                curve={},
                proposal=proposal,
            )
        return proposal

    def twin(self, proposal: Proposal) -> TrialRecord | None:
        """The first finished trial that was the same training as this one would be."""
        return self._finished.get(_point(proposal))

    def live(self, proposal: Proposal, attempt: int) -> LiveTrial:
        """A trial as it goes into an attempt, with what earlier attempts put on record."""
        trial = LiveTrial(
            proposal=proposal,
            recipe=self._plan.recipe,
            attempt=attempt,
            epochs=proposal.epochs or self._plan.recipe.training.epochs,
            folder=self._plan.attempt_folder(proposal.number, attempt),
            history=attempts.history(self._records[proposal.number]),
            resume_from=attempts.source(self._plan, self._records, proposal, attempt),
        )
        for event in trial.history.values():
            self._note_best(trial, event)
        return trial

    def open(self, trial: LiveTrial) -> None:
        """Put a new attempt on record: its run first, so that an attempt on record always has one."""
        self._book.start(trial.proposal, trial.recipe, trial.attempt)
        # In this order: killed between the two, the attempt before must not look as if it had brought nothing.
        self._note(trial.number, attempts.ATTEMPTS, trial.attempt)
        if trial.history:
            self._note(trial.number, attempts.EPOCHS_BEFORE, len(trial.history))
        # A kill between two writes leaves an epoch in full that is not yet among the study's values.
        for epoch in sorted(trial.history.keys() - self._records[trial.number].curve.keys()):
            with _study():
                self._engine.report(trial.number, epoch, trial.history[epoch].metrics[self._plan.metric])

    def epoch(self, trial: LiveTrial, event: EpochEvent) -> bool:
        """Put an epoch on record; whether the engine wants the trial stopped.

        An epoch that is trained again after a loss does not change what is on record.
        """
        if event.epoch in trial.history:
            event = trial.history[event.epoch]
        else:
            trial.history[event.epoch] = event
            self.epochs += 1
            self._note(trial.number, attempts.HISTORY, attempts.history_text(trial.history))
        self._note_best(trial, event)
        with _study():
            prune = self._engine.report(trial.number, event.epoch, event.metrics[self._plan.metric])
        self._book.epoch(trial.number, event)
        return prune

    def end(self, trial: LiveTrial, outcome: Outcome) -> None:
        """Put an ended trial on record, and remove the checkpoints that nothing can go on from."""
        with _study():
            self._engine.tell(trial.number, outcome)
            record = self._engine.trial(trial.number)
        self._book.end(record)
        record = self._records[trial.number] = attempts.without_old_epochs(record)
        self._note_finished(record)
        attempts.drop_checkpoints(self._plan, record, planned_epochs=trial.recipe.training.epochs)

    def interrupted(self, trial: LiveTrial) -> None:
        """Close the run of an attempt that was interrupted; a later start goes on from its checkpoint."""
        self._book.close(trial.number)
        self._note(trial.number, attempts.INTERRUPTED, trial.attempt)

    def not_taken_up(self, proposal: Proposal) -> None:
        """Close the run of a trial that waits for another attempt."""
        if self.attempts(proposal.number) > 0:
            self._book.close(proposal.number)

    def run_id(self, trial: LiveTrial) -> str | None:
        """The trial's run id, once the store has given one."""
        return self._book.run_id(trial.number)

    def wait_for_run_id(self, trial: LiveTrial, timeout_seconds: float) -> str:
        """The trial's run id. Raises: PodiumError if the store gives none in time."""
        return self._book.wait_for_run_id(trial.number, timeout_seconds)

    def _note(self, number: int, key: str, value: Scalar) -> None:
        """Keep a fact about a trial, in the study and here."""
        with _study():
            self._engine.note(number, key, value)
        record = self._records[number]
        self._records[number] = replace(record, attributes={**record.attributes, key: value})

    def _note_best(self, trial: LiveTrial, event: EpochEvent) -> None:
        value = event.metrics[self._plan.metric]
        if trial.best is None or better(value, trial.best, self._plan.goal):
            trial.best = value

    def _note_finished(self, record: TrialRecord) -> None:
        if record.state == "complete" and record.proposal is not None:
            self._finished.setdefault(_point(record.proposal), record)


@contextmanager
def _study() -> Iterator[None]:
    """Says which part failed, and what to do, where the study's store or the engine did."""
    try:
        yield
    except PodiumError:
        raise
    except Exception as error:
        first: BaseException = error  # a full disk, say: the libraries on top of it do not name it
        while first.__cause__ is not None:
            first = first.__cause__
        reason = redacted(f"{type(first).__name__}: {first}".splitlines()[0])
        raise SweepError(
            f"the study cannot go on: {reason}; at most the epochs in training are lost.",
            remedy="What was finished is on record. Mend the cause, then go on with --resume.",
        ) from error


def _point(proposal: Proposal) -> str:
    """What makes two proposals the same training: seed and data are the same for all of a sweep."""
    content = [
        dict(sorted(proposal.parameters.items())),
        proposal.epochs,
        proposal.first_epoch,
        proposal.parent,
    ]
    return json.dumps(content, sort_keys=True)
