"""Owns the local executor: warm worker processes on this machine, each on its own cores or GPU."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path

from podium.errors import SweepError
from podium.executors.base import Attempt, Ended, EpochDone, Event, Executor
from podium.executors.placement import (
    memory_cap,
    memory_kills,
    private_bytes,
    share_out,
    usable_cores,
    visible_gpus,
)
from podium.executors.worker import DEFAULT_TRAINER
from podium.executors.worker_process import WorkerProcess, death_in_words
from podium.result import Failure, FailureCause, Verdict

MAX_FAILED_STARTS = 3
START_SECONDS = 300.0
EXIT_SECONDS = 2.0
# An epoch may take this many times as long as the longest so far: another trial's network may be larger.
PATIENCE_EPOCHS = 20


class LocalExecutor(Executor):
    """An Executor (see executors.base) of spawned processes.

    Workers start warming at once; until one is ready `free` is 0 and `events` returns early, with
    nothing, when that changes. `workers` is how many there are: fewer than asked for where there are
    fewer GPUs, since each GPU belongs to one worker. A worker is replaced, between trials only, after
    `trials_per_worker` trials, after running out of memory, or when it holds more than
    `memory_limit_bytes` (default: 60 % of the machine's memory divided by workers; shared pages, such as
    the mapped dataset, do not count). A busy worker that says nothing for `patience_seconds`, or for 20 times
    the longest epoch so far if that is more, is killed and its attempt is lost (None: any time is fine).
    `paths` are put in front of the workers' import path.

    Use it from one thread, which must live as long as it: workers end with the thread that made them.
    """

    def __init__(
        self,
        *,
        workers: int,
        log_folder: Path,
        trainer: str = DEFAULT_TRAINER,
        threads: int | None = None,
        trials_per_worker: int = 50,
        memory_limit_bytes: int | None = None,
        patience_seconds: float | None = None,
        paths: Sequence[Path] = (),
    ) -> None:
        self.patience_seconds = patience_seconds
        self._trainer = trainer
        self._paths = [path.resolve() for path in paths]
        self._log_folder = log_folder
        self._trials_per_worker = trials_per_worker
        gpus = visible_gpus(os.environ)
        self._places = share_out(workers, threads=threads, cores=usable_cores(), gpus=gpus)
        self.workers = len(self._places)
        self._memory_limit_bytes = memory_limit_bytes or memory_cap(self.workers)
        self._failed_starts = [0] * self.workers
        self._longest_epoch = 0.0
        self._fault: Exception | None = None
        self._slots: dict[int, WorkerProcess] = {}
        try:
            for index in range(self.workers):
                self._start(index)
        except BaseException:
            self.close()
            raise

    @property
    def free(self) -> int:
        """How many attempts can be submitted now: ready workers without one."""
        return sum(worker.free for worker in self._slots.values())

    def submit(self, attempt: Attempt) -> None:
        """Hand an attempt to a free worker. Raises: RuntimeError if none is free or the key is in use."""
        if any(worker.attempt == attempt.key for worker in self._slots.values()):
            raise RuntimeError(f"attempt {attempt.key} is already being trained.")
        for worker in self._slots.values():
            if worker.free:
                worker.take(attempt, memory_kills=memory_kills())
                return
        raise RuntimeError(f"attempt {attempt.key}: no worker is free; look at `free` before submitting.")

    def events(self, timeout_seconds: float) -> list[Event]:
        """All events that are ready; waits up to the timeout for the first, or for a worker to become ready.

        Raises: SweepError if a trainer did, or if a worker has died three times in a row before it was
        ready. Events that were ready are delivered first.
        """
        deadline = time.monotonic() + timeout_seconds
        free_before = self.free
        events: list[Event] = []
        while self._fault is None:
            self._wait(deadline)
            for index in list(self._slots):
                try:
                    self._serve(index, events)
                except (SweepError, OSError) as error:  # kept back until what the others said is delivered
                    self._fault = error
            if events or self.free > free_before or time.monotonic() >= deadline:
                break
        if self._fault is not None and not events:
            raise self._fault
        return events

    def answer(self, key: str, verdict: Verdict) -> None:
        """Reply to EpochDone. An attempt that has been lost meanwhile needs no answer, and gets none.

        Raises: RuntimeError if the attempt does not wait for an answer.
        """
        for worker in self._slots.values():
            if worker.attempt == key:
                if not worker.waits_for_verdict:
                    raise RuntimeError(f"attempt {key} does not wait for an answer.")
                worker.answer(verdict)

    def cancel(self, key: str) -> None:
        """Kill the worker of this attempt and start another; no further event of the attempt arrives."""
        for index, worker in list(self._slots.items()):
            if worker.attempt == key:
                self._replace(index)

    def close(self) -> None:
        """Kill all workers; returns when none is left. Nothing can be submitted afterwards."""
        workers = list(self._slots.values())
        self._slots.clear()
        for worker in workers:
            worker.signal_death()
        for worker in workers:
            worker.bury()

    def _wait(self, deadline: float) -> None:
        ends = [deadline]
        for worker in self._slots.values():
            last = self._last_moment(worker)
            if last is not None:
                ends.append(last)
        sources = [
            source for worker in self._slots.values() for source in (worker.connection, worker.sentinel)
        ]
        wait(sources, timeout=max(0.0, min(ends) - time.monotonic()))

    def _serve(self, index: int, events: list[Event]) -> None:
        """Add to `events` what one worker has to say, or what has become of it."""
        worker = self._slots[index]
        exited = worker.exited()  # asked first: all that it ever sent is then in the pipe
        said, closed = worker.receive()
        events += said
        epochs = (event.epoch.seconds for event in said if isinstance(event, EpochDone))
        self._longest_epoch = max(self._longest_epoch, *epochs, 0.0)
        if worker.ready:
            self._failed_starts[index] = 0
        if worker.sweep_error is not None:
            raise worker.sweep_error
        last_moment = self._last_moment(worker)
        if exited or closed:
            self._bury(index, events, silent=False)
        elif last_moment is not None and time.monotonic() >= last_moment:
            self._bury(index, events, silent=True)
        elif any(isinstance(event, Ended) and self._is_worn(worker, event) for event in said):
            self._replace(index)

    def _last_moment(self, worker: WorkerProcess) -> float | None:
        """When the worker's silence becomes too long."""
        patience: float | None = START_SECONDS
        if worker.ready:
            patience = self.patience_seconds
            if patience is not None:
                patience = max(patience, PATIENCE_EPOCHS * self._longest_epoch)
        if worker.silent_since is None or patience is None:
            return None
        return worker.silent_since + patience

    def _bury(self, index: int, events: list[Event], *, silent: bool) -> None:
        """Replace a worker that is dead, or silent for too long; add what became of its attempt."""
        worker = self._slots.pop(index)
        attempt = worker.attempt
        code = worker.kill(grace_seconds=0.0 if silent else EXIT_SECONDS)
        if silent:
            death = f"said nothing for {time.monotonic() - worker.heard:.0f} s and was killed"
        else:
            death = death_in_words(code)
        if attempt is not None:
            cause: FailureCause = "lost"
            if not silent and code == -signal.SIGKILL and memory_kills() > worker.memory_kills_before:
                cause, death = "memory", f"{death} as the machine ran out of memory"
            message = f"worker process {worker.pid} {death} during attempt {attempt}. Its log: {worker.log}"
            failure = Failure(cause=cause, message=message, traceback=worker.log_tail())
            events.append(Ended(key=attempt, outcome=failure))
        if not worker.ready:
            self._count_failed_start(index, worker, death)
        self._start(index)

    def _count_failed_start(self, index: int, worker: WorkerProcess, death: str) -> None:
        self._failed_starts[index] += 1
        if self._failed_starts[index] >= MAX_FAILED_STARTS:
            raise SweepError(
                f"a worker process did not get ready {MAX_FAILED_STARTS} times in a row; "
                f"the last one {death}. Its log, {worker.log}, ends:\n{worker.log_tail()}",
                remedy="Mend what the log names: no trial can be trained before.",
            )

    def _is_worn(self, worker: WorkerProcess, end: Ended) -> bool:
        return (
            (isinstance(end.outcome, Failure) and end.outcome.cause == "memory")
            or worker.trials >= self._trials_per_worker
            or private_bytes(worker.pid) > self._memory_limit_bytes
        )

    def _replace(self, index: int) -> None:
        self._slots.pop(index).kill()
        self._start(index)

    def _start(self, index: int) -> None:
        self._slots[index] = WorkerProcess(
            place=self._places[index],
            trainer=self._trainer,
            paths=self._paths,
            log_folder=self._log_folder,
        )
