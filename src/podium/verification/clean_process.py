"""Owns the clean process from outside: starting it, asking it, and telling what it died of."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from podium.errors import PodiumError
from podium.stores import redacted, restrain_mlflow

PROGRAM = Path(__file__).with_name("clean_program.py")
TRAINING = Path(__file__).parents[1] / "training"
CLOSE_SECONDS = 10.0
# Files that import nothing of Podium: the process runs them as modules of their own.
MODULES = {"evaluation": str(TRAINING / "evaluation.py"), "stock_keras": str(TRAINING / "stock_keras.py")}


class VerificationRefused(Exception):
    """The clean process says no; `code` is for scripts."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class CleanProcess:
    """Python with Keras, its backend and MLflow, in which Podium cannot be imported.

    First `verify`, then `evaluate`: the test images' place is not told before. Or `load`, then `predict`, of a model
    that was verified when it was promoted.
    """

    def __init__(self) -> None:
        restrain_mlflow()
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if kind is not None:
            self.process.kill()
        with contextlib.suppress(BrokenPipeError):  # it is dead, and whoever asked it last has been told
            self.process.stdin.close()
        try:
            self.process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._errors.close()

    def verify(
        self, *, folder: Path, sha256: str, predictions: Path, tolerance: float, same_classes: bool
    ) -> dict[str, Any]:
        """Check and load the MLflow model in `folder`, and compare what it predicts with what the run recorded.

        predictions: .npz with `images` (n, height, width, channels) and `probabilities` (n, classes).
        Raises: VerificationRefused; PodiumError if the process dies.
        """
        return self._ask(
            {
                "do": "verify",
                "folder": str(folder),
                "sha256": sha256,
                "predictions": str(predictions),
                "tolerance": tolerance,
                "same_classes": same_classes,
                **MODULES,
            }
        )

    def load(self, *, folder: Path, sha256: str) -> dict[str, Any]:
        """Check and load the MLflow model in `folder`. Answers `image_shape` (height, width, channels) and `classes`.

        Raises: VerificationRefused; PodiumError if the process dies.
        """
        return self._ask({"do": "load", "folder": str(folder), "sha256": sha256, **MODULES})

    def predict(self, *, images: Path, out: Path) -> None:
        """Put the loaded model's probabilities (.npy, float32 (n, classes)) of the images (.npy) in `out`.

        Raises: PodiumError if the process dies.
        """
        self._ask({"do": "predict", "images": str(images), "out": str(out)})

    def evaluate(self, *, images: Path, labels: Path, out: Path) -> dict[str, Any]:
        """Measure the verified model; probabilities and labels go to `out` (.npz).

        Answers images, loss, accuracy, class_accuracy, calibration_error, confusion and some examples.
        Raises: PodiumError if the process dies.
        """
        return self._ask({"do": "evaluate", "images": str(images), "labels": str(labels), "out": str(out)})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.process.wait()
            raise PodiumError(
                f"the clean process died at '{request['do']}' (exit {self.process.returncode}): {self._last_words()}"
            )
        answer = json.loads(line)
        if "refusal" in answer:
            raise VerificationRefused(answer["refusal"]["code"], answer["refusal"]["message"])
        facts = answer["facts"]
        assert isinstance(facts, dict)
        return facts

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read()[-2_000:].strip().splitlines()
        return redacted(lines[-1]) if lines else "no message"
