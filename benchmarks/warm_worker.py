"""Owns the process of warm_trial.py. It loads what a worker loads: whatever else it did would count as a cold start."""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from made_up_images import noise

from podium.executors.base import Attempt
from podium.executors.worker import DEFAULT_TRAINER, KeepOut, load_trainer, train_attempt
from podium.recipe import Recipe
from podium.result import TrainingJob, Verdict

VALIDATION = 32
IMAGES = 96  # one batch and a half: the smaller last batch is traced as well


def worker(words: list[str]) -> None:
    """What the benchmark's process does: one trial after another, each told by its first step's time."""
    sys.meta_path.insert(0, KeepOut())
    trainer = load_trainer(DEFAULT_TRAINER, threads=1)
    import keras
    import psutil

    folder, trials = Path(words[0]), int(words[1])
    arrays = noise(folder, train=IMAGES, validation=VALIDATION)
    stepped: list[float] = []
    watch = keras.callbacks.CallbackList.on_train_batch_end

    def timed(callbacks: Any, batch: int, logs: Any = None) -> Any:
        stepped.append(time.time())
        return watch(callbacks, batch, logs)

    keras.callbacks.CallbackList.on_train_batch_end = timed
    generator = np.random.default_rng(0)
    gc.freeze()
    for number in range(trials):
        recipe = Recipe().with_values(
            {
                "training.epochs": 1,
                "optimizer.learning_rate": float(10 ** generator.uniform(-4, -2)),
                "model.dropout": float(generator.uniform(0.1, 0.5)),
                "augmentation.strength": float(generator.uniform(0.5, 2)),
            }
        )
        stepped.clear()
        began = time.time()
        job = TrainingJob(recipe=recipe, arrays=arrays, folder=folder / "job", epochs=1)
        train_attempt(
            Attempt(key=f"{number}.1", job=job),
            trainer,
            place="here",
            emit=lambda event: None,
            verdict=lambda: Verdict.PRUNE,
        )
        line = {
            "first_step": stepped[0],
            "seconds": stepped[0] - began,
            "mebibytes": psutil.Process().memory_info().rss / 2**20,
        }
        print(json.dumps(line), flush=True)
