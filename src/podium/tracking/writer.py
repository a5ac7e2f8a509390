"""Owns the one thread that takes records from the spool into MLflow, and tries again while it is away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from podium.errors import PodiumError
from podium.stores import redacted
from podium.tracking.delivery import Delivery, Step, plan
from podium.tracking.spool import Spool
from podium.tracking.store import first_line, is_away

SECONDS_BETWEEN_WRITES = 2.0
FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 30.0
HURRIED_RETRY_SECONDS = 0.5
RECORDS_A_TURN = 2_000
CLOSE_SECONDS = 30.0
logger = logging.getLogger(__name__)


class Writer:
    """Takes records, returns at once, and writes them in order, every other second.

    `last_error` says why the store cannot be written at the moment, None if it can.
    """

    def __init__(self, delivery: Delivery, spool_folder: Path | None) -> None:
        self.delivery = delivery
        self.last_error: str | None = None
        self._spool = Spool(spool_folder)
        if self._spool.damaged_lines:
            delivery.problems.append(f"{self._spool.damaged_lines} damaged lines of the spool are lost")
        self._changed = threading.Condition()
        self._steps: list[Step] = []
        self._last = 0
        self._hurried = 0
        self._due = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="podium-recorder", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many records are not yet in MLflow."""
        return len(self._spool)

    @property
    def disk_error(self) -> OSError | None:
        """Why the last record could not be kept on disk, None if it was."""
        return self._spool.disk_error

    def add(self, content: Mapping[str, Any]) -> None:
        """Hand over a record."""
        with self._changed:
            if self._closed:
                raise PodiumError("the recorder is closed.")
            self._spool.append(_without_secrets(content))
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool], timeout_seconds: float) -> bool:
        """Write without delay until `condition` holds, all is written, or time is up; whether it holds."""
        with self._hurry():
            self._changed.wait_for(lambda: condition() or not self._spool, timeout_seconds)
            return condition()

    def flush(self, timeout_seconds: float) -> bool:
        """Write without delay until all is written or time is up; whether all is written."""
        return self.wait_for(lambda: not self._spool, timeout_seconds)

    def close(self, timeout_seconds: float | None = None) -> None:
        """Write what can be written in time, keep the rest in the spool folder, end the thread."""
        if self._closed:
            return
        seconds = CLOSE_SECONDS if timeout_seconds is None else timeout_seconds
        if not self.flush(seconds):
            logger.warning("%d records wait for the tracking store: %s", self.waiting, self.last_error)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(seconds)
        with self._changed:
            self._spool.close()

    @contextmanager
    def _hurry(self) -> Iterator[None]:
        """Holds the lock. While somebody waits, the thread neither collects nor backs off for long."""
        with self._changed:
            self._hurried += 1
            self._due = 0.0
            self._changed.notify_all()
            try:
                yield
            finally:
                self._hurried -= 1

    def _run(self) -> None:
        retry = FIRST_RETRY_SECONDS
        while self._wait_for_work():
            if not self._steps:
                with self._changed:
                    records = self._spool.head(RECORDS_A_TURN)
                self._last = records[-1].sequence
                self._steps = plan(records)
            if self._deliver():
                retry, pause = FIRST_RETRY_SECONDS, 0.0 if self._hurried else SECONDS_BETWEEN_WRITES
            else:
                pause = min(retry, HURRIED_RETRY_SECONDS) if self._hurried else retry
                retry = min(2 * retry, LONGEST_RETRY_SECONDS)
            self._due = time.monotonic() + pause

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not self._closed:
                pause = self._due - time.monotonic()
                if self._spool and pause <= 0:
                    return True
                self._changed.wait(pause if self._spool else None)
            return False

    def _deliver(self) -> bool:
        """Write the planned steps; whether the store took them all."""
        try:
            while self._steps and not self._closed:
                self.delivery.apply(self._steps[0])
                self._steps.pop(0)
                if self._hurried:
                    with self._changed:
                        self._changed.notify_all()
        except Exception as error:
            self.last_error = first_line(error)
            if not is_away(error):
                # Ours, not the store's: trying again would hold up all other records for ever.
                logger.exception("a record cannot be written")
                step = self._steps.pop(0)
                self.delivery.problems.append(f"{step.kind}: {self.last_error}")
        else:
            self.last_error = None
        done = min(step.first for step in self._steps) - 1 if self._steps else self._last
        with self._changed:
            try:
                self._spool.acknowledge(done)
            except OSError as error:
                self.last_error = first_line(error)
            self._changed.notify_all()
        return self.last_error is None


def _without_secrets(content: Any) -> Any:
    """A record as it may lie on disk, and go to a store that others read."""
    if isinstance(content, str):
        return redacted(content)
    if isinstance(content, Mapping):
        return {key: _without_secrets(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_without_secrets(value) for value in content]
    return content
