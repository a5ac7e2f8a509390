"""Times what `podium compare` does with a recorded sweep of 1,000 trials: the table, then the HTML report.

Run it:  .venv/bin/python benchmarks/compare.py        (records the sweep in a temporary folder first)
Target:  table in at most 4 s, report in at most 30 s, on 2 cores.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna
from arms import new_stores
from optuna.distributions import FloatDistribution, IntDistribution

from podium.reporting import report
from podium.result import EpochEvent
from podium.session.evidence import sweep_record
from podium.stores import Stores
from podium.tracking.runs import Recorder

TRIALS, EPOCHS = 1_000, 10
STUDY = "thousand-trials"
SPACE = {
    "optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "scale": "log"},
    "model.dropout": {"type": "float", "low": 0.0, "high": 0.6},
    "model.depth": {"type": "int", "low": 1, "high": 4},
}


def record(stores: Stores) -> str:
    """Write a made-up sweep to both stores through the ordinary parts; answers the parent run's id."""
    generator = np.random.default_rng(0)
    distributions = {
        "optimizer.learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "model.dropout": FloatDistribution(0.0, 0.6),
        "model.depth": IntDistribution(1, 4),
    }
    recorder = Recorder(stores, experiment="thousand")
    parent = recorder.open_parent(
        name=STUDY,
        parameters={f"space.{key}": json.dumps(value) for key, value in SPACE.items()},
        tags={"podium.sweep": "thousand", "podium.study": STUDY, "podium.metric": "val_accuracy"},
    )
    trials = []
    for number in range(TRIALS):
        values = {
            "optimizer.learning_rate": float(10 ** generator.uniform(-4, -2)),
            "model.dropout": float(generator.uniform(0, 0.6)),
            "model.depth": int(generator.integers(1, 5)),
        }
        best = 0.5 + 0.08 * values["model.depth"] - 0.2 * values["model.dropout"] + generator.normal(0, 0.02)
        recorder.start_run(number, name=f"trial {number}", parameters=values, tags={}, inputs=[])
        for epoch in range(1, EPOCHS + 1):
            accuracy = best * (1 - 0.6**epoch)
            names = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
            metrics = dict(zip(names, (2 - accuracy, accuracy, 2 - accuracy, accuracy, 1e-3), strict=True))
            recorder.epoch(number, EpochEvent(epoch=epoch, metrics=metrics, seconds=5.0, images=1000))
        facts = {"best_val_accuracy": best, "seconds": 50.0, "epochs": 10.0, "epochs_planned": 10.0}
        recorder.end_run(number, status="FINISHED", metrics=facts, tags={"podium.diagnosis": "healthy"})
        trials.append(optuna.create_trial(params=values, distributions=distributions, value=best))
    study = optuna.create_study(study_name=STUDY, storage=stores.study_url, direction="maximize")
    study.add_trials(trials)
    assert recorder.flush(600)
    recorder.close()
    return parent


def main() -> None:
    """Record, then time table and report."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        stores = new_stores(Path(folder) / "mlruns")
        parent = record(stores)
        start = time.perf_counter()
        evidence = sweep_record(stores, parent)
        table = report.ranked([evidence])
        seconds_table = time.perf_counter() - start
        page = report.render([evidence], written="now", top=20)
        seconds_report = time.perf_counter() - start
    print(
        f"{len(table)} trials: table {seconds_table:.1f} s, report {seconds_report:.1f} s, {len(page) / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
