"""Stores for the tracking tests: a SQLite file, and a server over HTTP that asks for a password."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from mlflow_server import Server, serving
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
def sqlite_stores(tmp_path: Path, empty_store: Path) -> Stores:
    stores = stores_in(tmp_path / "mlruns")
    shutil.copyfile(empty_store, stores.root / "mlflow.db")
    return stores


@pytest.fixture(scope="session")
def running_server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("server")
    shutil.copyfile(empty_store, root / "mlflow.db")
    with serving(root) as server:
        yield server


@pytest.fixture
def server(running_server: Server) -> Server:
    """The one server of all tests, empty again."""
    running_server.empty()
    return running_server


@pytest.fixture(params=["sqlite", "http"])
def stores(request: pytest.FixtureRequest) -> Stores:
    """Either store; `stores.root / "mlflow.db"` is its database in both cases."""
    if request.param == "sqlite":
        found: Stores = request.getfixturevalue("sqlite_stores")
        return found
    served: Server = request.getfixturevalue("server")
    return served.stores()


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
