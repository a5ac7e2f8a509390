from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tracking_records import stores_in

from podium.stores import Stores
from podium.tracking.runs import Recorder, prepare_store


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new tracking store's file; making one takes seconds, copying it does not."""
    stores = stores_in(tmp_path_factory.mktemp("template"))
    prepare_store(stores)
    return stores.root / "mlflow.db"


@pytest.fixture
def stores(tmp_path: Path, empty_store: Path) -> Stores:
    stores = stores_in(tmp_path / "mlruns")
    shutil.copyfile(empty_store, stores.root / "mlflow.db")
    return stores


@pytest.fixture
def make_recorder(stores: Stores, tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    made: list[Recorder] = []

    def make(*, spool: bool = True, limit: int = 100_000) -> Recorder:
        folder = tmp_path / "spool" if spool else None
        recorder = Recorder(stores, experiment="digits", spool_folder=folder, limit=limit)
        made.append(recorder)
        return recorder

    yield make
    for recorder in made:
        recorder.close()


@pytest.fixture
def recorder(make_recorder: Callable[..., Recorder]) -> Recorder:
    return make_recorder()
