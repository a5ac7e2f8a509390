"""Owns rounds in which stores, disks, memory, numbers, checkpoints or clocks fail."""

from __future__ import annotations

import datetime
import os
import random
import re
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import invariants
import outages
from records import read_study
from servers import Postgres
from sweep_start import EPOCHS, TRIALS, Place, Start, until

SLOW_EPOCH_SECONDS = 0.15
NAMED = re.compile(r"space|disk is full|database or disk|disk I/O|[Qq]uota|too large", re.IGNORECASE)
HOUR = 3600.0


def tracking_away(
    place: Place, chance: random.Random, doing: str, *, server: tuple[int, Path], seconds: float
) -> list[str]:
    """A real MLflow server behind a proxy that lets it down as soon as training has begun."""
    port, place.mlflow_file = server
    place.name = f"toys-{place.root.name}"
    place.rewrite()
    mode = place.root / "mode"
    with outages.proxy(port, mode, str(chance.random())) as proxy_port:
        place.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{proxy_port}"
        start = place.begin()
        _wait_for_training(place, start)
        outages.tell(mode, doing)
        time.sleep(chance.uniform(0.5, 1.0) * seconds)
        outages.tell(mode, "pass")
        start.wait()
        return invariants.at_the_end(place) + _in_one_attempt(place)


