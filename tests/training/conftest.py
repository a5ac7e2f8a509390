"""Arrays to train on, and one finished training that many tests look at."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from training_jobs import PLAIN, SMALL, Reports, make_job, write_arrays

from podium.result import TrainingArrays, TrainingJob, TrainingResult
from podium.training import device
from podium.training.train import train

# Before the first tensor of this process.
device.configure()


@dataclass(frozen=True, kw_only=True)
class Trained:
    job: TrainingJob
    reports: Reports
    result: TrainingResult


@pytest.fixture(scope="session")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> TrainingArrays:
    return write_arrays(tmp_path_factory.mktemp("arrays"))


@pytest.fixture(scope="session")
def finished(arrays: TrainingArrays, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Five epochs with dropout, augmentation and a learning rate that falls at every chance."""
    plateau = {"monitor": "val_loss", "factor": 0.5, "patience": 1, "min_lr": 1e-6}
    values = {
        **SMALL,
        "callbacks.reduce_lr_on_plateau": plateau,
        "callbacks.early_stopping": {"monitor": "val_loss", "patience": 4},
        "optimizer.learning_rate": 0.3,
        "training.epochs": 5,
    }
    job = make_job(arrays, tmp_path_factory.mktemp("finished") / "attempt", values)
    reports = Reports()
    return Trained(job=job, reports=reports, result=train(job, reports))


@pytest.fixture(scope="session")
def scheduled(arrays: TrainingArrays, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two epochs of four, with a learning rate that falls by a schedule over the four."""
    values = {
        **PLAIN,
        "callbacks.reduce_lr_on_plateau": None,
        "optimizer.schedule": {"name": "exponential", "decay_rate": 0.5},
        "optimizer.learning_rate": 0.01,
        "training.epochs": 4,
    }
    job = make_job(arrays, tmp_path_factory.mktemp("scheduled") / "attempt", values, epochs=2)
    reports = Reports()
    return Trained(job=job, reports=reports, result=train(job, reports))
