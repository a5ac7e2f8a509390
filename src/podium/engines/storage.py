"""Owns the address of the study store: making its tables, opening and closing it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy.orm import scoped_session, sessionmaker

from podium.engines.patient_storage import PatientStorage
from podium.engines.study_lock import StudyAway, alone_with_tables, leading_engine
from podium.errors import InvalidInput, install
from podium.live import one_at_a_time
from podium.stores import redacted

IN_MEMORY = "sqlite:///:memory:"
BUSY_TIMEOUT_SECONDS = 60
SQLITE, POSTGRESQL = "sqlite", "postgresql"
# A server that does not answer at all is noticed, now and in the middle of a sweep.
CONNECTION = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


def prepare_storage(study_url: str) -> None:
    """Make the tables, once, before other processes or threads open the store; SQLite gets WAL mode.

    Raises: InvalidInput if the address is wrong, or the store cannot be opened or is another version's.
    """
    if study_url == IN_MEMORY:
        return
    with _alone(study_url), opened(study_url, create=True) as storage:
        if storage.engine.dialect.name == SQLITE:
            with storage.engine.connect() as connection:
                connection.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))


@contextmanager
def _alone(study_url: str) -> Iterator[None]:
    """Two processes that make one store's tables at once fail."""
    url = _parsed(study_url)
    if url is not None and url.get_backend_name() == POSTGRESQL:
        with _explained(study_url), alone_with_tables(study_url):
            yield
    elif url is None or url.get_backend_name() != SQLITE or not Path(url.database or "").parent.is_dir():
        yield
    else:
        with one_at_a_time(Path(f"{url.database}.lock")):
            yield


def is_there(study_url: str) -> bool:
    """Whether there is a store: opening an SQLite file that is missing would make it, and a new database, or a file that
    only the test ledger was written to, has no tables of it.

    Raises: InvalidInput if a server cannot be asked, or a file is no database.
    """
    url = None if study_url == IN_MEMORY else _parsed(study_url)
    if url is None:
        return study_url != IN_MEMORY  # connecting says what is wrong with it
    if url.get_backend_name() == SQLITE and not Path(url.database or "").is_file():
        return False
    with _explained(study_url):
        engine = sqlalchemy.create_engine(url, connect_args=_arguments(url), poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            # The last that is made: a maker that was killed has left it out.
            if not sqlalchemy.inspect(connection).has_table("alembic_version"):
                return False
            return connection.execute(sqlalchemy.text("SELECT 1 FROM alembic_version")).first() is not None


def connect(study_url: str, *, create: bool = False) -> RDBStorage:
    """Optuna's storage, without the heartbeats that one coordinator does not need; `create` makes the tables.

    Raises: InvalidInput if the address is wrong, or the store cannot be opened or is another version's.
    """
    url = _parsed(study_url)
    with _explained(study_url):
        arguments = {"connect_args": _arguments(url)} if url is not None else {}
        return RDBStorage(study_url, engine_kwargs=arguments, skip_table_creation=not create)


def lead(study_url: str, study: str) -> BaseStorage:
    """The storage for the one process that may write a study.

    In PostgreSQL it holds the study's lock, and a server that goes away is waited for. SQLite's are the file's.
    Raises: InvalidInput as `connect`, or if another process holds the lock.
    """
    url = _parsed(study_url)
    if url is None or url.get_backend_name() != POSTGRESQL:
        return get_storage(connect(study_url))
    with _explained(study_url):
        storage = connect(study_url)
        storage.engine.dispose()
        storage.engine = leading_engine(url, study, _arguments(url))
        storage.scoped_session = scoped_session(sessionmaker(bind=storage.engine))
    return PatientStorage(get_storage(storage))


def _parsed(study_url: str) -> sqlalchemy.URL | None:
    try:
        return sqlalchemy.make_url(study_url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return None


def _arguments(url: sqlalchemy.URL) -> dict[str, Any]:
    """What the driver is told besides the address, which has the last word."""
    if url.get_backend_name() == SQLITE:
        return {"timeout": BUSY_TIMEOUT_SECONDS}
    known = CONNECTION if url.get_backend_name() == POSTGRESQL else {}
    return {name: value for name, value in known.items() if name not in url.query}


@contextmanager
def _explained(study_url: str) -> Iterator[None]:
    """Says which store cannot be opened, and what to do."""
    try:
        yield
    except (
        sqlalchemy.exc.SQLAlchemyError,
        optuna.exceptions.OptunaError,
        StudyAway,
        ImportError,
        RuntimeError,
        ValueError,
    ) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        remedy = "Set PODIUM_STUDY_URL to an SQLAlchemy URL that works, or unset it for mlruns/studies.db."
        if isinstance(error, ImportError) and study_url.startswith(POSTGRESQL):
            remedy = f"{install('postgres')} Addresses start with postgresql+psycopg://."
        raise InvalidInput(
            f"the study store {redacted(study_url)} cannot be used: {redacted(reason)}", remedy=remedy
        ) from error


def close(storage: BaseStorage) -> None:
    """Give the connections back, and the lock with them."""
    if isinstance(storage, PatientStorage):
        storage = storage.inner
    backend = getattr(storage, "_backend", storage)
    if isinstance(backend, RDBStorage):
        backend.remove_session()
        backend.engine.dispose()


@contextmanager
def opened(study_url: str, *, create: bool = False) -> Iterator[RDBStorage]:
    """The storage, closed afterwards."""
    storage = connect(study_url, create=create)
    try:
        yield storage
    finally:
        close(storage)
