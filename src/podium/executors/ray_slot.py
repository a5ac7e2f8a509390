"""Owns the coordinator's end of one Ray actor: the calls in flight, its attempt, and what became of it."""

from __future__ import annotations

import re
import time
from concurrent.futures import Executor as Pool
from concurrent.futures import Future
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError

from podium.executors.base import Attempt
from podium.executors.ray_cluster import Share
from podium.executors.ray_data import Shipment
from podium.executors.ray_files import checkpoints_of, unpack
from podium.executors.ray_worker import FILES_GROUP, Placed, RayWorker, RayWorkerSetup
from podium.result import Failure, Verdict

_DEATH_SECONDS = 10.0
_MOST_CHARACTERS = 1_500


class Slot:
    """One actor. `call` is the answer that is waited for, `saved` the next checkpoint, each None if none is."""

    def __init__(self, setup: RayWorkerSetup, share: Share, *, avoid: set[str]) -> None:
        selector = {"ray.io/node-id": f"!in({','.join(sorted(avoid))})"} if avoid else None
        # No restarts and no retries by Ray: both belong to the coordinator.
        remote = ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={FILES_GROUP: 1})(
            RayWorker
        )
        actor = remote.options(num_cpus=share.cpus, num_gpus=share.gpus, label_selector=selector)
        self._shared = setup.shared
        self.actor: Any = actor.remote(setup)
        self.placed: Placed | None = None
        self.ready = False
        self.attempt: Attempt | None = None
        self.waits_for_verdict = False
        self.call: Any = self.actor.placed.remote()
        self.saved: Any = None
        self.heard = time.monotonic()
        self._writing: Future[None] | None = None

    @property
    def free(self) -> bool:
        return self.ready and self.attempt is None

    def references(self) -> list[Any]:
        """What is waited for."""
        return [each for each in (self.call, self.saved) if each is not None]

    @property
    def place(self) -> str:
        """In words, for a message."""
        return self.placed.place if self.placed is not None else "no node"

    def load(self, placed: Placed) -> None:
        """The worker has a place: have it load its trainer."""
        self.placed = placed
        self.call = self.actor.load.remote()

    def begin(self, attempt: Attempt, shipment: Shipment | None) -> None:
        """Hand an attempt over, with the checkpoint that it goes on from."""
        source = attempt.job.resume_from
        earlier = None if self._shared or source is None else checkpoints_of(source)
        self.attempt = attempt
        self.heard = time.monotonic()
        self.call = self.actor.begin.remote(attempt, earlier, shipment)

    def listen(self, verdict: Verdict | None = None) -> None:
        """Ask for the next event, with the verdict on the last one if that was an epoch."""
        self.heard = time.monotonic()
        self.waits_for_verdict = False
        self.call = self.actor.proceed.remote(verdict)

    def watch_checkpoints(self) -> None:
        """Ask for the next checkpoint, unless the nodes share the folder that it is in."""
        if not self._shared:
            self.saved = self.actor.saved.options(concurrency_group=FILES_GROUP).remote()

    def bring_home(self, pool: Pool) -> None:
        """A checkpoint has come: have it written, then ask for the next one."""
        assert self.attempt is not None
        self._writing = pool.submit(_write, self.saved, self.attempt)
        self.saved = None

    def written(self) -> bool:
        """Whether a checkpoint was written just now. Raises: OSError if it could not be; RayError if it was lost."""
        if self._writing is None or not self._writing.done():
            return False
        writing, self._writing = self._writing, None
        writing.result()
        return True

    def settle(self, pool: Pool) -> None:
        """Write a checkpoint that has come, and wait until all are written: the attempt is about to end."""
        if self.saved is not None and self._writing is None:
            came, _ = ray.wait([self.saved], timeout=0)
            if came:
                self.bring_home(pool)
        writing, self._writing, self.saved = self._writing, None, None
        if writing is not None:
            try:
                writing.result()
            except RayError:
                return  # it went with the worker; the one before it stays

    def kill(self) -> None:
        """End the process; returns when the cluster knows that it is gone, or after a while."""
        ray.kill(self.actor, no_restart=True)
        calls = self.references() or [self.actor.placed.remote()]
        ray.wait(calls, num_returns=len(calls), timeout=_DEATH_SECONDS, fetch_local=False)


def loss(error: BaseException, attempt: Attempt, place: str) -> Failure:
    """What Ray says about a worker's death, as the failure of its attempt."""
    memory = isinstance(error, OutOfMemoryError)
    return Failure(
        cause="memory" if memory else "lost",
        message=f"the worker on {place} was lost during attempt {attempt.key}: {in_words(error)}",
        traceback=plain(error)[-8_000:],
    )


def plain(error: BaseException) -> str:
    """All that Ray says, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error))


def in_words(error: BaseException) -> str:
    """The part of a message of Ray's that says what happened, without its guesses at the cause."""
    text = plain(error).partition("Some common causes")[0].strip()
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("\t")]
    return " ".join(lines[-2:] or [type(error).__name__])[:_MOST_CHARACTERS]


def _write(reference: Any, attempt: Attempt) -> None:
    files = ray.get(reference)
    if files:
        unpack(files, attempt.job.folder)
