"""Owns the process that trains: takes attempts one after another, trains each, answers with its events."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import NoReturn, cast

from podium.errors import PodiumError, SweepError, TrialFailed
from podium.executors.base import Attempt, Ended, EpochDone, Event, Started
from podium.result import EpochEvent, Failure, FailureCause, TrainingJob, TrainingResult, Verdict

Trainer = Callable[[TrainingJob, Callable[[EpochEvent], Verdict]], TrainingResult]

OWN_TRAINERS = "podium.training."
DEFAULT_TRAINER = f"{OWN_TRAINERS}train:Trainer"
READY = "ready"
# Keras imports pandas and matplotlib if it finds them: 90 MB and a second or two a worker, for nothing.
KEPT_OUT = frozenset({"optuna", "keras_tuner", "mlflow", "pandas", "matplotlib"})
# So it does scikit-learn, and SciPy with it: another second. Classical models import it themselves.
KEPT_FROM_KERAS = frozenset({"sklearn"})
# A message of up to 16 KiB crosses the pipe in one piece, so a worker stopped half-way holds nobody up.
_MAX_MESSAGE_CHARACTERS = 2_000
_MAX_TRACEBACK_CHARACTERS = 8_000
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class WorkerSetup:
    """What a worker learns before its first attempt; `trainer` is 'package.module:function'."""

    trainer: str
    device: str
    cores: tuple[int, ...]
    threads: int
    paths: tuple[Path, ...]
    coordinator_pid: int


class KeepOut:
    """An import finder that answers for the libraries that workers do without."""

    def __init__(self, names: Set[str] = KEPT_OUT) -> None:
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] in self._names:
            raise ModuleNotFoundError(f"a worker trains and does without {name}", name=name)
        return None


def serve(descriptor: int) -> None:
    """Be a worker: read the set-up, then attempts, from the socket `descriptor` until it closes."""
    os.set_inheritable(descriptor, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what Ctrl-C means is for the coordinator to decide
    faulthandler.enable()
    channel = Connection(descriptor)
    setup = cast(WorkerSetup, _receive(channel))
    end_with_coordinator(setup.coordinator_pid)
    os.sched_setaffinity(0, setup.cores)
    sys.meta_path.insert(0, KeepOut())
    sys.path[:0] = [str(path) for path in setup.paths]
    trainer = load_trainer(setup.trainer, threads=setup.threads)
    gc.freeze()  # libraries stay: a collection need not look at their objects again, which takes 0.3 s
    place = f"{socket.gethostname()}, process {os.getpid()}, {setup.device}"
    channel.send(READY)
    while True:
        attempt = cast(Attempt, _receive(channel))
        print(f"--- attempt {attempt.key}", flush=True)
        try:
            train_attempt(
                attempt,
                trainer,
                place=place,
                emit=lambda event: _send(channel, event),
                verdict=lambda: cast(Verdict, _receive(channel)),
            )
        except SweepError as error:
            traceback.print_exc()
            _send(channel, error)


def train_attempt(
    attempt: Attempt,
    trainer: Trainer,
    *,
    place: str,
    emit: Callable[[Event], None],
    verdict: Callable[[], Verdict],
) -> None:
    """Train one attempt: emits Started, an EpochDone an epoch (then asks for the verdict), and Ended.

    Raises: SweepError if the trainer does (a full disk, say): not this attempt's fault, so it has no end.
    """
    emit(Started(key=attempt.key, place=place))

    def report(epoch: EpochEvent) -> Verdict:
        emit(EpochDone(key=attempt.key, epoch=epoch))
        return verdict()

    outcome = _outcome(attempt.job, trainer, report)
    gc.collect()  # before the end is told, so that the memory measured then is what stays in use
    emit(Ended(key=attempt.key, outcome=outcome))


def load_trainer(name: str, *, threads: int, gpu_memory_bytes: int | None = None) -> Trainer:
    """Import the trainer named 'package.module:function', or make one of a class. Ours also set their device up, once."""
    module, _, function = name.partition(":")
    if name.startswith(OWN_TRAINERS):
        keras_alone = KeepOut(KEPT_FROM_KERAS)
        sys.meta_path.insert(0, keras_alone)
        try:
            from podium.training.device import configure

            configure(threads, gpu_memory_bytes=gpu_memory_bytes)
            importlib.import_module(module)
        finally:
            sys.meta_path.remove(keras_alone)
    found = getattr(importlib.import_module(module), function)
    return cast(Trainer, found() if isinstance(found, type) else found)


def end_with_coordinator(coordinator_pid: int) -> None:
    """See to it that this process does not outlive the coordinator, whatever it is doing then.

    The kernel's signal reaches a process that is stopped or stuck in a computation; the thread is
    for kernels and sandboxes that do not send it.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"prctl(PR_SET_PDEATHSIG): {os.strerror(code)}")

    def watch() -> None:
        while os.getppid() == coordinator_pid:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="coordinator-watch", daemon=True).start()


def _outcome(
    job: TrainingJob, trainer: Trainer, report: Callable[[EpochEvent], Verdict]
) -> TrainingResult | Failure:
    try:
        result = trainer(job, report)
        if not isinstance(result, TrainingResult):
            raise TypeError(f"a trainer answers with a TrainingResult; this one answered {result!r}")
        return result
    except SweepError:
        raise
    except BaseException as error:  # also SystemExit: a user's code may not end the worker
        text = traceback.format_exc()
        print(text, file=sys.stderr, flush=True)
        carried = error.traceback if isinstance(error, TrialFailed) else ""
        return Failure(
            cause=_cause(error),
            message=_shortened(_message(error), _MAX_MESSAGE_CHARACTERS),
            traceback=_shortened(carried or text, _MAX_TRACEBACK_CHARACTERS),
        )


def _message(error: BaseException) -> str:
    if isinstance(error, PodiumError):
        return str(error)
    return "".join(traceback.format_exception_only(error)).strip()


def _cause(error: BaseException) -> FailureCause:
    if isinstance(error, TrialFailed):
        return cast(FailureCause, error.cause)
    # TensorFlow and JAX have no common class for this, and naming theirs would need them imported.
    names = {kind.__name__ for kind in type(error).__mro__}
    exhausted = "ResourceExhaustedError" in names or str(error).startswith("RESOURCE_EXHAUSTED")
    return "memory" if exhausted or isinstance(error, MemoryError) else "error"


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - limit} characters left out ...\n{text[-half:]}"


def _receive(channel: Connection) -> object:
    try:
        return channel.recv()
    except (EOFError, OSError):
        _leave()


def _send(channel: Connection, message: Event | SweepError) -> None:
    try:
        channel.send(message)
    except OSError:
        _leave()


def _leave() -> NoReturn:
    # The coordinator has let go of this worker. Trainers must not catch that, hence no exception.
    os._exit(0)
