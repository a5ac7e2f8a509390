"""Owns one start of `podium sweep` in a fork: real stores, real worker processes, toy trainings.

The fork has everything imported and no threads, so a start costs what it does, not what Python loads.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
import study_stores
import toy_training

import podium.cli
import podium.jobs.sweep
import podium.session.agreement
import podium.session.assembly
import podium.session.progress
import podium.tracking.writer
from podium.coordinator.trial import LiveTrial
from podium.engines.base import Outcome
from podium.executors.local import LocalExecutor

TRIALS, EPOCHS, WORKERS = 3, 3, 2
DROPOUT = 0.25
EPOCH_SECONDS = 0.02
START_SECONDS = 120.0
ORPHAN_SECONDS = 5.0
HISTORY = "history.jsonl"
RECIPE = f"""
data: {{reference: digits, train_limit: 200}}
model: {{dropout: {DROPOUT}}}
training: {{epochs: {EPOCHS}}}
"""
SWEEP = f"""
name: NAME
question: Is anything lost?
recipe: recipe.yaml
engine: {{name: optuna, sampler: random, pruner: none, seed: 1}}
budget: {{trials: {TRIALS}}}
workers: {WORKERS}
space:
  model.dropout: {{type: float, low: 0.0, high: 0.6}}
"""
Arm = Callable[[], None]
ASSEMBLY: Any = podium.session.assembly
JOB: Any = podium.jobs.sweep


@dataclass
class Place:
    """A folder in which a person works: a sweep file, its recipe, mlruns. `environment` is for every start.

    `toys`: whether toys train in the place of Keras. `missed`: the fault hit nothing, so the round does not count.
    """

    toys: ClassVar[bool] = True

    root: Path
    name: str = "toys"
    missed: bool = False
    patience_seconds: float | None = None
    # How long a start waits for a store that is away, at its end; None: as long as it does.
    delivery_seconds: float | None = None
    environment: dict[str, str] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    # Where MLflow keeps its records, if not here: a file, or a database on a server.
    mlflow_file: Path | None = None
    mlflow_database: str | None = None
    # The study's database on a server, if it is not a file here.
    study_url: str | None = None

    def prepare(self, template: Path) -> None:
        """Write the files, and copy the empty stores: making them takes a second, copying does not."""
        mlruns = self.root / "mlruns"
        mlruns.mkdir(parents=True, exist_ok=True)
        self.rewrite()
        for file in ("mlflow.db", "studies.db"):
            shutil.copyfile(template / file, mlruns / file)
        if self.toys and study_stores.server() is not None:
            self.keep_study_in(study_stores.make_empty(mlruns, template / study_stores.FILE))
        self.order({})

    def keep_study_in(self, url: str) -> None:
        """Have all starts keep the study in a database on a server."""
        self.study_url = self.environment["PODIUM_STUDY_URL"] = url

    def rewrite(self) -> None:
        """Write the sweep file and its recipe."""
        (self.root / "recipe.yaml").write_text(RECIPE)
        (self.root / "sweep.yaml").write_text(SWEEP.replace("NAME", self.name))

    def order(self, by_trial: dict[str, dict[str, Any]], *, seconds: float = EPOCH_SECONDS) -> None:
        """What the toys do, by trial number; `seconds` is how long each epoch takes."""
        temporary = self.root / f".{toy_training.ORDERS}"
        temporary.write_text(json.dumps({"all": {"seconds": seconds}, **by_trial}))
        temporary.replace(self.root / toy_training.ORDERS)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """A file of facts; a process that is killed in the middle of a line leaves half of it."""
        file = self.root / name
        return [json.loads(line) for line in file.read_text().split("\n")[:-1]] if file.exists() else []

    @property
    def acknowledged(self) -> list[dict[str, Any]]:
        """The ends that a start has shown to the person: trial, state, value."""
        return self.lines(HISTORY)

    def traced(self, what: str) -> list[dict[str, Any]]:
        """What the workers really did."""
        return [each for each in self.lines(toy_training.TRACE) if each["what"] == what]

    def begin(self, *words: str, arm: Arm | None = None) -> Start:
        """Start `podium sweep sweep.yaml WORDS` in a fork. `arm` is called in it first."""
        return self.run(["sweep", "sweep.yaml", *words], arm=arm)

    def run(self, words: list[str], *, arm: Arm | None = None) -> Start:
        """Start any command of Podium's in a fork."""
        output = self.root / f"start-{len(self.starts)}.txt"
        pid = os.fork()
        if pid == 0:
            _be_podium(self, words, output, arm)
        start = Start(pid=pid, output=output)
        self.starts.append(start)
        return start

    def go_on(self, arm: Arm | None = None) -> Start:
        """Start again undisturbed as a person does, who follows what Podium says; answers that ended start."""
        start = self.begin("--resume", arm=arm)
        code = start.wait()
        if code == 2 and "to go on with" in start.said:
            start = self.begin(arm=arm)
            start.wait()
        return start