def tracking_away_at_the_end(place: Place, chance: random.Random, *, server: tuple[int, Path]) -> list[str]:
    """MLflow stays away for longer than a start waits for it; a later start delivers what was left."""
    port, place.mlflow_file = server
    place.name = f"toys-{place.root.name}"
    place.rewrite()
    mode = place.root / "mode"
    with outages.proxy(port, mode, str(chance.random())) as proxy_port:
        place.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{proxy_port}"
        place.delivery_seconds = 1.0
        place.order({}, seconds=0.6)  # long enough for the last trial to have its run before it ends
        start = place.begin()
        epochs = TRIALS * EPOCHS
        _wait_for_training(place, start, chance.choice((1, epochs // 2, epochs - 1, epochs)))
        outages.tell(mode, "down")
        start.wait()
        found = _in_one_attempt(place)
        outages.tell(mode, "pass")
        place.delivery_seconds = None
        place.go_on()
        return found + invariants.at_the_end(place)


def database_locked(place: Place, chance: random.Random, file: str, *, seconds: float) -> list[str]:
    """Another process holds a database; nothing fails, the sweep only takes longer."""
    start = place.begin()
    _wait_for_training(place, start, chance.randint(1, EPOCHS))
    on_server = file == "studies.db" and place.study_url is not None
    with (
        outages.tables_locked(place.study_url, seconds)
        if on_server
        else outages.locked(place.root / "mlruns" / file, seconds)
    ):
        start.wait(seconds + 120)
    return invariants.at_the_end(place) + _in_one_attempt(place)


def study_server_crashes(place: Place, chance: random.Random, *, cluster: Postgres | None) -> list[str]:
    """PostgreSQL is stopped without grace and started again, once or twice, at any moment of the training."""
    assert cluster is not None
    with outages.servers_of_its_own(place, cluster, with_mlflow=False) as (postgres, _):
        start = place.begin()
        for _ in range(chance.randint(1, 2)):
            _wait_for_training(place, start, len(place.traced("begin")) + chance.randint(1, 4))
            time.sleep(chance.uniform(0.0, SLOW_EPOCH_SECONDS))
            postgres.stop("immediate")
            time.sleep(chance.choice((0.0, 0.5, 1.5)))
            postgres.start()
        start.wait()
        return invariants.at_the_end(place) + _in_one_attempt(place)


def both_servers_crash(place: Place, chance: random.Random, *, cluster: Postgres | None) -> list[str]:
    """PostgreSQL is stopped without grace and the MLflow server on it killed; both come back, in any order."""
    assert cluster is not None
    with outages.servers_of_its_own(place, cluster, with_mlflow=True) as (postgres, mlflow):
        start = place.begin()
        _wait_for_training(place, start, chance.randint(1, TRIALS * EPOCHS - 1))
        time.sleep(chance.uniform(0.0, SLOW_EPOCH_SECONDS))
        ends = [lambda: postgres.stop("immediate"), lambda: mlflow.stop(signal.SIGKILL)]
        for end in chance.sample(ends, 2):
            end()
        time.sleep(chance.uniform(0.0, 1.0))
        # MLflow does not start without its database.
        postgres.start()
        mlflow.start()
        start.wait()
        return invariants.at_the_end(place) + _in_one_attempt(place)


def start_elsewhere(place: Place, chance: random.Random) -> list[str]:
    """Another machine, which reaches the study and not this one's files, goes on with it while it runs here."""
    place.order({}, seconds=SLOW_EPOCH_SECONDS)
    start = place.begin()
    _wait_for_training(place, start, chance.randint(1, EPOCHS))
    start.signal(signal.SIGSTOP)
    elsewhere = Place(place.root / "elsewhere", environment=place.environment)
    elsewhere.root.mkdir()
    elsewhere.rewrite()
    elsewhere.order({})
    second = elsewhere.begin("--resume")
    code = second.wait()
    found = []
    if code != 2 or "is running already" not in second.said:
        found.append(
            f"I2: a second start elsewhere was not refused but ended with {code}: {second.said[-800:]}"
        )
    start.signal(signal.SIGCONT)
    start.wait()
    return found + invariants.at_the_end(place)


def disk_full(place: Place, chance: random.Random) -> list[str]:
    """A small disk fills up in the middle: a named error, then room is made."""
    place.delivery_seconds = 2.0
    with outages.small_disk(place.root / "mlruns", kilobytes=12_000):
        place.order({}, seconds=0.1)
        start = place.begin()
        _wait_for_training(place, start, chance.randint(1, TRIALS * EPOCHS - 2))
        ballast = outages.fill(place.root / "mlruns", leave_kilobytes=chance.choice((0, 0, 4, 40, 200)))
        found = _ended_by_disk(start)
        ballast.unlink()
        place.delivery_seconds = None
        found += invariants.between(place, closed=False)
        place.order({})
        place.go_on()
        return found + invariants.at_the_end(place)


def quota_reached(place: Place, chance: random.Random) -> list[str]:
    """No file may grow above a size, which SQLite and checkpoints meet as a full disk."""
    place.delivery_seconds = 2.0
    limit = chance.randint(960_000, 1_100_000)

    def arm() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    found = _ended_by_disk(place.begin(arm=arm))
    place.delivery_seconds = None
    found += invariants.between(place, closed=False)
    place.go_on()
    return found + invariants.at_the_end(place)


def training_fails(place: Place, chance: random.Random, do: str) -> list[str]:
    """A trial has no result by its own doing; the others have."""
    number = chance.randrange(TRIALS)
    place.order({str(number): {"do": do, "at": chance.randint(1, EPOCHS)}})
    place.begin().wait()
    return invariants.at_the_end(place, failed={do: 1})


def memory_kill(place: Place, chance: random.Random) -> list[str]:
    """The kernel kills a worker for want of memory, as far as a control group goes."""
    with outages.memory_group(f"podium-faults-{place.root.name}-{os.getpid()}", megabytes=100) as group:
        order = {"do": "eat", "at": chance.randint(1, EPOCHS), "group": str(group), "bytes": 300_000_000}
        place.order({str(chance.randrange(TRIALS)): order})
        place.begin().wait()
        return invariants.at_the_end(place, failed={"memory": 1})


def checkpoint_damaged(place: Place, chance: random.Random) -> list[str]:
    """What a killed start has saved is cut short or altered before the next."""
    place.order({}, seconds=0.1)
    start = place.begin()
    count = chance.randint(2, 6)
    until(lambda: start.poll() is not None or len(place.traced("saved")) >= count, 60)
    start.signal(signal.SIGKILL)
    start.wait()
    found = invariants.between(place, closed=False)
    folders = sorted((place.root / "mlruns" / "checkpoints").glob("*/trial-*/attempt-*"))
    for folder in folders:
        kept = sorted(folder.glob("checkpoint-*"))
        for checkpoint in kept[-chance.choice((1, 1, 2)) :]:
            outages.damage(checkpoint, chance)
    place.order({})
    place.go_on()
    return found + invariants.at_the_end(place)


def clock_steps_back(place: Place, chance: random.Random) -> list[str]:
    """The clock goes back by an hour at random calls, and the second start is an hour before the first."""
    seed = chance.random()
    start = place.begin(arm=lambda: _shift_clock(random.Random(seed), 0.0))
    _wait_for_training(place, start, chance.randint(1, TRIALS * EPOCHS))
    start.signal(signal.SIGKILL)
    start.wait()
    place.go_on(arm=lambda: _shift_clock(random.Random(seed), -HOUR))
    return invariants.at_the_end(place)


def _shift_clock(chance: random.Random, offset: float) -> None:
    """Wall clocks of this process, as every loaded module sees them; the monotonic one stays."""
    real, kind = time.time, datetime.datetime

    def now() -> float:
        nonlocal offset
        if chance.random() < 0.02:
            offset -= HOUR
        return real() + offset

    class Shifted(kind):  # type: ignore[valid-type,misc]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return kind.fromtimestamp(now(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return kind.fromtimestamp(now(), datetime.UTC).replace(tzinfo=None)

    time.time = now
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").partition(".")[0] in ("podium", "optuna", "mlflow"):
            if vars(module).get("datetime") is kind:
                module.datetime = Shifted  # type: ignore[attr-defined]
            if vars(module).get("time") is real:
                module.time = now  # type: ignore[attr-defined]


def _wait_for_training(place: Place, start: Start, epochs: int = 1) -> None:
    until(lambda: start.poll() is not None or len(place.traced("begin")) >= epochs, 60)


def _ended_by_disk(start: Start) -> list[str]:
    code = start.wait()
    if code == 0 or (code == 1 and NAMED.search(start.said) and "Traceback" not in start.said):
        return []
    return [f"I1: a full disk ended it with {code} and no named error: {start.said[-2000:]}"]


def _in_one_attempt(place: Place) -> list[str]:
    """A tracking outage costs no attempt and ends no start."""
    found = [f"I8: the sweep needed {len(place.starts)} starts"] if len(place.starts) > 1 else []
    for trial in read_study(place)[1]:
        if trial.facts.get("attempts") != 1:
            found.append(f"I8: trial {trial.number} took {trial.facts.get('attempts')} attempts")
    return found
