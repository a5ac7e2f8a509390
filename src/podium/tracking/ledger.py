"""Owns the ledger: every look at a test set, on record before it is taken, never changed after."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy
from sqlalchemy import Column, Connection, ForeignKey, Integer, MetaData, Row, String, Table, Text, select
from sqlalchemy.exc import SQLAlchemyError

from podium.errors import PodiumError, Refused
from podium.stores import Stores, redacted

METADATA = MetaData()
LOOKS = Table(
    "podium_test_looks",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("test_digest", String(64), nullable=False, index=True),
    Column("model_sha256", String(64), nullable=False),
    Column("sweep", String(255), nullable=False),
    Column("looked_at", String(40), nullable=False),
    Column("why", Text, nullable=False),
)
RESULTS = Table(
    "podium_test_results",
    METADATA,
    # One result a look: the key refuses a second one.
    Column("look", Integer, ForeignKey(LOOKS.c.id), primary_key=True),
    Column("recorded_at", String(40), nullable=False),
    Column("result", Text, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at a test set. `looked_at` is UTC, ISO 8601; `result` is None if it was never recorded."""

    id: int
    test_digest: str
    model_sha256: str
    sweep: str
    looked_at: str
    why: str
    result: Mapping[str, Any] | None


class Ledger:
    """Looks at test sets, in two append-only tables of the study store."""

    def __init__(self, stores: Stores) -> None:
        self._address = redacted(stores.study_url)
        # Two promotions at once must not both be the first.
        self._engine = sqlalchemy.create_engine(stores.study_url, isolation_level="SERIALIZABLE")
        with self._connection() as connection:
            METADATA.create_all(connection)

    def close(self) -> None:
        """Let go of the store."""
        self._engine.dispose()

    def intend(
        self, *, test_digest: str, model_sha256: str, sweep: str, why: str, again: str | None = None
    ) -> int:
        """Put a look on record before it is taken; answers its id. It counts from now on.

        `again` says why another look for the same sweep is worth it. Raises: Refused if it is None and
        the sweep has looked at this test set before.
        """
        reason = f"{why}; again: {again}" if again else why
        with self._connection() as connection:
            # The new row comes first: it takes the write lock, so nobody gets in between.
            inserted = connection.execute(
                LOOKS.insert().values(
                    test_digest=test_digest,
                    model_sha256=model_sha256,
                    sweep=sweep,
                    looked_at=_now(),
                    why=reason,
                )
            )
            key = inserted.inserted_primary_key
            assert key is not None
            look = int(key[0])
            earlier = [each for each in _looks(connection, test_digest, sweep) if each.id != look]
            if earlier and not again:
                raise Refused(
                    f"sweep '{sweep}' has looked at this test set {_times(len(earlier))}, "
                    f"last at {earlier[-1].looked_at} ({earlier[-1].why}).",
                    remedy='If another look is worth it, say why: --again "WHY". The count is shown on the card.',
                )
        return look

    def record(self, look: int, result: Mapping[str, Any]) -> None:
        """Put the result of a look on record, once. Raises: PodiumError if it has one already."""
        with self._connection() as connection:
            connection.execute(
                RESULTS.insert().values(
                    look=look, recorded_at=_now(), result=json.dumps(result, sort_keys=True)
                )
            )

    def find(self, *, test_digest: str, model_sha256: str) -> Look | None:
        """The latest look with a result of this model at this test set, None if there is none."""
        with self._connection() as connection:
            found = [
                look
                for look in _looks(connection, test_digest, None)
                if look.model_sha256 == model_sha256 and look.result is not None
            ]
        return found[-1] if found else None

    def count(self, *, test_digest: str, sweep: str) -> int:
        """How often a sweep has looked at a test set; a look without a result counts."""
        return len(self.looks(test_digest=test_digest, sweep=sweep))

    def looks(self, *, test_digest: str, sweep: str | None = None) -> list[Look]:
        """All looks at a test set, oldest first, of one sweep or of all."""
        with self._connection() as connection:
            return _looks(connection, test_digest, sweep)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            reason = redacted(str(error.__cause__ or error).splitlines()[0])
            raise PodiumError(f"the test ledger in {self._address} cannot be used: {reason}") from error


def _looks(connection: Connection, test_digest: str, sweep: str | None) -> list[Look]:
    query = (
        select(LOOKS, RESULTS.c.result)
        .join(RESULTS, RESULTS.c.look == LOOKS.c.id, isouter=True)
        .where(LOOKS.c.test_digest == test_digest)
        .order_by(LOOKS.c.id)
    )
    if sweep is not None:
        query = query.where(LOOKS.c.sweep == sweep)
    return [_look(row) for row in connection.execute(query)]


def _look(row: Row[Any]) -> Look:
    content = dict(row._mapping)
    result = content.pop("result")
    return Look(**content, result=None if result is None else json.loads(result))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
