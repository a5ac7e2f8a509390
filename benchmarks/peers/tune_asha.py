"""Ray Tune with ASHA and OptunaSearch as its documentation shows, on the guide's script; one trial a core.

python tune_asha.py arrays.npz watch.jsonl SECONDS SEED
"""

from __future__ import annotations

import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import ray
from guide_space import EPOCHS, GUIDE, load
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch


def trained(config: dict[str, Any], arrays: tuple[Any, Any, Any, Any]) -> None:
    """One trial: reports after each epoch."""
    import keras
    import tensorflow as tf
    from guide_model import Watch, build, guide_callbacks

    if tf.config.threading.get_intra_op_parallelism_threads() != 1:  # the actor's first trial
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.backend.clear_session()
    keras.utils.set_random_seed(config["seed"])
    x_train, y_train, x_val, y_val = arrays

    class Report(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            assert logs is not None
            tune.report({"val_accuracy": float(logs["val_accuracy"])})

    model = build(
        learning_rate=config["learning_rate"],
        dropout=config["dropout"],
        strength=config["strength"],
        depth=config["depth"],
        dense_units=config.get("dense_units", 256),
    )
    model.fit(
        x_train,
        y_train,
        batch_size=config["batch_size"],
        epochs=EPOCHS,
        validation_data=(x_val, y_val),
        callbacks=[*guide_callbacks(), Watch(config["watch"]), Report()],
        verbose=0,
    )


def space(fixed: dict[str, Any], trial: optuna.Trial) -> dict[str, Any]:
    """Suggest a trial's values; answers what is the same for all. Tune pickles it, so it is no inner function."""
    depth = trial.suggest_int("depth", 1, 4)
    trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    trial.suggest_float("dropout", 0.0, 0.6)
    trial.suggest_float("strength", 0.0, 2.0)
    trial.suggest_categorical("batch_size", [32, 64, 128, 256])
    if depth >= 3:
        trial.suggest_categorical("dense_units", [128, 256])
    return fixed


def main(arrays: str, watch: str, seconds: str, seed: str) -> None:
    fixed = {"watch": watch, "seed": int(seed)}
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # Ray's workers import the guide's model
    ray.init(num_cpus=len(os.sched_getaffinity(0)), include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trained, arrays=load(arrays)), {"cpu": 1}),
            tune_config=tune.TuneConfig(
                metric="val_accuracy",
                mode="max",
                search_alg=OptunaSearch(
                    partial(space, fixed),
                    metric="val_accuracy",
                    mode="max",
                    seed=int(seed),
                    points_to_evaluate=[GUIDE],
                ),
                scheduler=ASHAScheduler(max_t=EPOCHS, grace_period=1, reduction_factor=3),
                num_samples=10_000,
                time_budget_s=float(seconds),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        tuner.fit()


if __name__ == "__main__":
    main(*sys.argv[1:])
