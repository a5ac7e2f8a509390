"""Fixtures over a cache of their own and arrays made on the fly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podium.datasets.prepare import Dataset, prepare
from podium.recipe_sections import DataSettings


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def prepared(cache: Path) -> Callable[..., Dataset]:
    def run(reference: str, **settings: Any) -> Dataset:
        return prepare(DataSettings(reference=reference, **settings), cache=cache)

    return run


@pytest.fixture
def arrays_file(tmp_path: Path) -> Callable[..., str]:
    """Save arrays over valid ones (40 shuffled training, 10 test images, 3 classes); None leaves one out."""

    def save(**changes: Any) -> str:
        rng = np.random.default_rng(0)
        arrays: dict[str, Any] = {
            "x_train": rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8),
            "y_train": rng.permutation(np.arange(40) % 3),
            "x_test": rng.integers(0, 256, (10, 8, 8, 3), dtype=np.uint8),
            "y_test": np.arange(10) % 3,
        }
        arrays.update(changes)
        np.savez(tmp_path / "arrays.npz", **{k: v for k, v in arrays.items() if v is not None})
        return f"npz:{tmp_path / 'arrays.npz'}"

    return save
