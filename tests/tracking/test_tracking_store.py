from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import _get_alembic_config, _get_latest_schema_revision
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialTables
from tracking_records import rows, stores_in

from podium.errors import PodiumError
from podium.stores import Stores
from podium.tracking.runs import prepare_store
from podium.tracking.store import open_client

pytestmark = pytest.mark.slow


@pytest.fixture
def stores(sqlite_stores: Stores) -> Stores:
    return sqlite_stores


def test_a_new_store_is_whole_in_wal_mode_and_leaves_nothing_else(empty_store: Path) -> None:
    with closing(sqlite3.connect(empty_store)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    left = {path.name for path in empty_store.parent.iterdir()} - {"mlflow.db-wal", "mlflow.db-shm"}
    assert left == {"mlflow.db", "mlflow.db.lock"}


def test_preparing_again_changes_nothing_and_telemetry_and_pickles_are_off(stores: Stores) -> None:
    prepare_store(stores)
    experiment = open_client(stores).create_experiment("digits", artifact_location=stores.artifact_uri)
    prepare_store(stores)
    assert open_client(stores).get_experiment(experiment).name == "digits"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


def test_an_older_store_is_migrated_and_a_copy_of_it_is_kept(tmp_path: Path) -> None:
    stores = stores_in(tmp_path)
    config = _get_alembic_config(stores.tracking_uri)
    scripts = ScriptDirectory.from_config(config)
    before = str(scripts.get_revision(_get_latest_schema_revision()).down_revision)
    engine = sqlalchemy.create_engine(stores.tracking_uri)
    InitialTables.metadata.create_all(engine)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, before)
    engine.dispose()
    prepare_store(stores)
    assert rows(stores, "select version_num from alembic_version") == [(_get_latest_schema_revision(),)]
    assert open_client(stores).search_experiments()
    with closing(sqlite3.connect(tmp_path / f"mlflow.db.before-{before}")) as copy:
        assert copy.execute("select version_num from alembic_version").fetchall() == [(before,)]


def test_a_store_that_cannot_be_opened_is_one_error_without_its_password(tmp_path: Path) -> None:
    server = replace(stores_in(tmp_path), tracking_uri="http://anna:geheim@127.0.0.1:9")
    with pytest.raises(PodiumError, match="cannot be used") as away:
        prepare_store(server)
    assert "geheim" not in str(away.value)
    (tmp_path / "mlflow.db").write_text("this is no database, and never was one, whatever its name may say")
    with pytest.raises(PodiumError, match="cannot be used"):
        prepare_store(stores_in(tmp_path))
    shutil.rmtree(tmp_path)
