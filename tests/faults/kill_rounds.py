"""Owns rounds of kills and signals: at named points, at random moments, once or twice, for good or for a while."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from typing import Any

import invariants
import kill_points
import study_stores
from sweep_start import EPOCHS, TRIALS, Place, Start, until

import podium.coordinator.attempts
import podium.engines.optuna
import podium.executors.local
import podium.session.agreement
import podium.tracking.delivery
import podium.tracking.runs
import podium.tracking.spool

SLOW_EPOCH_SECONDS = 0.15
GRACE_SECONDS = 30.0
AT_ONCE_SECONDS = 10.0
REFUSAL_SECONDS = 20.0


def sweep_parts() -> dict[str, Any]:
    """The classes and modules whose steps are kill points."""
    return {
        "study": _Creation,
        "engine": podium.engines.optuna.OptunaEngine,
        "recorder": podium.tracking.runs.Recorder,
        "executor": podium.executors.local.LocalExecutor,
        "spool": podium.tracking.spool.Spool,
        "delivery": podium.tracking.delivery.Delivery,
        "records": podium.coordinator.attempts,
        "agreement": podium.session.agreement,
    }


class _Creation:
    """Optuna's row of a study is made in the middle of `Record.__init__`; 'after' is before what follows it."""

    @staticmethod
    def create(storage: Any, *values: Any) -> Any:
        return _Creation.real(storage, *values)

    real: Any = None


def at_sweep_point(place: Place, chance: random.Random, point: str) -> list[str]:
    """The coordinator dies at a point, at the first time or a later one."""
    count = chance.randint(1, kill_points.most_times(point, trials=TRIALS))

    def arm() -> None:
        from optuna.storages import _CachedStorage

        _Creation.real = _CachedStorage.create_new_study
        kill_points.kill_at(point, count, sweep_parts())
        _CachedStorage.create_new_study = lambda *values: _Creation.create(*values)  # type: ignore[method-assign]

    if "reopen" in point or "reconcile" in point:
        # These come up in a second start only.
        start = place.begin()
        until(lambda: start.poll() is not None or bool(place.acknowledged), 60)
        start.signal(signal.SIGKILL)
        start.wait()
    code = place.begin(*(["--resume"] if place.starts else []), arm=arm).wait()
    found = [] if code == -signal.SIGKILL else [f"nothing was killed at {point}, time {count}"]
    found += invariants.between(place, closed=False)
    place.go_on()
    return found + invariants.at_the_end(place)


def at_worker_point(place: Place, chance: random.Random, point: str) -> list[str]:
    """A worker dies in the middle of saving, alone (the sweep goes on by itself) or with its coordinator."""
    both = chance.random() < 0.5
    kill = {"point": point, "count": chance.randint(1, EPOCHS), "both": both}
    place.order(
        {str(chance.randrange(TRIALS)): {"kill": kill, "attempts": 1 if both else chance.randint(1, 2)}}
    )
    code = place.begin().wait()
    found = invariants.between(place, closed=code == 0)
    lost = any(each["attempt"] > 1 for what in ("begin", "resumed") for each in place.traced(what))
    if code != -signal.SIGKILL if both else not lost:
        found.append(f"nothing was killed: {kill}, the start ended with {code}")
    if code != 0:
        place.go_on()
    return found + invariants.at_the_end(place)


def at_random_moments(place: Place, chance: random.Random) -> list[str]:
    """Up to three starts in which worker, coordinator or both die at any moment."""
    found: list[str] = []
    place.missed = True
    for number in range(chance.randint(1, 3)):
        victims = chance.choice(("worker", "coordinator", "both"))
        start = place.begin() if number == 0 else place.begin("--resume")
        _wait_for_moment(place, start, chance)
        hit = victims != "coordinator" and _kill_some_worker(start, chance)
        hit |= victims != "worker" and start.signal(signal.SIGKILL)
        place.missed &= not hit
        code = start.wait()
        # Refused is right if the first start died before it had made a study.
        if code not in (0, -signal.SIGKILL) and not (code == 2 and "to go on with" in start.said):
            found.append(f"I1: a start in which {victims} was killed ended with {code}: {start.said[-1500:]}")
        found += invariants.between(place, closed=code == 0)
    place.go_on()
    return found + invariants.at_the_end(place)


