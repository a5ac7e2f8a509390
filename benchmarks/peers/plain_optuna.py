"""Optuna with the guide's script and nothing else: no pruning.

python plain_optuna.py arrays.npz watch.jsonl SECONDS SEED
"""

from __future__ import annotations

import sys

import keras
import optuna
from guide_model import Watch, build, guide_callbacks
from guide_space import EPOCHS, GUIDE, load


def main(arrays: str, watch: str, seconds: str, seed: str) -> None:
    x_train, y_train, x_val, y_val = load(arrays)
    keras.utils.set_random_seed(int(seed))

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
            callbacks=[*guide_callbacks(), Watch(watch)],
            verbose=0,
        ).history
        return float(max(history["val_accuracy"]))

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=int(seed)))
    study.enqueue_trial(GUIDE)
    study.optimize(objective, timeout=float(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
