"""Owns the images of the benchmarks: the same ones for Podium's arms and for those that do not know Podium."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from podium.datasets.prepare import prepare
from podium.datasets.splits import split
from podium.recipe import Recipe
from podium.result import TrainingArrays
from podium.stores import dataset_cache

PEERS = Path(__file__).parent / "peers"


def arrays_of(recipe: Recipe) -> TrainingArrays:
    """The training arrays of a recipe's data."""
    cache = dataset_cache()
    return split(prepare(recipe.data, cache=cache), recipe.data, cache=cache)


def for_peers(arrays: TrainingArrays, folder: Path) -> Path:
    """The same images as one npz file: x_train, y_train, x_val, y_val."""
    path = folder / f"{arrays.split_digest[:16]}.npz"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = np.load(arrays.images, mmap_mode="r"), np.load(arrays.labels, mmap_mode="r")
    with np.load(arrays.split) as parts:
        train, validation = parts["train"], parts["validation"]
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        np.savez(
            file,
            x_train=images[train],
            y_train=labels[train],
            x_val=images[validation],
            y_val=labels[validation],
        )
    return temporary.replace(path)


def peer(script: str, *arguments: object, python: str = sys.executable) -> list[dict[str, Any]]:
    """Run a script of peers/ in a process of its own; answers the JSON objects that it printed.

    Raises: CalledProcessError if it fails, its errors shown.
    """
    command: Sequence[str] = [python, str(PEERS / script), *map(str, arguments)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
