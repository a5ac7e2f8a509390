"""Owns the loop of a sweep: ask the engine, feed the executor, give verdicts, have everything recorded."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from podium.coordinator import outcomes
from podium.coordinator.attempts import losses_with_dead_coordinator
from podium.coordinator.spending import Spending
from podium.coordinator.trial import Budget, Conclusion, LiveTrial, Observer, Plan
from podium.coordinator.trial_records import TrialRecords
from podium.engines.base import Done, Engine, Outcome, Proposal, Wait
from podium.errors import InvalidInput, SweepError
from podium.executors.base import Attempt, Ended, EpochDone, Event, Executor, Notice, Started
from podium.result import EpochEvent, Failure, TrainingResult, Verdict
from podium.tracking.runs import Recorder

POLL_SECONDS = 0.5
# Proposals in a row that were all trained before: the space, or what the sampler makes of it, is used up.
MOST_TWINS = 100


class Coordinator:
    """Runs trials until the engine is done or the budget is used up.

    `interrupt()` may be called from a signal handler: the workers finish their epoch and checkpoint
    (at most the plan's `grace_seconds`), then the loop ends.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        executor: Executor,
        recorder: Recorder,
        plan: Plan,
        budget: Budget,
        observer: Observer,
    ) -> None:
        self._executor = executor
        self._records = TrialRecords(engine, recorder, plan)
        self._plan = plan
        self._spending = Spending(engine, self._records, budget)
        self._observer = observer
        self._live: dict[str, LiveTrial] = {}
        self._waiting: deque[Proposal] = deque()
        self._unpackaged: list[tuple[LiveTrial, TrainingResult]] = []
        self._streak = outcomes.FailureStreak()
        self._fault: SweepError | None = None
        self._interrupted_at: float | None = None
        self._twins = 0
        self._ended_at_once = False

    def interrupt(self) -> None:
        """Ask the loop to end as soon as workers have checkpointed."""
        if self._interrupted_at is None:
            self._interrupted_at = time.monotonic()

    @property
    def seconds_used(self) -> float:
        """Wall seconds of this sweep over all its starts."""
        return self._spending.seconds

    def run(self) -> Conclusion:
        """The loop. Raises: SweepError after several alike failures in a row, or if study or workers fail.

        Whatever ends it, no run stays RUNNING and a later start takes up what was not finished.
        """
        try:
            reason = self._loop()
        except BaseException as error:
            for another in self._close():  # told beside the error that ended the loop, not in its place
                error.add_note(f"While closing the records: {type(another).__name__}: {another}")
            raise
        for problem in self._close():
            raise problem
        return Conclusion(
            interrupted=self._interrupted_at is not None, reason=reason, seconds=self.seconds_used
        )

    def finish_packaging(self, timeout_seconds: float) -> None:
        """Hand over what is still to be packaged, waiting for the runs' ids."""
        while self._unpackaged:
            trial, result = self._unpackaged[0]
            self._plan.package(trial, self._records.wait_for_run_id(trial, timeout_seconds), result)
            del self._unpackaged[0]

    def _loop(self) -> str:
        """Answers why the sweep is over, '' if it was interrupted."""
        self._take_up_running()
        reason = ""
        while True:
            if self._interrupted_at is None and not reason:
                reason = self._fill()
            if self._fault is not None:
                raise self._fault
            over = reason and not self._waiting
            if not self._live and (over or self._interrupted_at is not None):
                return reason
            events = self._events()
            for event in events:
                self._handle(event)
            # A lost trial goes on, whatever is used up; one that ended may have left some of it.
            if self._waiting or any(isinstance(event, Ended) for event in events):
                reason, self._twins = "", 0
            self._package_ready()
            self._end_overdue()
            self._spending.note_if_due()

    def _events(self) -> list[Event]:
        try:
            return self._executor.events(0.0 if self._ended_at_once else POLL_SECONDS)
        except OSError as error:
            raise SweepError(
                f"a worker cannot be started: {error}", remedy="Mend that, then go on with --resume."
            ) from error

    # -- starting trials ---------------------------------------------------------------------------

    def _take_up_running(self) -> None:
        """Trials that an earlier start left running get another attempt, or are given up."""
        for record in self._records.running():
            assert record.proposal is not None
            lost = losses_with_dead_coordinator(record)
            if lost != self._records.losses(record.number):
                self._records.note_losses(record.number, lost)
            if len(lost) > self._plan.retries:
                # Not counted as alike: what ended the coordinator may have nothing to do with its trials.
                trial = self._records.live(record.proposal, self._records.attempts(record.number))
                self._end(trial, outcomes.of_failure(Failure(cause="lost", message=lost[max(lost)]), trial))
            else:
                self._waiting.append(record.proposal)

    def _fill(self) -> str:
        """Submit until no worker is free, or a trial ends at once: others' events are then looked at between two.

        Answers why nothing more will be started, or ''.
        """
        self._ended_at_once = False
        while self._executor.free > 0 and self._fault is None and not self._ended_at_once:
            if self._waiting:
                self._start(self._waiting.popleft())
                continue
            reason = self._spending.why_no_trial(self._epochs_in_training())
            if reason:
                return reason
            if self._twins >= MOST_TWINS:
                return "" if self._live else f"the last {MOST_TWINS} proposals had all been trained before"
            proposal = self._records.ask()
            if isinstance(proposal, Done):
                return proposal.reason
            if isinstance(proposal, Wait):
                if not self._live:
                    raise SweepError("the engine waits although no trial is running.")
                return ""
            self._start(proposal)
        return ""

    def _start(self, proposal: Proposal) -> None:
        """Start the next attempt of a trial, unless there is nothing to train."""
        self._ended_at_once = True
        attempt = self._records.attempts(proposal.number) + 1
        trial = self._records.live(proposal, attempt)
        try:
            trial.recipe = self._plan.recipe.with_values(proposal.parameters)
        except InvalidInput as error:
            self._records.open(trial)
            self._fail(trial, Failure(cause="error", message=str(error)))
            return
        trial.epochs = proposal.epochs or trial.recipe.training.epochs
        self._records.open(trial)
        twin = self._records.twin(proposal)
        if twin is not None and not trial.history:
            self._end(trial, outcomes.of_twin(twin))
            self._twins += 1
            return
        used = self._spending.why_no_epoch(self._epochs_in_training())
        if used:
            self._end(trial, Outcome(state="pruned", value=trial.best, message=f"stopped by {used}"))
            return
        job = replace(
            self._plan.job(trial.recipe, trial.folder, trial.epochs),
            resume_from=trial.resume_from,
        )
        self._twins, self._ended_at_once = 0, False
        self._live[trial.key] = trial
        self._executor.submit(Attempt(key=trial.key, job=job))
        self._observer.started(trial)

    # -- events ------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if isinstance(event, Notice):
            self._observer.message(event.text)
            return
        trial = self._live.get(event.key)
        if trial is None:
            return  # cancelled a moment ago
        if isinstance(event, Started):
            trial.place = event.place
        elif isinstance(event, EpochDone):
            self._handle_epoch(trial, event.epoch)
        elif isinstance(event, Ended):
            if isinstance(event.outcome, TrainingResult):
                self._handle_result(trial, event.outcome)
            elif event.outcome.cause == "lost":
                self._handle_loss(trial, event.outcome)
            else:
                self._fail(trial, event.outcome)
            del self._live[event.key]

    def _handle_epoch(self, trial: LiveTrial, event: EpochEvent) -> None:
        prune = self._records.epoch(trial, event)
        trial.in_epoch = False
        used = self._spending.why_no_epoch(self._epochs_in_training())
        verdict = Verdict.CONTINUE
        if event.epoch >= trial.epochs:
            pass  # nothing is left to save
        elif self._interrupted_at is not None:
            verdict = Verdict.INTERRUPT
        elif prune or used:
            verdict = Verdict.PRUNE
            trial.stopped_for = "the pruner" if prune else used
        else:
            trial.in_epoch = True
        self._executor.answer(trial.key, verdict)
        self._observer.epoch(trial, event)

    def _handle_result(self, trial: LiveTrial, result: TrainingResult) -> None:
        if result.status == "interrupted":
            self._records.interrupted(trial)
            return
        self._streak.end()
        details = {**result.details, **self._plan.describe(trial, result)}
        result = replace(result, details=details)
        self._end(trial, outcomes.of_result(result, trial, self._plan.metric))
        self._unpackaged.append((trial, result))

    def _handle_loss(self, trial: LiveTrial, failure: Failure) -> None:
        """A worker died: another attempt, unless there were too many."""
        lost = {**self._records.losses(trial.number), trial.attempt: failure.message}
        self._records.note_losses(trial.number, lost)
        if len(lost) > self._plan.retries:
            self._fail(trial, failure)
        elif self._interrupted_at is not None:
            self._records.interrupted(trial)
        else:
            self._observer.message(f"trial {trial.number}: {failure.message}; trying again")
            self._waiting.append(trial.proposal)

    def _fail(self, trial: LiveTrial, failure: Failure) -> None:
        self._end(trial, outcomes.of_failure(failure, trial))
        self._fault = self._streak.add(failure) or self._fault

    def _epochs_in_training(self) -> int:
        return sum(trial.in_epoch for trial in self._live.values())

    def _end(self, trial: LiveTrial, outcome: Outcome) -> None:
        self._records.end(trial, outcome)
        self._observer.ended(trial, outcome)

    # -- closing -----------------------------------------------------------------------------------

    def _close(self) -> list[BaseException]:
        """Close all records, also if a person wants it to end at once meanwhile; answers what went wrong."""
        problems: list[BaseException] = []
        left = [*self._closings(), self._spending.note]
        while left:
            try:
                left[0]()
            except KeyboardInterrupt as pressed:
                if any(isinstance(each, KeyboardInterrupt) for each in problems):
                    raise
                problems.insert(0, pressed)
                continue  # it may have been in the middle
            except Exception as problem:
                problems.append(problem)
            del left[0]
        return problems

    def _closings(self) -> list[Callable[[], None]]:
        """What leaves nothing RUNNING that nobody runs."""
        live, waiting = list(self._live.values()), list(self._waiting)
        self._live.clear()
        self._waiting.clear()
        return [
            *(partial(self._executor.cancel, trial.key) for trial in live),
            *(partial(self._records.interrupted, trial) for trial in live),
            *(partial(self._records.not_taken_up, proposal) for proposal in waiting),
        ]

    def _package_ready(self) -> None:
        waiting: list[tuple[LiveTrial, TrainingResult]] = []
        for trial, result in self._unpackaged:
            run_id = self._records.run_id(trial)
            if run_id is None:
                waiting.append((trial, result))
            else:
                self._plan.package(trial, run_id, result)
        self._unpackaged = waiting

    def _end_overdue(self) -> None:
        """After the grace, workers that are still in an epoch are ended; their last checkpoint stays."""
        if self._interrupted_at is None or time.monotonic() - self._interrupted_at < self._plan.grace_seconds:
            return
        for close in self._closings():
            close()