@dataclass
class Start:
    """A process that runs the command; `code` is its exit code, or -signal."""

    pid: int
    output: Path
    code: int | None = None

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self.output.read_text() if self.output.exists() else ""

    def workers(self) -> list[int]:
        """Its worker processes that live."""
        with suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(self.pid).children() if _is_worker(child)]
        return []

    def signal(self, number: int) -> bool:
        """Send a signal; False if it has ended already."""
        running = self.poll() is None
        if running:
            os.kill(self.pid, number)
        return running

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        if self.code is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, seconds: float = START_SECONDS) -> int:
        """Wait for the end; one that does not come in time is a failure of its own."""
        if not until(lambda: self.poll() is not None, seconds):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.code = -signal.SIGALRM
        assert self.code is not None
        return self.code


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; whether it came in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def orphans(place: Place) -> list[int]:
    """Workers that outlive their coordinators by more than they may."""
    known = [each["pid"] for each in place.traced("worker")]
    until(lambda: not any(_lives(place, pid) for pid in known), ORPHAN_SECONDS)
    return [pid for pid in known if _lives(place, pid)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "podium.executors.worker" in " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return False


def _lives(place: Place, pid: int) -> bool:
    # A number that is used again is another process's.
    try:
        return psutil.Process(pid).environ().get(toy_training.FOLDER_VARIABLE) == str(place.root)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def _be_podium(place: Place, words: list[str], output: Path, arm: Arm | None) -> None:
    """Never returns."""
    code = 1
    try:
        os.chdir(place.root)
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.environ.update({toy_training.FOLDER_VARIABLE: str(place.root), **place.environment})
        stand_in(place)
        if arm is not None:
            arm()
        sys.argv = ["podium", *words]
        podium.cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def stand_in(place: Place) -> None:
    """Toys in the place of Keras, and a file of what the person is shown: nothing else is changed."""
    if place.toys:
        ASSEMBLY.LocalExecutor = functools.partial(
            LocalExecutor, trainer="toy_training:train", paths=[Path(__file__).parent]
        )
    if place.patience_seconds is not None:
        podium.session.assembly.PATIENCE_SECONDS = place.patience_seconds
    if place.delivery_seconds is not None:
        podium.jobs.sweep.DELIVERY_SECONDS = place.delivery_seconds
        podium.session.assembly.FLUSH_SECONDS = place.delivery_seconds
        podium.session.agreement.RECONCILE_SECONDS = place.delivery_seconds
        podium.tracking.writer.CLOSE_SECONDS = place.delivery_seconds
    shown = podium.session.progress.Progress.ended

    def ended(self: Any, trial: LiveTrial, outcome: Outcome) -> None:
        shown(self, trial, outcome)
        facts = {"trial": trial.number, "state": outcome.state, "value": outcome.value}
        line = os.open(place.root / HISTORY, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(line, (json.dumps(facts) + "\n").encode())
        os.close(line)

    podium.session.progress.Progress.ended = ended  # type: ignore[method-assign]
