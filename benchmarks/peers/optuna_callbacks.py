"""Optuna with KerasPruningCallback and MLflowCallback, as their documentation shows, on the guide's script.

One process a core on one storage, as Optuna's tutorial on parallelisation has it, with the sampler's `constant_liar` that
it recommends there. The pruner is the one that does best on recorded curves (docs/performance.md, "Search methods"),
Podium's own: the examples' MedianPruner waits for five complete trials, which takes longer than a whole arm.
KerasPruningCallback counts epochs from 0, so it looks for the first time after the second.

python optuna_callbacks.py arrays.npz watch.jsonl SECONDS SEED
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time

import optuna
from guide_space import EPOCHS, GUIDE, load

STUDY = "guide"


def search(folder: str, arrays: str, watch: str, seconds: float, seed: int) -> None:
    """What each process does until the time is up."""
    import keras
    import tensorflow as tf
    from guide_model import Watch, build, guide_callbacks
    from optuna_integration import KerasPruningCallback
    from optuna_integration.mlflow import MLflowCallback

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    x_train, y_train, x_val, y_val = load(arrays)
    keras.utils.set_random_seed(seed)

    def objective(trial: optuna.Trial) -> float:
        keras.backend.clear_session()
        depth = trial.suggest_int("depth", 1, 4)
        model = build(
            learning_rate=trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
            dropout=trial.suggest_float("dropout", 0.0, 0.6),
            strength=trial.suggest_float("strength", 0.0, 2.0),
            depth=depth,
            dense_units=trial.suggest_categorical("dense_units", [128, 256]) if depth >= 3 else 256,
        )
        history = model.fit(
            x_train,
            y_train,
            batch_size=trial.suggest_categorical("batch_size", [32, 64, 128, 256]),
            epochs=EPOCHS,
            validation_data=(x_val, y_val),
            callbacks=[*guide_callbacks(), Watch(watch), KerasPruningCallback(trial, "val_accuracy")],
            verbose=0,
        ).history
        return float(max(history["val_accuracy"]))

    study = optuna.load_study(
        study_name=STUDY,
        storage=f"sqlite:///{folder}/study.db",
        sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    )
    recorded = MLflowCallback(tracking_uri=f"sqlite:///{folder}/mlflow.db", metric_name="val_accuracy")
    study.optimize(objective, timeout=seconds, callbacks=[recorded])


def main(arrays: str, watch: str, seconds: str, seed: str) -> None:
    import mlflow

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        # Both stores are made here: processes that make one at the same time fail.
        study = optuna.create_study(
            study_name=STUDY, storage=f"sqlite:///{folder}/study.db", direction="maximize"
        )
        study.enqueue_trial(GUIDE)
        mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").create_experiment(STUDY)
        left = float(seconds) - (time.monotonic() - began)
        count = len(os.sched_getaffinity(0))
        spawned = multiprocessing.get_context("spawn")
        processes = [
            spawned.Process(target=search, args=(folder, arrays, watch, left, count * int(seed) + index))
            for index in range(count)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    if any(process.exitcode for process in processes):
        sys.exit(f"processes ended with {[process.exitcode for process in processes]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