def while_stores_are_made(place: Place, chance: random.Random) -> list[str]:
    """The first start of all dies while it makes the databases."""
    for file in ("mlflow.db", "studies.db"):
        (place.root / "mlruns" / file).unlink()
    study_stores.make_new(place.root / "mlruns")
    start = place.begin()
    time.sleep(chance.uniform(0.0, 2.0))
    place.missed = not start.signal(signal.SIGKILL)
    start.wait()
    place.go_on()
    return invariants.at_the_end(place)


def signalled(place: Place, chance: random.Random, number: int, *, twice: bool) -> list[str]:
    """A person or a machine asks it to end: records are closed and it says how to go on."""
    place.order({}, seconds=SLOW_EPOCH_SECONDS)
    start = place.begin()
    _wait_for_moment(place, start, chance)
    sent = start.signal(number)
    if twice:
        time.sleep(chance.uniform(0.0, SLOW_EPOCH_SECONDS))
        start.signal(number)
    code = start.wait(AT_ONCE_SECONDS if twice else GRACE_SECONDS)
    name = signal.Signals(number).name
    found = []
    place.missed = not sent
    if code not in (0, 130) or (code == 130 and "Go on with" not in start.said):
        found.append(f"I7: {name} {'twice ' * twice}ended it with {code}: {start.said[-1500:]}")
    found += invariants.between(place, closed=True)
    place.order({})
    place.go_on()
    return found + invariants.at_the_end(place)


def worker_stopped(place: Place, chance: random.Random) -> list[str]:
    """A worker stands still past the patience, or not quite, and wakes up again."""
    place.patience_seconds = 0.6
    place.order({}, seconds=SLOW_EPOCH_SECONDS)
    start = place.begin()
    _wait_for_epochs(place, start, chance.randint(1, TRIALS * EPOCHS - 1))
    begun = place.traced("begin")
    past = chance.random() < 0.8
    place.missed = True
    with suppress(ProcessLookupError, IndexError):
        pid = begun[-1]["pid"]
        os.kill(pid, signal.SIGSTOP)
        place.missed = False
        time.sleep(place.patience_seconds * (2.0 if past else 0.3))
        os.kill(pid, signal.SIGCONT)
    start.wait()
    return invariants.at_the_end(place)


def coordinator_stopped(place: Place, chance: random.Random) -> list[str]:
    """A second start while the first stands still is refused; the first wakes up, or is killed."""
    place.order({}, seconds=SLOW_EPOCH_SECONDS)
    first = place.begin()
    _wait_for_epochs(place, first, chance.randint(1, TRIALS * EPOCHS - 3))
    first.signal(signal.SIGSTOP)
    second = place.begin("--resume")
    code = second.wait(REFUSAL_SECONDS)
    place.starts.remove(second)
    found = []
    if code != 2 or "is running already" not in second.said:
        found.append(
            f"I2: a second start at once was not refused but ended with {code}: {second.said[-800:]}"
        )
    if chance.random() < 0.5:
        first.signal(signal.SIGCONT)
        first.wait()
    else:
        first.signal(signal.SIGKILL)
        first.wait()
        place.go_on()
    return found + invariants.at_the_end(place)


def _wait_for_moment(place: Place, start: Start, chance: random.Random) -> None:
    """A random time, or a random while after a random epoch has begun."""
    if chance.random() < 0.4:
        time.sleep(chance.uniform(0.0, 1.5))
    else:
        begun = len(place.traced("begin"))
        _wait_for_epochs(place, start, begun + chance.randint(1, max(1, TRIALS * EPOCHS - begun)))
        time.sleep(chance.uniform(0.0, 0.1))


def _wait_for_epochs(place: Place, start: Start, count: int) -> None:
    until(lambda: start.poll() is not None or len(place.traced("begin")) >= count, 60)


def _kill_some_worker(start: Start, chance: random.Random) -> bool:
    """Whether there was one."""
    workers = start.workers()
    with suppress(ProcessLookupError, IndexError):
        os.kill(chance.choice(workers), signal.SIGKILL)
        return True
    return False
