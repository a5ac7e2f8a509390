"""Owns the address of the study store: making its tables, opening and closing it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import sqlalchemy
from optuna.storages import RDBStorage

from podium.errors import InvalidInput
from podium.live import one_at_a_time
from podium.stores import redacted

IN_MEMORY = "sqlite:///:memory:"
BUSY_TIMEOUT_SECONDS = 60


def prepare_storage(study_url: str) -> None:
    """Make the tables, once, before other processes or threads open the store; SQLite gets WAL mode.

    Raises: InvalidInput if the address is wrong, or the store cannot be opened or is another version's.
    """
    if study_url == IN_MEMORY:
        return
    with _alone(study_url), opened(study_url, create=True) as storage:
        if storage.engine.dialect.name == "sqlite":
            with storage.engine.connect() as connection:
                connection.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))


@contextmanager
def _alone(study_url: str) -> Iterator[None]:
    """Two processes that make one file's tables at once fail; a server's database is made by one person."""
    try:
        url = sqlalchemy.make_url(study_url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        yield  # connecting says what is wrong with it
        return
    if url.get_backend_name() != "sqlite" or not url.database or not Path(url.database).parent.is_dir():
        yield
        return
    with one_at_a_time(Path(f"{url.database}.lock")):
        yield


def is_there(study_url: str) -> bool:
    """Whether there can be a store: opening an SQLite file that is missing would make it."""
    if study_url == IN_MEMORY:
        return False
    try:
        url = sqlalchemy.make_url(study_url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return True  # connecting says what is wrong with it
    return url.get_backend_name() != "sqlite" or Path(url.database or "").is_file()


def connect(study_url: str, *, create: bool = False) -> RDBStorage:
    """Optuna's storage, without the heartbeats that one coordinator does not need; `create` makes the tables.

    Raises: InvalidInput if the address is wrong, or the store cannot be opened or is another version's.
    """
    is_sqlite = study_url.startswith("sqlite")
    arguments = {"connect_args": {"timeout": BUSY_TIMEOUT_SECONDS}} if is_sqlite else {}
    try:
        return RDBStorage(study_url, engine_kwargs=arguments, skip_table_creation=not create)
    except (
        sqlalchemy.exc.SQLAlchemyError,
        optuna.exceptions.OptunaError,
        ImportError,
        RuntimeError,
        ValueError,
    ) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InvalidInput(
            f"the study store {redacted(study_url)} cannot be used: {redacted(reason)}",
            remedy="Set PODIUM_STUDY_URL to an SQLAlchemy URL that works, or unset it for mlruns/studies.db.",
        ) from error


@contextmanager
def opened(study_url: str, *, create: bool = False) -> Iterator[RDBStorage]:
    """The storage, closed afterwards."""
    storage = connect(study_url, create=create)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()
