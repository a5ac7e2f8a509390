"""Owns the Ray executor: one actor a worker, on whatever nodes the cluster has, as nodes come and go."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import ray
from ray.exceptions import RayActorError, RayError

from podium.errors import SweepError
from podium.executors.base import Attempt, Ended, EpochDone, Event, Executor, Notice, Started
from podium.executors.ray_cluster import connect, disconnect, living_nodes, share_of
from podium.executors.ray_data import Shipment, ship
from podium.executors.ray_files import at_the_coordinator, unpack
from podium.executors.ray_slot import Slot, loss, plain
from podium.executors.ray_worker import NeedsData, Placed, RayWorkerSetup, Ready, Refused, Said
from podium.executors.worker import DEFAULT_TRAINER
from podium.result import Failure, TrainingArrays, TrainingResult, Verdict

# In a row; see _count_failed_start.
MAX_FAILED_STARTS = 9
LOOK_SECONDS = 2.0
NOTICE_SECONDS = 15.0
START_SECONDS = 300.0
WRITERS = 4
# An epoch may take this many times as long as the longest so far: another trial's network may be larger.
PATIENCE_EPOCHS = 20


class RayExecutor(Executor):
    """An Executor (see executors.base) of Ray actors.

    Joins the cluster at `address`, or starts one on this machine (None). There are as many actors as `workers` says,
    some of them waiting for room; None: as many as the nodes have room for. `cpus` and `gpus` are a worker's share
    of its node (default: see ray_cluster.share_of); with a fraction of a GPU its memory there is limited to that.
    `shared`: the attempts' folders are the same on every node; else files come home through the object store. `code` is
    a user's own model, which travels along; `paths` come first in the workers' imports. A busy worker that says
    nothing for `patience_seconds`, or 20 times the longest epoch if that is more, is killed and its attempt lost.

    Raises: InvalidInput if the cluster cannot be joined.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        workers: int | None = None,
        cpus: int | None = None,
        gpus: float | None = None,
        shared: bool = False,
        log_folder: Path,
        trainer: str = DEFAULT_TRAINER,
        patience_seconds: float | None = None,
        code: Path | None = None,
        paths: Sequence[Path] = (),
    ) -> None:
        self.patience_seconds = patience_seconds
        self._workers = workers
        self._slots: list[Slot] = []
        self._refused: set[str] = set()
        self._shipments: dict[TrainingArrays, Shipment] = {}
        self._failed_starts = 0
        self._longest_epoch = 0.0
        self._fault: Exception | None = None
        self._looked = float("-inf")
        self._idle_since = time.monotonic()
        self._told_waiting = False
        self._events: list[Event] = []
        # Attempts that were given to a node with other data, and wait for another worker.
        self._homeless: deque[Attempt] = deque()
        self._joined = connect(address, code=code, folder=log_folder)
        self._pool = ThreadPoolExecutor(WRITERS, thread_name_prefix="checkpoints")
        try:
            self.share = share_of(living_nodes(), workers=workers, cpus=cpus, gpus=gpus)
            self._setup = RayWorkerSetup(
                trainer=trainer,
                threads=self.share.cpus,
                shared=shared or address is None,
                gpu_share=self.share.gpus if 0 < self.share.gpus < 1 else None,
                code=code.resolve().name if code is not None and address is not None else None,
                paths=tuple(str(path.resolve()) for path in paths),
            )
            self._staff()
        except BaseException:
            self.close()
            raise

    @property
    def free(self) -> int:
        """How many attempts can be submitted now: ready workers without one."""
        return max(0, sum(slot.free for slot in self._slots) - len(self._homeless))

    def submit(self, attempt: Attempt) -> None:
        """Hand an attempt to a free worker. Raises: RuntimeError if none is free or the key is in use."""
        if self._slot_of(attempt.key) is not None:
            raise RuntimeError(f"attempt {attempt.key} is already being trained.")
        for slot in self._slots:
            if slot.free:
                slot.begin(attempt, self._shipments.get(attempt.job.arrays))
                return
        raise RuntimeError(f"attempt {attempt.key}: no worker is free; look at `free` before submitting.")

    def events(self, timeout_seconds: float) -> list[Event]:
        """All events that are ready; waits up to the timeout for the first, or for a worker to become ready.

        Raises: SweepError if a trainer did, if no worker can be started, or if all nodes were refused. Events that
        were ready are delivered first.
        """
        deadline = time.monotonic() + timeout_seconds
        free_before = self.free
        while self._fault is None:
            self._staff()
            self._serve_ready(deadline)
            self._serve_silent()
            if self._events or self.free > free_before or time.monotonic() >= deadline:
                break
        if self._fault is not None and not self._events:
            raise self._fault
        events, self._events = self._events, []
        return events

    def answer(self, key: str, verdict: Verdict) -> None:
        """Reply to EpochDone. An attempt that has been lost meanwhile needs no answer, and gets none.

        Raises: RuntimeError if the attempt does not wait for an answer.
        """
        slot = self._slot_of(key)
        if slot is None:
            return
        if not slot.waits_for_verdict:
            raise RuntimeError(f"attempt {key} does not wait for an answer.")
        slot.listen(verdict)

    def cancel(self, key: str) -> None:
        """Kill the worker of this attempt and start another; no further event of the attempt arrives."""
        self._homeless = deque(attempt for attempt in self._homeless if attempt.key != key)
        slot = self._slot_of(key)
        if slot is not None:
            slot.settle(self._pool)
            self._drop(slot)

    def close(self) -> None:
        """Kill all workers and leave the cluster; returns when none is left. Nothing can be submitted afterwards."""
        slots, self._slots = self._slots, []
        for slot in slots:
            ray.kill(slot.actor, no_restart=True)
        for slot in slots:
            slot.kill()
        self._pool.shutdown()
        if self._joined:
            self._joined = False
            disconnect()

    # -- what arrives ------------------------------------------------------------------------------

    def _serve_ready(self, deadline: float) -> None:
        """Take all answers that have come; waits for the first until the deadline or the next look at the nodes."""
        waiting = {reference: slot for slot in self._slots for reference in slot.references()}
        seconds = max(0.0, min(deadline, self._looked + LOOK_SECONDS) - time.monotonic())
        if not waiting:
            time.sleep(min(seconds, 0.1))
            return
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=seconds)
        if ready:
            ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        for reference in ready:
            slot = waiting[reference]
            if slot not in self._slots:
                continue  # lost, by another of these answers
            try:
                if reference == slot.saved:
                    slot.bring_home(self._pool)
                elif reference == slot.call:
                    self._take(slot, ray.get(reference))
            except RayError as error:
                self._bury(slot, error)
            except OSError as error:
                self._fault = _no_space(error)
        self._take_written()

    def _take_written(self) -> None:
        for slot in self._slots:
            try:
                if slot.written() and slot.attempt is not None:
                    slot.watch_checkpoints()
            except RayError:
                continue  # the worker is gone: its call says so
            except OSError as error:
                self._fault = _no_space(error)

    def _take(self, slot: Slot, answer: object) -> None:
        slot.heard = time.monotonic()
        slot.call = None
        if isinstance(answer, Placed):
            slot.load(answer)
            return
        if isinstance(answer, Ready):
            slot.ready = True
            self._failed_starts = 0
            if self._homeless:
                self.submit(self._homeless.popleft())
            return
        attempt = slot.attempt
        assert attempt is not None
        if isinstance(answer, Started):
            self._events.append(answer)
            slot.watch_checkpoints()
            slot.listen()
        elif isinstance(answer, NeedsData):
            arrays = attempt.job.arrays
            if arrays not in self._shipments:
                self._shipments[arrays] = ship(arrays)
            slot.begin(attempt, self._shipments[arrays])
        elif isinstance(answer, Refused):
            self._refuse(slot, attempt, answer)
        elif isinstance(answer, Said):
            self._hear(slot, attempt, answer)

    def _hear(self, slot: Slot, attempt: Attempt, said: Said) -> None:
        event = said.event
        if isinstance(event, SweepError):
            self._fault = event
            return
        if isinstance(event, EpochDone):
            slot.waits_for_verdict = True
            self._longest_epoch = max(self._longest_epoch, event.epoch.seconds)
        elif isinstance(event, Ended):
            slot.settle(self._pool)
            if said.files:
                unpack(said.files, attempt.job.folder)
            if isinstance(event.outcome, TrainingResult) and not self._setup.shared:
                event = replace(event, outcome=at_the_coordinator(event.outcome, attempt.job.folder))
            slot.attempt = None
        self._events.append(event)

    # -- workers that come and go ------------------------------------------------------------------

    def _staff(self) -> None:
        """Have as many actors as there should be; now and then, see what nodes there are."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        useful = [node for node in living_nodes() if node.room(self.share)]
        nodes = [node for node in useful if node.id not in self._refused]
        if useful and not nodes and not any(slot.attempt for slot in self._slots):
            self._fault = SweepError(
                "every node of the cluster with room for a worker has other data than this sweep.",
                remedy="Remove what the messages above name from the nodes' dataset caches; it is brought there again.",
            )
            return
        room = sum(node.room(self.share) for node in nodes)
        wanted = self._workers if self._workers is not None else room
        for _ in range(wanted - len(self._slots)):
            self._slots.append(Slot(self._setup, self.share, avoid=self._refused))
        self._tell_waiting(room, now)

    def _tell_waiting(self, room: int, now: float) -> None:
        """Say so once if there is no worker at all for a while, and again when there is one."""
        placed = sum(slot.placed is not None for slot in self._slots)
        if placed:
            if self._told_waiting:
                self._events.append(Notice("the cluster has room for workers again"))
            self._idle_since, self._told_waiting = now, False
        elif not self._told_waiting and now - self._idle_since >= NOTICE_SECONDS:
            what = "its room is taken by others" if room else f"no node has {self.share} for a worker"
            self._events.append(Notice(f"waiting for the cluster: {what}"))
            self._told_waiting = True

    def _bury(self, slot: Slot, error: RayError) -> None:
        """Drop a worker that is dead or out of reach; add what became of its attempt."""
        slot.settle(self._pool)
        self._drop(slot)
        if slot.attempt is not None:
            self._events.append(Ended(key=slot.attempt.key, outcome=loss(error, slot.attempt, slot.place)))
        elif (slot.placed is not None and not slot.ready) or _raised(error):
            self._count_failed_start(plain(error)[-3000:], sure=_raised(error))

    def _count_failed_start(self, reason: str, *, sure: bool) -> None:
        """A worker that raises does so again (`sure`); one that just ended may have gone with its node."""
        self._failed_starts += 3 if sure else 1
        if self._failed_starts >= MAX_FAILED_STARTS:
            self._fault = SweepError(
                f"no worker gets ready: {reason}",
                remedy="Mend what it names on the cluster's nodes: no trial can be trained before.",
            )

    def _serve_silent(self) -> None:
        """Kill workers that have been silent for too long."""
        for slot in list(self._slots):
            if slot.placed is not None and not slot.ready and time.monotonic() - slot.heard > START_SECONDS:
                self._drop(slot)
                self._count_failed_start(f"the worker on {slot.place} loads for ever", sure=True)
        if self.patience_seconds is None:
            return
        patience = max(self.patience_seconds, PATIENCE_EPOCHS * self._longest_epoch)
        for slot in list(self._slots):
            silent = time.monotonic() - slot.heard
            if slot.attempt is None or slot.waits_for_verdict or silent < patience:
                continue
            attempt, place = slot.attempt, slot.place
            slot.settle(self._pool)
            self._drop(slot)
            message = f"the worker on {place} said nothing for {silent:.0f} s and was killed during attempt {attempt.key}"
            self._events.append(Ended(key=attempt.key, outcome=Failure(cause="lost", message=message)))

    def _refuse(self, slot: Slot, attempt: Attempt, refusal: Refused) -> None:
        """Give no more work to a node with other data."""
        assert slot.placed is not None
        node = slot.placed.node
        self._refused.add(node)
        self._events.append(Notice(f"the node of {slot.place} is refused: {refusal.reason}"))
        slot.attempt = None
        for other in list(self._slots):
            # Those that wait for room may get it there; all are made again, elsewhere.
            if other.attempt is None and (other.placed is None or other.placed.node == node):
                self._drop(other)
        # It was not tried there: another worker gets it, and the trial has lost nothing.
        if any(other.free for other in self._slots):
            self.submit(attempt)
        else:
            self._homeless.append(attempt)

    def _drop(self, slot: Slot) -> None:
        """Kill a worker; another takes its place at the next look at the nodes, which comes at once."""
        self._slots.remove(slot)
        slot.kill()
        self._looked = float("-inf")

    def _slot_of(self, key: str) -> Slot | None:
        return next((slot for slot in self._slots if slot.attempt and slot.attempt.key == key), None)


def _raised(error: RayError) -> bool:
    """Whether a worker raised, its constructor included, rather than just ended."""
    return not isinstance(error, RayActorError) or error.actor_init_failed


def _no_space(error: OSError) -> SweepError:
    return SweepError(
        f"what a worker left cannot be written here: {error}",
        remedy="Make space, then go on with --resume.",
    )
