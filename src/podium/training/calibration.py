"""Owns the calibration of a sweep: a short training whose last epoch tells speed, and which tells its peak memory."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras

from podium.result import EpochEvent, TrainingJob, TrainingResult, Verdict
from podium.training import checkpoint
from podium.training.device import has_accelerator
from podium.training.train import train

DETAIL = "calibration"
_PEAK_RESET = "5"


def calibrate(job: TrainingJob, report: Callable[[EpochEvent], Verdict]) -> TrainingResult:
    """Train as `train` does. `details[DETAIL]` of the result is JSON about the last epoch and the process:

    `images`, `seconds` (of the epoch, validation included), `training_seconds`, `peak_bytes` (of the device where
    it is a GPU, else of the process; it may hold what an earlier training of this process left).
    """
    _forget_peak()
    result = train(job, report)
    state = checkpoint.newest(job.folder, last_epoch=job.epochs).state
    assert state is not None
    last = state.history[-1]
    measured = {
        "images": last.images,
        "seconds": last.seconds,
        "training_seconds": last.training_seconds,
        "peak_bytes": _peak_bytes(),
    }
    return replace(result, details={**result.details, DETAIL: json.dumps(measured)})


def _forget_peak() -> None:
    """Have the kernel count this process's peak from here, where it lets us."""
    if _on_gpu():
        import tensorflow as tf

        tf.config.experimental.reset_memory_stats("GPU:0")
        return
    try:
        Path("/proc/self/clear_refs").write_text(_PEAK_RESET)
    except OSError:
        return  # the peak is then the process's own, which is never too small


def _peak_bytes() -> int:
    if _on_gpu():
        import tensorflow as tf

        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _on_gpu() -> bool:
    return keras.config.backend() == "tensorflow" and has_accelerator()
