"""Owns the Ray actor that trains: takes attempts one after another, hands over each event and the files it left."""

from __future__ import annotations

import atexit
import os
import queue
import socket
import sys
import threading
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import ray

from podium.errors import DatasetError, SweepError
from podium.executors.base import Attempt, Ended, Event
from podium.executors.placement import NO_GPU, Gpu, gpu_bytes
from podium.executors.ray_data import NodeData, Shipment
from podium.executors.ray_files import Files, Scratch, newest_checkpoint, pack
from podium.executors.worker import OWN_TRAINERS, KeepOut, Trainer, load_trainer, train_attempt
from podium.executors.worker_process import scrubbed
from podium.result import Verdict

FILES_GROUP = "files"
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class RayWorkerSetup:
    """What a worker learns when it is made.

    `shared`: attempts' folders are reached under the same path from every node. `gpu_share`: the share of its
    GPU's memory that it may use, None for all. `code` is the name of the folder of a user's own model,
    which travels with the job; None where its path is the same on every node. `paths` come first in imports.
    """

    trainer: str
    threads: int
    shared: bool
    gpu_share: float | None
    code: str | None
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A worker has got its place. `node` is Ray's id of the node, `place` says in words where it is."""

    node: str
    place: str


@dataclass(frozen=True)
class Ready:
    """A worker has loaded its trainer."""


@dataclass(frozen=True)
class NeedsData:
    """The node does not have these training arrays."""


@dataclass(frozen=True)
class Refused:
    """The node has other data than the job's; `reason` names both digests."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Said:
    """One event of an attempt, with the files that it left on the node (after its end only)."""

    event: Event | SweepError
    files: Files | None = None


class RayWorker:
    """One worker. Attempts are trained in a thread of their own, so that calls are answered meanwhile.

    A call of `proceed` answers with the next event; `saved` waits for a checkpoint to bring home.
    """

    def __init__(self, setup: RayWorkerSetup) -> None:
        environment = scrubbed(os.environ)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        gpus = [str(each) for each in ray.get_gpu_ids()]
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = NO_GPU
        sys.meta_path.insert(0, KeepOut())
        sys.path[:0] = setup.paths
        self._setup = setup
        self._data = NodeData()
        self._scratch = None if setup.shared else Scratch()
        if self._scratch is not None:
            atexit.register(self._scratch.close)
        self._code = _travelled(setup.code) if setup.code else None
        self._attempts: queue.Queue[Attempt] = queue.Queue()
        self._verdicts: queue.Queue[Verdict] = queue.Queue()
        self._said: queue.Queue[Event | SweepError] = queue.Queue()
        self._over = threading.Event()
        self._folder = Path()
        self._sent = 0
        device = f"GPU {', '.join(gpus)}" if gpus else f"{setup.threads} CPU cores"
        self._place = f"{socket.gethostname()}, process {os.getpid()}, {device}"
        self._gpus = gpus

    def placed(self) -> Placed:
        """Answers at once, when there is a worker at all."""
        return Placed(node=ray.get_runtime_context().get_node_id(), place=self._place)

    def load(self) -> Ready:
        """Load the trainer, which takes seconds. Call it once, before any attempt."""
        trainer = _loaded(self._setup, self._gpus)
        threading.Thread(target=self._serve, args=(trainer,), name="training", daemon=True).start()
        return Ready()

    def begin(self, attempt: Attempt, earlier: Files | None, shipment: Shipment | None) -> object:
        """Start training; answers Started, or NeedsData or Refused, after which nothing has started.

        `earlier` are the files of the attempt whose checkpoint is continued.
        """
        job = attempt.job
        if self._setup.trainer.startswith(OWN_TRAINERS):  # others read no arrays
            try:
                arrays = self._data.find(job.arrays, shipment)
            except DatasetError as error:
                return Refused(str(error))
            if arrays is None:
                return NeedsData()
            job = replace(job, arrays=arrays)
        if self._scratch is not None:
            job = self._scratch.at_home(job, earlier)
        if job.code is not None and self._code is not None:
            job = replace(job, code=self._code)
        self._folder, self._sent = job.folder, 0
        self._over = threading.Event()
        self._attempts.put(Attempt(key=attempt.key, job=job))
        return self._said.get()

    def proceed(self, verdict: Verdict | None) -> Said:
        """Give the verdict on the last epoch, if it was one, and answer with the next event."""
        if verdict is not None:
            self._verdicts.put(verdict)
        event = self._said.get()
        if isinstance(event, Ended) and self._scratch is not None:
            return Said(event=event, files=pack(self._folder))
        return Said(event=event)

    def saved(self) -> Files | None:
        """Wait for a checkpoint that was not brought home yet; None when the attempt is over.

        Call it in the group of FILES_GROUP: it must not keep `proceed` waiting.
        """
        over, folder = self._over, self._folder
        while not over.is_set():
            found = newest_checkpoint(folder, after=self._sent)
            if found is not None:
                self._sent = found.epoch
                return found.files
            over.wait(_LOOK_SECONDS)
        return None

    def _serve(self, trainer: Trainer) -> None:
        while True:
            attempt = self._attempts.get()
            print(f"--- attempt {attempt.key}", flush=True)
            try:
                train_attempt(
                    attempt,
                    trainer,
                    place=self._place,
                    emit=self._emit,
                    verdict=self._verdicts.get,
                )
            except SweepError as error:
                traceback.print_exc()
                self._over.set()
                self._said.put(error)

    def _emit(self, event: Event) -> None:
        if isinstance(event, Ended):
            self._over.set()
        self._said.put(event)


def _loaded(setup: RayWorkerSetup, gpus: list[str]) -> Trainer:
    """The trainer, with its device set up; a share of a GPU limits the memory on it."""
    memory: int | None = None
    if gpus and setup.gpu_share is not None:
        # JAX takes its share from here, when it is loaded.
        os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = str(setup.gpu_share)
        whole = gpu_bytes(Gpu(identity=gpus[0], name=""))
        memory = None if whole is None else int(setup.gpu_share * whole)
    return load_trainer(setup.trainer, threads=setup.threads, gpu_memory_bytes=memory)


def _travelled(name: str) -> Path:
    """Where Ray has put the folder `name`, which the driver named in py_modules."""
    packages = [Path(entry) for entry in sys.path if "py_modules_files" in Path(entry).parts]
    found = [entry / name for entry in packages if (entry / name).is_dir()]
    if not found:
        raise SweepError(f"the folder '{name}' of the sweep's own code did not reach this node: {packages}")
    return found[0]
