from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import study_stores
from sweep_world import World, local_executor, new_stores, stores_in

from podium.executors.local import LocalExecutor
from podium.stores import Stores
from podium.tracking.runs import prepare_store


@pytest.fixture(scope="session")
def empty_stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    """New stores; making them takes seconds, copying them does not."""
    stores = stores_in(tmp_path_factory.mktemp("template"))
    prepare_store(stores)
    return stores


@pytest.fixture
def stores(tmp_path: Path, empty_stores: Stores) -> Iterator[Stores]:
    yield new_stores(tmp_path / "mlruns", empty_stores.root)
    study_stores.drop(tmp_path / "mlruns")


@pytest.fixture
def make_world(stores: Stores) -> Callable[..., World]:
    return lambda **settings: World(stores, **settings)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


@pytest.fixture(scope="session")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalExecutor]:
    """Shared: a start leaves its workers free or replaced, whatever happens in it."""
    executor = local_executor(tmp_path_factory.mktemp("logs"), 2)
    yield executor
    executor.close()


@pytest.fixture
def make_executor(tmp_path: Path) -> Iterator[Callable[..., LocalExecutor]]:
    made: list[LocalExecutor] = []

    def make(workers: int = 1, **settings: Any) -> LocalExecutor:
        made.append(local_executor(tmp_path / "logs", workers, **settings))
        return made[-1]

    yield make
    for executor in made:
        executor.close()
