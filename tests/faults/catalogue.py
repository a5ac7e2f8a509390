"""Owns the list of faults by name, and how many rounds of each are planned."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras_rounds
import kill_points
import kill_rounds
import promotion_rounds
import store_rounds
import study_stores
from real_training import Ended, RealPlace
from servers import Postgres
from sweep_start import Place

Round = Callable[[Place, random.Random], list[str]]
# The kernel counts its kills for the whole machine, so another round's SIGKILL would be taken for one.
ALONE = "out of memory, killed"
RANDOM_KILLS = "SIGKILL at random moments"
REAL_KILLS = "real trainings killed"
SHORT_SECONDS, LONG_SECONDS = 2.0, 30.0


@dataclass(frozen=True)
class Planned:
    """One round: `name` and `seed` say all about it, but for the moment at which the machine does things."""

    name: str
    seed: int


def named_points() -> dict[str, Round]:
    """Rounds that kill at a point."""
    sweep = {point: partial(kill_rounds.at_sweep_point, point=point) for point in kill_points.SWEEP_POINTS}
    worker = {point: partial(kill_rounds.at_worker_point, point=point) for point in kill_points.WORKER_POINTS}
    return {**sweep, **worker}


def other_faults(*, long: bool) -> dict[str, Round]:
    """All other rounds but those that need a server."""
    seconds = LONG_SECONDS if long else SHORT_SECONDS
    faults: dict[str, Round] = {"SIGKILL while the stores are made": kill_rounds.while_stores_are_made}
    for number in (signal.SIGTERM, signal.SIGINT):
        for twice in (False, True):
            name = f"{number.name}{' twice' * twice}"
            faults[name] = partial(kill_rounds.signalled, number=number, twice=twice)
    return faults | {
        "SIGSTOP of a worker, then SIGCONT": kill_rounds.worker_stopped,
        "SIGSTOP of the coordinator and a second start": kill_rounds.coordinator_stopped,
        "disk full": store_rounds.disk_full,
        "file size limit": store_rounds.quota_reached,
        "study locked": partial(store_rounds.database_locked, file="studies.db", seconds=seconds),
        "MLflow database locked": partial(store_rounds.database_locked, file="mlflow.db", seconds=seconds),
        "out of memory, exception": partial(store_rounds.training_fails, do="memory"),
        ALONE: store_rounds.memory_kill,
        "NaN": partial(store_rounds.training_fails, do="nan"),
        "checkpoints cut or altered": store_rounds.checkpoint_damaged,
        "clock steps back": store_rounds.clock_steps_back,
    }


def server_faults(server: tuple[int, Path] | None, *, long: bool) -> dict[str, Round]:
    """Rounds before a real MLflow server: its port and its database."""
    kinds = {"down": "MLflow down", "slow": "MLflow slow", "error": "MLflow answers 500"}
    kinds["drop"] = "MLflow commits and drops the answer"
    seconds, place = (4.0 if long else 1.5), server or (0, Path())
    faults: dict[str, Round] = {
        name: partial(store_rounds.tracking_away, doing=doing, server=place, seconds=seconds)
        for doing, name in kinds.items()
    }
    return {**faults, "MLflow down to the end": partial(store_rounds.tracking_away_at_the_end, server=place)}


def study_server_faults(cluster: Postgres | None) -> dict[str, Round]:
    """Rounds about a study in PostgreSQL, where there is a server; `cluster` is one to copy."""
    if study_stores.server() is None:
        return {}
    return {
        "PostgreSQL crashes": partial(store_rounds.study_server_crashes, cluster=cluster),
        "PostgreSQL and MLflow crash": partial(store_rounds.both_servers_crash, cluster=cluster),
        "PostgreSQL: a second start elsewhere": store_rounds.start_elsewhere,
    }


def promotion_points(before: tuple[RealPlace, RealPlace] | None) -> dict[str, Round]:
    """Rounds that kill a promotion: of trained runs, and of such where one is the champion already."""
    return {
        f"promote: {point}": partial(promotion_rounds.killed, point=point, before=before)
        for point in kill_points.PROMOTE_POINTS
    }


def real_trainings(expected: list[Ended] | None) -> dict[str, Round]:
    """Rounds with Keras: what the undisturbed sweep came to."""
    return {REAL_KILLS: partial(keras_rounds.killed, expected=expected or [])}
