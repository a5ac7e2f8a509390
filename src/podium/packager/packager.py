"""Owns packaging: a process of its own that turns a finished trial's folder into artifacts and MLflow models."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal

from podium.errors import PodiumError
from podium.packager.logged_model import check_file, log_model, open_store
from podium.stores import Stores, redacted, restrain_mlflow

ARTIFACTS = ("recipe.yaml", "summary.txt", "history.json", "predictions.npz", "best.keras")
MODEL_FILE = "best.keras"
TRIES = 3
RETRY_SECONDS = 2.0
CLOSE_SECONDS = 10.0
MARK = "packaged.json"
__all__ = ["PackageRequest", "Packager", "is_packaged", "log_model", "package_trial"]


@dataclass(frozen=True, kw_only=True)
class PackageRequest:
    """What to package: a trial's files and curves, or its model as an MLflow model.

    `folder` is the attempt's; `best_epoch` is marked in the picture (default: the best val_accuracy);
    `model_sha256` is what best.keras must hash to, if it is known.
    """

    run_id: str
    folder: Path
    kind: Literal["trial", "model"] = "trial"
    best_epoch: int | None = None
    title: str | None = None
    model_sha256: str | None = None


class Packager:
    """Feeds the packaging process, which starts with the first request and ends with this one.

    The process gets its requests over a pipe: when this process is gone, so is the pipe, and it ends.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._waiting: deque[PackageRequest] = deque()
        self._busy = False
        self._closed = False
        self._failures: list[str] = []
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None
        self._thread: threading.Thread | None = None

    def submit(self, request: PackageRequest) -> None:
        """Hand over a request; returns at once."""
        with self._changed:
            if self._closed:
                raise PodiumError("the packager is closed.")
            self._waiting.append(request)
            if self._thread is None:
                self._thread = threading.Thread(target=self._feed, name="podium-packager", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drain(self, timeout_seconds: float) -> list[str]:
        """Wait until all requests are done; answers what went wrong since the last call."""
        with self._changed:
            done = self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout_seconds)
            failures, self._failures = self._failures, []
            if not done:
                count = len(self._waiting) + self._busy
                failures.append(f"{count} runs are not packaged after {timeout_seconds:.0f} s")
            return failures

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """End the process; what is still waiting is not packaged, and what takes longer neither."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        process = self._process
        if process is not None:
            if process.stdin is not None:
                with suppress(BrokenPipeError):
                    process.stdin.close()
            try:
                process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        self._let_go()

    def _feed(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._waiting))
                if self._closed:
                    return
                request = self._waiting.popleft()
                self._busy = True
            try:
                problem = self._ask(request)
            except Exception as error:
                # An error that ended this thread would leave whoever drains waiting.
                problem = redacted(f"the packaging process cannot be used: {type(error).__name__}: {error}")
            with self._changed:
                self._busy = False
                if problem is not None and not self._closed:
                    self._failures.append(f"{request.kind} of run {request.run_id}: {problem}")
                self._changed.notify_all()

    def _ask(self, request: PackageRequest) -> str | None:
        """Send a request and wait for the answer: None, or what went wrong."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        message = {**asdict(request), "folder": str(request.folder)}
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if answer:
            problem = json.loads(answer)["problem"]
            return None if problem is None else str(problem)
        # Its pipes close a moment before it counts as dead; the next request must not be written to it.
        process.kill()
        process.wait()
        return f"the packaging process died: {self._last_words()}"

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._let_go()
            self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # lives as long as the process
            self._process = subprocess.Popen(
                [sys.executable, "-m", "podium.packager.packager"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                # Ctrl-C is the coordinator's business.
                start_new_session=True,
            )
            assert self._process.stdin is not None
            # A request names its folder in full.
            stores = {**asdict(self._stores), "root": str(self._stores.root), "checkpoint_root": None}
            self._process.stdin.write(json.dumps(stores) + "\n")
        return self._process

    def _last_words(self) -> str:
        if self._errors is None:
            return "no message"
        self._errors.seek(0)
        lines = self._errors.read()[-2_000:].strip().splitlines()
        return redacted(lines[-1]) if lines else "no message"

    def _let_go(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            # A dead process cannot be told what is left in the pipe.
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.stdout.close()
            self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None


def is_packaged(folder: Path) -> bool:
    """Whether a trial's folder has been packaged as a trial; a folder that has not may be submitted again."""
    return (folder / MARK).is_file()


def serve() -> None:
    """The packaging process: a line of stores, then a request a line until the pipe ends; an answer to each."""
    restrain_mlflow()
    # Whatever a library prints must not be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    settings = json.loads(sys.stdin.readline())
    stores = Stores(**{**settings, "root": Path(settings["root"])})
    for line in sys.stdin:
        content = json.loads(line)
        request = PackageRequest(**{**content, "folder": Path(content["folder"])})
        print(json.dumps({"problem": _attempt(stores, request)}), file=answers, flush=True)


def _attempt(stores: Stores, request: PackageRequest) -> str | None:
    for number in range(TRIES):
        try:
            if request.kind == "trial":
                package_trial(stores, request)
            else:
                file = request.folder / MODEL_FILE
                log_model(stores, run_id=request.run_id, model_file=file, sha256=request.model_sha256)
            return None
        except PodiumError as error:
            return str(error)
        except Exception as error:
            # A store that is away for a moment; whatever else it is comes back below.
            problem = redacted(f"{type(error).__name__}: {error}".splitlines()[0])
            time.sleep(RETRY_SECONDS * number)
    return problem


def package_trial(stores: Stores, request: PackageRequest) -> None:
    """Draw the curves and log the folder's files as artifacts of the run; mark the folder as packaged.

    Raises: PodiumError if the folder has no history, or best.keras is not the file it should be.
    """
    folder = request.folder
    files = [folder / name for name in ARTIFACTS if (folder / name).is_file()]
    if not (folder / "history.json").is_file():
        raise PodiumError(f"{folder} has no history.json: there is nothing to draw.")
    if request.model_sha256 is not None:
        check_file(folder / MODEL_FILE, request.model_sha256)
    files.append(draw_curves(request))
    client = open_store(stores)
    for file in files:
        client.log_artifact(request.run_id, str(file))
    temporary = folder / f".{MARK}"
    temporary.write_text(json.dumps({"run_id": request.run_id, "files": [file.name for file in files]}))
    temporary.replace(folder / MARK)


def draw_curves(request: PackageRequest) -> Path:
    """Draw curves.png from history.json into the folder."""
    import pandas as pd

    from podium.reporting.plots import training_curves

    events = json.loads((request.folder / "history.json").read_text())
    if not events:
        raise PodiumError(f"{request.folder}/history.json holds no epoch: there is nothing to draw.")
    history = pd.DataFrame([{"epoch": event["epoch"], **event["metrics"]} for event in events])
    best = request.best_epoch or max(events, key=lambda event: event["metrics"]["val_accuracy"])["epoch"]
    figure = training_curves(history, best_epoch=best, title=request.title or f"run {request.run_id[:8]}")
    path = request.folder / "curves.png"
    figure.savefig(path)
    return path


if __name__ == "__main__":
    serve()
