"""Owns the way to MLflow's store: creating it whole, opening a client, telling 'away' from 'refused'."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.store.db import utils as mlflow_database
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from podium.errors import PodiumError
from podium.live import one_at_a_time
from podium.stores import Stores, redacted, restrain_mlflow

Given = ParamSpec("Given")
Answer = TypeVar("Answer")
# What MLflow answers when the request itself is wrong: sending it again changes nothing.
REFUSALS = frozenset(
    {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
)


def prepare_store(stores: Stores) -> None:
    """Create or migrate the tracking store, once, before anything else opens it.

    A SQLite store appears whole or not at all, in WAL mode, so that readers do not hold up the writer.
    Raises: PodiumError if the store cannot be opened.
    """
    restrain_mlflow()
    # MLflow logs a traceback for each busy database; Podium retries and reports by itself.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        file = stores.tracking_file
        if file is None:
            open_client(stores).search_experiments(max_results=1)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(file.with_name(f"{file.name}.lock")):
            if not file.exists():
                _create(file, stores)
            else:
                _migrate(file, stores)
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise unreachable(stores, error) from error


def schema_is_current(stores: Stores) -> bool | None:
    """Whether the store's tables are those of this MLflow; None if there are none yet. A server looks after its own.

    Raises: PodiumError if the store cannot be reached.
    """
    restrain_mlflow()
    try:
        if is_server(stores):
            open_client(stores).search_experiments(max_results=1)
            return True
        if stores.tracking_file is not None and not stores.tracking_file.exists():
            return None
        database: Any = mlflow_database
        engine = sqlalchemy.create_engine(stores.tracking_uri)
        try:
            revision = database._get_schema_version(engine)
            return None if revision is None else bool(revision == database._get_latest_schema_revision())
        finally:
            engine.dispose()
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        raise unreachable(stores, error) from error


def open_client(stores: Stores) -> MlflowClient:
    """A client of the tracking store and its registry.

    Raises: FileNotFoundError if a SQLite store's file is not there (MLflow would make an empty one);
    PodiumError if its driver is not.
    """
    file = stores.tracking_file
    if file is not None and not file.exists():
        raise FileNotFoundError(2, "the tracking store's file is not there", str(file))
    try:
        return MlflowClient(stores.tracking_uri, registry_uri=stores.tracking_uri)
    except ImportError as error:  # the address is a database's whose driver is not installed
        raise unreachable(stores, error) from error


def experiment_id(client: MlflowClient, stores: Stores, name: str) -> str:
    """The experiment's id; makes the experiment if there is none. Raises: PodiumError if it is deleted."""
    found = client.get_experiment_by_name(name)
    if found is None:
        location = f"{stores.artifact_uri}/{name}" if stores.artifact_uri else None
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            # Somebody else was first, or our own answer was lost on the way.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise error from None
    if found.lifecycle_stage != "active":
        raise PodiumError(
            f"MLflow's experiment '{name}' is deleted.",
            remedy=f"Restore it: mlflow experiments restore --experiment-id {found.experiment_id}",
        )
    return str(found.experiment_id)


def is_away(error: Exception) -> bool:
    """Whether the store, not the request, is at fault, so that the same request may succeed later."""
    if isinstance(error, MlflowException):
        return error.error_code not in REFUSALS
    return isinstance(error, OSError | SQLAlchemyError)


def unreachable(stores: Stores, error: Exception) -> PodiumError:
    """The error that says that the tracking store cannot be used, without its secrets."""
    return PodiumError(
        f"The tracking store {redacted(stores.tracking_uri)} cannot be used: {first_line(error)}",
        remedy="Start it, or correct MLFLOW_TRACKING_URI; `podium doctor` looks at the stores.",
    )


def says_if_away(
    function: Callable[Concatenate[Stores, Given], Answer],
) -> Callable[Concatenate[Stores, Given], Answer]:
    """Have a function of a store raise PodiumError, as `unreachable` makes it, where the store is away."""

    @functools.wraps(function)
    def call(stores: Stores, /, *given: Given.args, **named: Given.kwargs) -> Answer:
        try:
            return function(stores, *given, **named)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            if not is_away(error):
                raise
            raise unreachable(stores, error) from error

    return call


def first_line(error: BaseException) -> str:
    """An error's first line, without secrets."""
    text = str(error).strip() or type(error).__name__
    return redacted(text.splitlines()[0])[:500]


def is_server(stores: Stores) -> bool:
    """Whether the tracking store is an MLflow server, not a database."""
    return stores.tracking_uri.startswith(("http://", "https://"))


def _create(file: Path, stores: Stores) -> None:
    """Make the store under another name and rename it, so that a killed creation leaves no half a store."""
    folder = file.with_name(f".{file.name}.{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        new = folder / file.name
        root = stores.artifact_uri or (file.parent / "artifacts").as_uri()
        with _quiet("mlflow.store.db.utils"):
            store: Any = SqlAlchemyStore
            store(f"sqlite:///{new}", root).engine.dispose()
        _use_write_ahead_log(new)
        new.replace(file)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _migrate(file: Path, stores: Stores) -> None:
    # What `mlflow db upgrade` calls; it has no types.
    database: Any = mlflow_database
    engine = sqlalchemy.create_engine(stores.tracking_uri)
    try:
        revision = database._get_schema_version(engine)
        if revision != database._get_latest_schema_revision():
            with (
                closing(sqlite3.connect(file)) as old,
                closing(sqlite3.connect(_backup(file, revision))) as copy,
            ):
                old.backup(copy)
            database._upgrade_db(engine)
    finally:
        engine.dispose()
    _use_write_ahead_log(file)


def _backup(file: Path, revision: str | None) -> Path:
    return file.with_name(f"{file.name}.before-{revision or 'unknown'}")


def _use_write_ahead_log(file: Path) -> None:
    with closing(sqlite3.connect(file, timeout=30)) as database:
        database.execute("PRAGMA journal_mode=WAL")


@contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
