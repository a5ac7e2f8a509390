"""Owns the making of a recorded sweep with real parts: recipe, data file, stores, and an interrupted confirmation."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.datasets import load_digits

from podium.engines.base import TrialRecord
from podium.engines.listed import ListedEngine
from podium.engines.study import list_studies
from podium.errors import Interrupted
from podium.stores import Stores, stores_here
from podium.tracking import query

IMAGES = 240
EPOCHS = 4
SEEDS = 2
RECIPE: dict[str, Any] = {
    "data": {"reference": "npz:digits.npz", "validation": {"fraction": 0.2, "seed": 0}},
    "model": {"depth": 1, "filters": 4, "dense_units": 8, "dropout": 0.1, "dense_dropout": 0.1},
    "augmentation": {"strength": 0.5, "flip": False},
    "training": {"epochs": EPOCHS, "batch_size": 48, "seed": 0},
}
SWEEP: dict[str, Any] = {
    "name": "small",
    "recipe": "recipe.yaml",
    "engine": {"name": "optuna", "sampler": "random", "pruner": "none", "seed": 7},
    "budget": {"trials": 2},
    "workers": 1,
    "space": {"optimizer.learning_rate": {"type": "float", "low": 1e-3, "high": 1e-1, "scale": "log"}},
    "confirm": {"top": 2, "seeds": SEEDS},
}


@dataclass
class RecordedWorld:
    """A folder with a recorded sweep. `sweep` is what `podium sweep` answered; `interruption` what confirm raised."""

    folder: Path
    sweep: dict[str, Any] = field(default_factory=dict)
    interruption: Interrupted | None = None
    after_interruption: pd.DataFrame | None = None
    confirmation: dict[str, Any] = field(default_factory=dict)

    def enter(self, patch: pytest.MonkeyPatch) -> None:
        """Make it the working folder, with its own stores and dataset cache."""
        patch.chdir(self.folder)
        patch.setenv("PODIUM_CACHE", str(self.folder / "cache"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("PODIUM_STUDY_URL", raising=False)

    @property
    def stores(self) -> Stores:
        return stores_here(self.folder / "mlruns")

    def trials(self) -> pd.DataFrame:
        """The runs of the sweep's trials."""
        children = query.children(self.stores, self.sweep["parent_run_id"])
        return children[children["tags.podium.kind"] == "trial"]

    def seed_runs(self) -> pd.DataFrame:
        """The runs of the confirmation."""
        children = query.children(self.stores, self.sweep["parent_run_id"])
        parents = children.loc[children["tags.podium.kind"] == "confirm", "run_id"].tolist()
        assert len(parents) == 1
        return query.children(self.stores, parents[0])

    @contextmanager
    def other_data(self) -> Iterator[None]:
        """Meanwhile the data file holds other images."""
        path = self.folder / "digits.npz"
        before = path.read_bytes()
        write_digits(path, offset=1)
        try:
            yield
        finally:
            path.write_bytes(before)


def make_world(folder: Path, patch: pytest.MonkeyPatch) -> RecordedWorld:
    """Write recipe, sweep file and data, and run the sweep."""
    from podium.jobs.sweep import sweep

    world = RecordedWorld(folder)
    world.enter(patch)
    write_digits(folder / "digits.npz", offset=0)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "small.yaml").write_text(yaml.safe_dump(SWEEP, sort_keys=False))
    world.sweep = dict(sweep(Path("small.yaml"), []).values)
    return world


def interrupted_confirm(world: RecordedWorld) -> None:
    """Press Ctrl-C once a seed run is complete and another is in training; then call confirm again."""
    from podium.jobs.confirm import confirm

    watcher = threading.Thread(target=_press_when_half_done, args=(world.stores.study_url,), daemon=True)
    watcher.start()
    with pytest.raises(Interrupted) as raised:
        confirm("small")
    watcher.join()
    world.interruption = raised.value
    world.after_interruption = world.seed_runs()
    world.confirmation = dict(confirm("small").values)


def write_digits(path: Path, *, offset: int) -> None:
    """Some of scikit-learn's digits as Keras lays out an npz file."""
    digits = load_digits()
    pixels = np.repeat(np.repeat(digits.images * 15.0, 2, axis=1), 2, axis=2).astype(np.uint8)
    images = np.repeat(pixels[..., None], 3, axis=3)
    train, test = slice(offset, offset + IMAGES), slice(-40, None)
    np.savez(
        path,
        x_train=images[train],
        y_train=digits.target[train],
        x_test=images[test],
        y_test=digits.target[test],
    )


def _press_when_half_done(study_url: str) -> None:
    names: list[str] = []
    while not names:
        time.sleep(0.02)
        names = [study.name for study in list_studies(study_url) if "-confirm-" in study.name]
    # Opened once: opening it anew for each look takes longer than a training on a busy machine.
    engine = ListedEngine([], study_name=names[0], study_url=study_url)
    while not _is_half_done(engine.trials()):
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)
    engine.close()


def _is_half_done(trials: Sequence[TrialRecord]) -> bool:
    in_training = [trial for trial in trials if trial.state == "running" and len(trial.curve) < EPOCHS - 1]
    return bool(in_training) and "complete" in [trial.state for trial in trials]
