"""Owns reading MLflow's SQL tables directly, where its own calls take seconds for a thousand runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, column, select, table
from sqlalchemy.exc import SQLAlchemyError

from podium.stores import Stores
from podium.tracking.store import unreachable

RUNS = table(
    "runs",
    *(column(name) for name in ("run_uuid", "name", "status", "start_time", "end_time", "lifecycle_stage")),
)
PARAMETERS = table("params", *(column(name) for name in ("run_uuid", "key", "value")))
TAGS = table("tags", *(column(name) for name in ("run_uuid", "key", "value")))
LATEST = table("latest_metrics", *(column(name) for name in ("run_uuid", "key", "value", "is_nan")))
METRICS = table(
    "metrics", *(column(name) for name in ("run_uuid", "key", "step", "value", "timestamp", "is_nan"))
)
RUNS_A_QUERY = 500


def child_rows(stores: Stores, parent_id: str) -> list[dict[str, Any]]:
    """The active child runs of a parent: run_id, name, status, times, params.*, metrics.*, tags.*."""
    chosen = (
        select(RUNS.c.run_uuid)
        .join(TAGS, TAGS.c.run_uuid == RUNS.c.run_uuid)
        .where(
            TAGS.c.key == "mlflow.parentRunId", TAGS.c.value == parent_id, RUNS.c.lifecycle_stage == "active"
        )
    )
    rows: dict[str, dict[str, Any]] = {}
    with _connection(stores) as connection:
        for run in connection.execute(select(RUNS).where(RUNS.c.run_uuid.in_(chosen))):
            run_id, name, status, start_time, end_time, _ = run
            rows[run_id] = {
                "run_id": run_id,
                "name": name,
                "status": status,
                "start_time": start_time,
                "end_time": end_time,
            }
        for prefix, source in (("params", PARAMETERS), ("metrics", LATEST), ("tags", TAGS)):
            for run_id, key, value, *is_nan in connection.execute(
                select(source).where(source.c.run_uuid.in_(chosen))
            ):
                # A run that was made after the first of these queries is left to the next reader.
                if run_id in rows and not any(is_nan):
                    rows[run_id][f"{prefix}.{key}"] = value
    return list(rows.values())


def metric_rows(stores: Stores, run_ids: Sequence[str], names: Sequence[str]) -> list[dict[str, Any]]:
    """Finite metric values at steps above 0: run_id, metric, epoch, value, time (ms)."""
    rows: list[dict[str, Any]] = []
    with _connection(stores) as connection:
        for start in range(0, len(run_ids), RUNS_A_QUERY):
            query = select(
                METRICS.c.run_uuid.label("run_id"),
                METRICS.c.key.label("metric"),
                METRICS.c.step.label("epoch"),
                METRICS.c.value,
                METRICS.c.timestamp.label("time"),
                METRICS.c.is_nan,
            ).where(
                METRICS.c.run_uuid.in_(run_ids[start : start + RUNS_A_QUERY]),
                METRICS.c.key.in_(names),
                METRICS.c.step > 0,
            )
            rows += [dict(row) for row in connection.execute(query).mappings() if not row["is_nan"]]
    return rows


@contextmanager
def _connection(stores: Stores) -> Iterator[Connection]:
    engine = sqlalchemy.create_engine(stores.tracking_uri)
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise unreachable(stores, error) from error
    finally:
        engine.dispose()
