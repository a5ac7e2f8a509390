"""Owns `podium doctor`'s look at devices: what TensorFlow sees, a Ray cluster, and how fast a real training is."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from podium.errors import PodiumError, install
from podium.executors.base import Attempt, Ended, EpochDone
from podium.executors.local import LocalExecutor
from podium.executors.placement import visible_gpus
from podium.recipe import Recipe
from podium.recipe_sections import DataSettings
from podium.result import EpochEvent, Failure, TrainingJob, TrainingResult, Verdict
from podium.session.assembly import cores
from podium.session.health import Check, ok, problem, warning
from podium.session.material import gather

PROBE_SECONDS = 20.0
ENDING_SECONDS = 120.0
TENSORFLOW_SECONDS, RAY_SECONDS = 120, 30
# The guide's CNN on images of its size, from data that every installation has.
# Few enough of them for several epochs on a slow machine.
PROBE = Recipe(data=DataSettings(reference="digits", image_size=32, train_limit=600))
EPOCHS = 100_000
_LOOK = (
    "import json, tensorflow as tf; gpus = tf.config.list_physical_devices('GPU');"
    "details = tf.config.experimental.get_device_details;"
    "print(json.dumps({'version': tf.__version__, 'cuda': tf.test.is_built_with_cuda(),"
    " 'gpus': [details(gpu).get('device_name', gpu.name) for gpu in gpus]}))"
)
_JOIN = (
    "import json, sys, ray; ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False);"
    "nodes = [node for node in ray.nodes() if node['Alive']];"
    "print(json.dumps({'nodes': len(nodes), **ray.cluster_resources()}))"
)


def device_check() -> Check:
    """What TensorFlow sees, asked in a process of its own."""
    name = "device"
    answer = _program(_LOOK, [], TENSORFLOW_SECONDS)
    if isinstance(answer, str):
        return problem(name, f"TensorFlow cannot be used: {answer}", "Install it: make setup")
    present = visible_gpus(os.environ)
    seen = answer["gpus"]
    if present and not seen:
        names = ", ".join(gpu.name for gpu in present)
        remedy = (
            "Install what belongs to it: make setup DEVICE=gpu" if not answer["cuda"] else "Mend the driver."
        )
        return problem(name, f"TensorFlow {answer['version']} does not see {names}", remedy)
    if seen:
        return ok(name, f"TensorFlow {answer['version']} sees {', '.join(seen)}")
    return ok(name, f"TensorFlow {answer['version']} on {cores()} CPU cores, no GPU")


def ray_check(environment: Mapping[str, str]) -> Check:
    """Whether the cluster that RAY_ADDRESS names can be reached; Ray is loaded only in a process of its own."""
    name, address = "Ray", environment.get("RAY_ADDRESS")
    if find_spec("ray") is None:
        if address:
            return problem(name, "RAY_ADDRESS is set, Ray is not installed", install("ray"))
        return ok(name, "not installed; only sweeps on a cluster need it")
    if not address:
        return ok(name, "installed; RAY_ADDRESS names no cluster")
    answer = _program(_JOIN, [address], RAY_SECONDS)
    if isinstance(answer, str):
        return problem(
            name,
            f"no cluster answers at {address}: {answer}",
            "Start it (ray start), or correct RAY_ADDRESS.",
        )
    found = f"{address}: {answer['nodes']} nodes, {answer.get('CPU', 0):.0f} cores, {answer.get('GPU', 0):.0f} GPUs"
    return ok(name, found)


def training_check(seconds: float) -> tuple[Check, float | None]:
    """Train in a real worker for so long; also the images a second, None if it failed."""
    name, remedy = "training", "The worker's own words are above; `podium train` shows more."
    try:
        epochs, outcome = _trained(seconds)
    except PodiumError as error:
        return problem(name, error.message, error.remedy or remedy), None
    if isinstance(outcome, Failure):
        return problem(name, f"{outcome.cause}: {outcome.message}", remedy), None
    if not all(math.isfinite(epoch.metrics["loss"]) for epoch in epochs):
        return problem(name, f"the loss is not a number on {outcome.device}", remedy), None
    # The first epoch builds the training step, and says how long that takes rather than how fast it is.
    measured = epochs[1:] or epochs
    speed = sum(epoch.images for epoch in measured) / sum(epoch.seconds for epoch in measured)
    count = f"{len(epochs)} epochs" if len(epochs) > 1 else "one epoch, building the network with it"
    found = f"{speed:.0f} images/s of 32 x 32 on {outcome.device}, {outcome.threads} threads; {count}"
    if epochs[-1].metrics["accuracy"] <= epochs[0].metrics["accuracy"] and len(epochs) > 2:
        return warning(name, f"{found}; it learned nothing", "Train a recipe and look at its curves."), speed
    return ok(name, found), speed


def _trained(seconds: float) -> tuple[list[EpochEvent], TrainingResult | Failure]:
    material = gather(PROBE, code=None, largest_batch=PROBE.training.batch_size)
    epochs: list[EpochEvent] = []
    with tempfile.TemporaryDirectory(prefix="podium-doctor-") as folder:
        place = Path(folder)
        executor = LocalExecutor(
            workers=1, threads=cores(), log_folder=place / "logs", patience_seconds=ENDING_SECONDS
        )
        try:
            while not executor.free:
                executor.events(1.0)
            job = TrainingJob(recipe=PROBE, arrays=material.arrays, folder=place / "attempt", epochs=EPOCHS)
            executor.submit(Attempt(key="probe", job=job))
            ends = time.monotonic() + seconds
            while True:
                for event in executor.events(1.0):
                    if isinstance(event, EpochDone):
                        epochs.append(event.epoch)
                        over = time.monotonic() > ends
                        executor.answer(event.key, Verdict.PRUNE if over else Verdict.CONTINUE)
                    elif isinstance(event, Ended):
                        return epochs, event.outcome
        finally:
            executor.close()


def _program(text: str, words: list[str], seconds: int) -> Any:
    """What a program printed last as JSON, or why there is nothing, as text."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", text, *words],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {seconds} s"
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"exit code {done.returncode}"
    return json.loads(done.stdout.strip().splitlines()[-1])
