"""Owns the rule of one coordinator a study where the store is PostgreSQL: who writes holds the study's lock."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from sqlalchemy import event

from podium.errors import InvalidInput, SweepError

# The server may take a moment to see that a killed holder is gone.
LOOK_SECONDS = 2.0
LONGEST_NAME = 63
TABLES = "tables"
# A holder whose machine vanished is given up by the server after some two minutes, not after two hours.
KEEPALIVES = {"tcp_keepalives_idle": 60, "tcp_keepalives_interval": 15, "tcp_keepalives_count": 4}
_TRY = "SELECT pg_try_advisory_lock(%s)"
_HOLDER = (
    "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) "
    "WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND (classid::bigint << 32) + objid::bigint = %s"
)


class StudyAway(Exception):
    """The store's server does not answer at the moment; the same call may succeed later."""


def leading_engine(url: sqlalchemy.URL, study: str, arguments: Mapping[str, Any]) -> sqlalchemy.Engine:
    """An engine whose only connection holds the study's lock, and so does each that replaces a lost one.

    So nothing is ever written without the lock, and it is free as soon as its holder is gone. `arguments` are the
    driver's.
    Raises: InvalidInput if another process holds the lock. Later, its connections raise StudyAway while the
    server is away, and SweepError if another process took the lock meanwhile.
    """
    # What the server calls a connection of this process; no other process has the same.
    name = f"podium {os.getpid()} {secrets.token_hex(4)} {socket.gethostname()}"[:LONGEST_NAME]
    named = {**arguments, "application_name": name}
    engine = sqlalchemy.create_engine(url, connect_args=named, pool_size=1, max_overflow=0)
    key = _key(f"study {study}")
    held_before: list[bool] = []

    def take(connection: Any, _: object) -> None:
        with _closed_on_error(connection), connection.cursor() as cursor:
            for setting, value in KEEPALIVES.items():
                cursor.execute(f"SET {setting} = {value}")
            deadline = time.monotonic() + LOOK_SECONDS
            while not cursor.execute(_TRY, (key,)).fetchone()[0]:
                if time.monotonic() > deadline:
                    row = cursor.execute(_HOLDER, (key,)).fetchone()
                    # Of one that is just gone, nothing is known any more.
                    raise _refusal(study, str(row[0]) if row else name, name, again=bool(held_before))
                time.sleep(0.02)
            connection.commit()

    event.listen(engine, "connect", take)
    event.listen(engine, "handle_error", _tell_away)
    try:
        with engine.connect():
            held_before.append(True)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def alone_with_tables(study_url: str) -> Iterator[None]:
    """Wait until no other process makes the store's tables."""
    engine = sqlalchemy.create_engine(study_url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_lock(_key(TABLES))))
        yield


def _refusal(study: str, holder: str, name: str, *, again: bool) -> Exception:
    if again and holder == name:
        return StudyAway("the server still waits for the connection that was lost")
    _, process, _, machine = [*holder.split(" ", 3), *[""] * 4][:4]
    known = holder.startswith("podium ") and holder != name
    who = f"process {process} on {machine}" if known else "another process"
    if again:
        return SweepError(
            f"{who} took up the sweep {study} while the study store was away.",
            remedy="Leave it to that process, or end it there first.",
        )
    return InvalidInput(
        f"the sweep {study} is running already ({who}).",
        remedy=f"There, watch it with `podium status {study}`, or end it with `podium stop {study}`.",
    )


def _tell_away(context: Any) -> None:
    """Have a lost connection be told from a wrong request: Optuna would try some of these again, blindly."""
    error = context.original_exception
    state = getattr(error, "sqlstate", None)
    kind = isinstance(context.sqlalchemy_exception, sqlalchemy.exc.OperationalError)
    # 08: connections; 57P: shut down, crashed, starting; 53300: too many connections.
    away = kind and (state is None or state.startswith(("08", "57P", "53300")))
    if context.is_disconnect or away:
        context.is_disconnect = True
        raise StudyAway(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)


@contextmanager
def _closed_on_error(connection: Any) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _key(name: str) -> int:
    """The lock's number: 64 bits with a sign."""
    digest = hashlib.sha256(f"podium {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
