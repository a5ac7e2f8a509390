"""Owns converting and measuring from outside: what each format needs, and the processes that do it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from podium.errors import InvalidInput, PodiumError, install
from podium.stores import redacted

Format = Literal["keras", "saved_model", "litert", "litert-int8", "onnx"]
FORMATS: tuple[Format, ...] = get_args(Format)
FILES: Mapping[Format, str] = {
    "keras": "model.keras",
    "saved_model": "saved_model",
    "litert": "model.tflite",
    "litert-int8": "model-int8.tflite",
    "onnx": "model.onnx",
}
# Modules that converting and running take, beside Keras.
NEEDED: Mapping[Format, Sequence[str]] = {
    "keras": (),
    "saved_model": ("tensorflow",),
    "litert": ("tensorflow", "ai_edge_litert"),
    "litert-int8": ("tensorflow", "ai_edge_litert"),
    "onnx": ("tensorflow", "tf2onnx", "onnxruntime"),
}
EXTRAS = {"tensorflow": "cpu"}
EXTRA = "export"
CONVERT_PROGRAM = Path(__file__).with_name("convert_program.py")
RUNTIME_PROGRAM = Path(__file__).with_name("runtime_program.py")
CONVERT_SECONDS, MEASURE_SECONDS = 1800, 1800


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a file's own runtime makes of images. `latency_ms`: one image at a time, one thread, median."""

    probabilities: NDArray[np.float32]
    latency_ms: float
    runtime: str


def check_runtimes(formats: Sequence[Format]) -> None:
    """Raises: InvalidInput naming the extras to install if a converter or runtime is not there."""
    missing = {
        name: format_
        for format_ in formats
        for name in NEEDED[format_]
        if importlib.util.find_spec(name) is None
    }
    if missing:
        extras = sorted({EXTRAS.get(name, EXTRA) for name in missing})
        words = ", ".join(f"{format_} needs {name}" for name, format_ in missing.items())
        raise InvalidInput(f"not installed: {words}.", remedy=install(*extras))


def convert(model: Path, files: Mapping[Format, Path], *, calibration: Path) -> dict[Format, str]:
    """Write a checked .keras file in other formats, in a process of its own; answers what is wrong, by format.

    calibration: .npy of uint8 images (n, height, width, channels), for litert-int8.
    """
    request = {
        "model": str(model),
        "files": {format_: str(path) for format_, path in files.items()},
        "calibration": str(calibration),
    }
    answers, death = ask(CONVERT_PROGRAM, request, CONVERT_SECONDS)
    done = {answer["format"]: answer.get("problem") for answer in answers}
    problems = {format_: done.get(format_, death) for format_ in files}
    return {format_: redacted(problem) for format_, problem in problems.items() if problem is not None}


def measure(path: Path, format_: Format, images: Path) -> Measured:
    """Load an exported file by its own runtime, in a process of its own, on images (.npy). Raises: PodiumError."""
    with tempfile.TemporaryDirectory(prefix="podium-measure-") as folder:
        out = Path(folder) / "probabilities.npy"
        request = {"path": str(path), "format": format_, "images": str(images), "out": str(out)}
        answers, death = ask(RUNTIME_PROGRAM, request, MEASURE_SECONDS)
        facts: dict[str, Any] = answers[0] if answers else {"problem": death}
        if "problem" in facts:
            raise PodiumError(f"{path.name} cannot be run by its own runtime: {redacted(facts['problem'])}")
        return Measured(
            probabilities=np.load(out, allow_pickle=False),
            latency_ms=facts["latency_ms"],
            runtime=facts["runtime"],
        )


def ask(program: Path, request: Mapping[str, Any], seconds: int | None) -> tuple[list[dict[str, Any]], str]:
    """Run a program on one JSON request; the answers that came, and what its process died of."""
    with subprocess.Popen(
        [sys.executable, "-I", str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        try:
            said, errors = process.communicate(json.dumps(request) + "\n", timeout=seconds)
            words = errors.strip().splitlines()
            death = f"its process ended with {process.returncode}: {words[-1] if words else 'no message'}"
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            death = f"not done within {seconds} s"
        except BaseException:
            process.kill()
            raise
    return [json.loads(line) for line in said.rpartition("\n")[0].splitlines()], death
