"""Owns the coordinator's end of one worker: start, pipe, log, scrubbed environment, death."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import cast

from podium.errors import SweepError
from podium.executors.base import Attempt, Ended, EpochDone, Event, Started
from podium.executors.placement import NO_GPU, Place
from podium.executors.worker import READY, WorkerSetup
from podium.result import Verdict

LOG_TAIL_LINES = 20
_PIPE_SECONDS = 10
_DEATH_SECONDS = 30
_SECRET_NAME = re.compile(
    r"^(MLFLOW|AWS|AZURE|GOOGLE)_|^PODIUM_STUDY_URL$|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL"
    r"|APIKEY|PGPASS|_PWD$|(^|_)(KEYS?|AUTH)(_|$)",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"://[^/\s@]+@")


class WorkerProcess:
    """One process running `worker.serve`, in a process group of its own, with a log of its own.

    The process dies with the thread that made this object (that is how the kernel counts parents), so
    make it in a thread that lasts as long as the sweep.
    """

    def __init__(self, *, place: Place, trainer: str, paths: Sequence[Path], log_folder: Path) -> None:
        self.log = _new_log(log_folder)
        self.ready = False
        self.attempt: str | None = None
        self.waits_for_verdict = False
        self.sweep_error: SweepError | None = None
        self.trials = 0
        self.memory_kills_before = 0
        self.heard = time.monotonic()
        environment = scrubbed(os.environ)
        environment["CUDA_VISIBLE_DEVICES"] = place.gpu.identity if place.gpu else NO_GPU
        ours, theirs = socket.socketpair()
        _limit_waits(ours)
        with theirs, self.log.open("ab") as log:
            self._process = subprocess.Popen(
                # -P: a keras.py in the folder where the user stands must not stand in for Keras.
                [sys.executable, "-P", "-u", "-c", _program(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=[theirs.fileno()],
                process_group=0,  # a terminal's Ctrl-C reaches the coordinator only
            )
        self.sentinel = os.pidfd_open(self._process.pid)
        self.connection = Connection(ours.detach())
        setup = WorkerSetup(
            trainer=trainer,
            device=place.device,
            cores=place.cores,
            threads=place.threads,
            paths=tuple(paths),
            coordinator_pid=os.getpid(),
        )
        self._send(setup)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def free(self) -> bool:
        return self.ready and self.attempt is None

    @property
    def silent_since(self) -> float | None:
        """Monotonic time of the last sign of life where one is due: None while nothing is asked of it."""
        due = not self.ready or (self.attempt is not None and not self.waits_for_verdict)
        return self.heard if due else None

    def take(self, attempt: Attempt, *, memory_kills: int) -> None:
        """Hand an attempt over. A worker that has died meanwhile shows in `exited`."""
        self.attempt = attempt.key
        self.memory_kills_before = memory_kills
        self._send(attempt)

    def answer(self, verdict: Verdict) -> None:
        """Let the worker go on after an epoch."""
        self.waits_for_verdict = False
        self._send(verdict)

    def exited(self) -> bool:
        """Whether the process is over (what it sent before can still be received)."""
        return os.waitid(os.P_PIDFD, self.sentinel, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def receive(self) -> tuple[list[Event], bool]:
        """All events that have arrived, and whether the pipe has closed."""
        events: list[Event] = []
        try:
            while self.connection.poll():
                message = self.connection.recv()
                self.heard = time.monotonic()
                if message == READY:
                    self.ready = True
                elif isinstance(message, SweepError):
                    self.sweep_error = message
                else:
                    events.append(cast(Event, message))
                    self._note(events[-1])
        except (EOFError, OSError):  # closed, or stopped in the middle of a message
            return events, True
        return events, False

    def kill(self, *, grace_seconds: float = 0.0) -> int:
        """End the process and its children, even if stopped. Answers its exit code or -signal.

        The grace is for one whose pipe has closed: it is on its way out, and its own exit code says more.
        """
        if grace_seconds:
            wait([self.sentinel], timeout=grace_seconds)
        self.signal_death()
        return self.bury()

    def signal_death(self) -> None:
        """Send SIGKILL to the whole group. Its leader is not reaped yet, so the number is still its own."""
        os.killpg(self._process.pid, signal.SIGKILL)

    def bury(self) -> int:
        """Wait for the end after `signal_death` and free what was held here."""
        try:
            code = self._process.wait(timeout=_DEATH_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise SweepError(
                f"worker process {self.pid} did not end within {_DEATH_SECONDS} s of SIGKILL.",
                remedy="A process that cannot be killed waits for a disk or a device; see the kernel's log.",
            ) from error
        self.connection.close()
        os.close(self.sentinel)
        return code

    def log_tail(self) -> str:
        """The last lines of the log."""
        with self.log.open(errors="replace") as lines:
            return "".join(deque(lines, maxlen=LOG_TAIL_LINES)).strip()

    def _note(self, event: Event) -> None:
        match event:
            case Started():
                pass
            case EpochDone():
                self.waits_for_verdict = True
            case Ended():
                self.attempt = None
                self.trials += 1

    def _send(self, message: object) -> None:
        self.heard = time.monotonic()
        try:
            self.connection.send(message)
        except OSError:
            # The worker is gone or stuck. `exited` or its silence tells, in the one place that deals with it.
            return


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what looks like a credential, by its name or as a URL with a user or password."""
    return {
        name: value
        for name, value in environment.items()
        if not _SECRET_NAME.search(name) and not _SECRET_VALUE.search(value)
    }


def death_in_words(code: int) -> str:
    """'was killed by SIGKILL' or 'ended with exit code 3'."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _program(descriptor: int) -> str:
    return f"from podium.executors.worker import serve; serve({descriptor})"


def _limit_waits(ours: socket.socket) -> None:
    # Reads and writes of a whole message take microseconds; these limits are for a peer that is stopped inside one.
    limit = struct.pack("ll", _PIPE_SECONDS, 0)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _new_log(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("worker-*.log"))) + 1
    while True:
        path = folder / f"worker-{number:04d}.log"
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return path
