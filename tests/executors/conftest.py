"""Puts toy_trainers.py, one folder up, within reach; makes local executors and closes them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from podium.executors.local import LocalExecutor

sys.path.insert(0, str(Path(__file__).parent.parent))


@pytest.fixture
def make_local(tmp_path: Path) -> Iterator[Callable[..., LocalExecutor]]:
    """A function that makes a LocalExecutor of the toy trainer, with other settings by name."""
    from toy_trainers import FOLDER, TOY

    made: list[LocalExecutor] = []

    def build(workers: int = 1, **settings: Any) -> LocalExecutor:
        settings = {"trainer": TOY, "threads": 1, "paths": [FOLDER], **settings}
        made.append(LocalExecutor(workers=workers, log_folder=tmp_path / "logs", **settings))
        return made[-1]

    yield build
    for executor in made:
        executor.close()
