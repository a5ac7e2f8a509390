"""A worker with the real trainer: what it loads, where it computes, that it stays warm."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from podium.digests import arrays_digest, split_digest
from podium.executors.base import Attempt, Ended, EpochDone, Event
from podium.executors.local import LocalExecutor
from podium.executors.placement import visible_gpus
from podium.recipe import Recipe
from podium.result import TrainingArrays, TrainingJob, TrainingResult, Verdict

pytestmark = pytest.mark.slow

SPY = """
import json, os, sys
from pathlib import Path

import keras

def build(input_shape, classes, note):
    facts = {"pid": os.getpid(), "modules": sorted(sys.modules), "gpus": os.environ["CUDA_VISIBLE_DEVICES"]}
    Path(note).write_text(json.dumps(facts))
    inputs = keras.Input(input_shape)
    x = keras.layers.Flatten()(inputs)
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(x))
"""


def write_arrays(folder: Path) -> TrainingArrays:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(40, dtype=np.int64) % 2
    train, validation = np.arange(32), np.arange(32, 40)
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    np.savez(folder / "split.npz", train=train, validation=validation)
    return TrainingArrays(
        images=folder / "images.npy",
        labels=folder / "labels.npy",
        split=folder / "split.npz",
        train_digest=arrays_digest(images, labels),
        split_digest=split_digest(train, validation),
        class_names=("even", "odd"),
    )


def run(executor: LocalExecutor, attempt: Attempt) -> TrainingResult:
    deadline = time.monotonic() + 90
    events: list[Event] = []
    while not executor.free:
        assert time.monotonic() < deadline
        executor.events(1.0)
    executor.submit(attempt)
    while not any(isinstance(event, Ended) for event in events):
        assert time.monotonic() < deadline
        more = executor.events(1.0)
        for event in more:
            if isinstance(event, EpochDone):
                executor.answer(event.key, Verdict.CONTINUE)
        events += more
    [outcome] = [event.outcome for event in events if isinstance(event, Ended)]
    assert isinstance(outcome, TrainingResult), outcome
    return outcome


def test_worker_trains_twice_warm_and_loads_nothing_but_keras(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "spy_network.py").write_text(SPY)
    arrays = write_arrays(tmp_path)
    executor = LocalExecutor(workers=1, threads=1, log_folder=tmp_path / "logs")
    facts = []
    try:
        for number in range(2):
            note = tmp_path / f"note-{number}.json"
            values = {
                "model.builder": "spy_network:build",
                "model.parameters": {"note": str(note)},
                "training.batch_size": 16,
            }
            job = TrainingJob(
                recipe=Recipe().with_values(values),
                arrays=arrays,
                folder=tmp_path / f"attempt-{number}",
                epochs=1,
                code=code,
            )
            result = run(executor, Attempt(key=f"{number}.1", job=job))
            assert (result.status, result.epochs, result.threads) == ("finished", 1, 1)
            assert result.model_file is not None
            assert result.model_file.is_file()
            facts.append(json.loads(note.read_text()))
    finally:
        executor.close()
    # The second note was written after a whole training in the same process.
    assert facts[0]["pid"] == facts[1]["pid"]
    modules = set(facts[1]["modules"])
    assert "keras" in modules
    assert modules.isdisjoint({"optuna", "keras_tuner", "mlflow", "pandas", "matplotlib"})
    if not visible_gpus({}):
        assert facts[1]["gpus"] == "-1"
