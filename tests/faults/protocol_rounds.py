"""Owns rounds of kills at the protocol layer: `python protocol_rounds.py --points 20 --random 1000 --seed 0`.

A round is one small sweep with toy trainers that is killed and started again until it ends by itself.
Each start is a fork of this process, which has everything imported and no threads.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "coordinator"))

from kill_points import COORDINATOR_POINTS, WORKER_POINTS, kill_at
from sweep_world import EPOCHS, Watcher, World, local_executor, stores_in

from podium.coordinator.loop import Coordinator
from podium.coordinator.trial import LiveTrial
from podium.engines.base import Outcome
from podium.engines.study import prepare_storage
from podium.stores import Stores
from podium.tracking.runs import prepare_store

TRIALS = 4
WORKERS = 2
START_SECONDS = 120.0
HISTORY = "history.jsonl"


@dataclass(frozen=True)
class Fault:
    """What goes wrong in one start: a kill at a named point, or of somebody after some seconds."""

    name: str
    point: str | None = None
    count: int = 1
    after_seconds: float | None = None
    victims: tuple[str, ...] = ()


def point_fault(point: str, chance: random.Random) -> Fault:
    return Fault(name=point, point=point, count=chance.randint(1, 4))


def random_fault(chance: random.Random) -> Fault:
    victims = chance.choice([("coordinator",), ("worker",), ("coordinator", "worker")])
    return Fault(
        name=f"kill {' and '.join(victims)}", after_seconds=chance.uniform(0.0, 3.0), victims=victims
    )


def play(stores: Stores, faults: list[Fault]) -> list[str]:
    """One round; answers the invariants that do not hold."""
    world = World(stores)
    world.order({"all": {"seconds": 0.02}})
    for fault in faults:
        _start(stores, fault)
    if _start(stores, None) != 0:
        return ["I3: the last start, which nobody disturbed, did not end well"]
    return check(world, [fault for fault in faults if fault.victims])


def check(world: World, worker_kills: list[Fault]) -> list[str]:
    """The invariants over the acknowledgements, the study, MLflow and what was really trained."""
    records = world.records()
    acknowledged = [json.loads(line) for line in _lines(world.stores.root / HISTORY)]
    found = []
    ended = {record.number: record for record in records if record.state != "running"}
    for each in acknowledged:
        record = ended.get(each["trial"])
        if record is None or (record.state, record.value) != (each["state"], each["value"]):
            found.append(f"I1: trial {each['trial']} was acknowledged as {each} and is {record}")
    twice = [number for number, times in Counter(each["trial"] for each in acknowledged).items() if times > 1]
    if twice or [record.number for record in records] != list(range(len(records))):
        found.append(f"I2: trials {twice} ended more than once")
    if len(ended) != TRIALS or len(records) != TRIALS:
        found.append(f"I3: {len(ended)} of {len(records)} trials ended, the budget is {TRIALS}")
    found += [f"I4: {fault}" for fault in world.disagreements()]
    if "RUNNING" in set(world.runs()["status"]):
        found.append("I7: a run is RUNNING though nobody runs it")
    for record in records:
        if record.state == "complete" and sorted(record.curve) != list(range(1, EPOCHS + 1)):
            found.append(f"I4: trial {record.number} is complete with the curve {record.curve}")
    return found


def _start(stores: Stores, fault: Fault | None) -> int:
    """One start of the program in a fork; its exit code, or -signal."""
    child = os.fork()
    if child == 0:
        try:
            _run(stores, fault)
        except BaseException:
            import traceback

            (stores.root / "errors.txt").open("a").write(traceback.format_exc())
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + START_SECONDS
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -signal.SIGALRM
        time.sleep(0.01)


def _run(stores: Stores, fault: Fault | None) -> None:
    world = World(stores)
    executor = local_executor(stores.root / "logs", WORKERS)
    engine = world.engine()
    history = (stores.root / HISTORY).open("a", buffering=1)

    def watch(coordinator: Coordinator, watcher: Watcher) -> None:
        def acknowledge(trial: LiveTrial, outcome: Outcome) -> None:
            known = {"trial": trial.number, "state": outcome.state, "value": outcome.value}
            history.write(json.dumps(known) + "\n")

        watcher.on_end = acknowledge
        if fault is not None and fault.point in COORDINATOR_POINTS:
            records = coordinator._records
            parts = {"engine": engine, "recorder": records._book._recorder, "executor": executor}
            kill_at(fault.point, fault.count, parts)
        elif fault is not None and fault.after_seconds is not None:
            threading.Thread(target=_kill_later, args=(fault, executor), daemon=True).start()

    if fault is not None and fault.point in WORKER_POINTS:
        number = str((fault.count - 1) % TRIALS)
        orders = {
            "all": {"seconds": 0.02},
            number: {"kill_at": fault.count, "kill_when": fault.point, "attempts": 1},
        }
        world.order(orders)
    try:
        world.start(executor, trials=TRIALS, engine=engine, watch=watch)
    finally:
        executor.close()
        world.order({"all": {"seconds": 0.02}})


def _kill_later(fault: Fault, executor: object) -> None:
    assert fault.after_seconds is not None
    time.sleep(fault.after_seconds)
    slots = list(executor._slots.values())  # type: ignore[attr-defined]
    if "worker" in fault.victims and slots:
        os.kill(slots[0].pid, signal.SIGKILL)
    if "coordinator" in fault.victims:
        os.kill(os.getpid(), signal.SIGKILL)


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def rounds(points: int, at_random: int, seed: int) -> list[tuple[str, int, list[Fault]]]:
    """Name, seed and faults of each round: every point so many times, then random kills, up to three a round."""
    planned = []
    for point in [*COORDINATOR_POINTS, *WORKER_POINTS]:
        for number in range(points):
            planned.append(
                (point, seed + number, [point_fault(point, random.Random(f"{point}/{seed + number}"))])
            )
    for number in range(at_random):
        chance = random.Random(seed + number)
        planned.append(
            ("random kills", seed + number, [random_fault(chance) for _ in range(chance.randint(1, 3))])
        )
    return planned


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1, help="rounds at each named point")
    parser.add_argument("--random", type=int, default=10, help="rounds of random kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="only rounds whose name holds this")
    parser.add_argument("--sample", type=int, help="only so many of these rounds, drawn by the seed")
    given = parser.parse_args()
    planned = [
        each for each in rounds(given.points, given.random, given.seed) if (given.only or "") in each[0]
    ]
    if given.sample is not None:
        planned = random.Random(given.seed).sample(planned, given.sample)
    violations: Counter[str] = Counter()
    played: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        template = stores_in(Path(folder) / "template")
        # In a fork as well: what MLflow leaves in memory must not be shared by the starts.
        child = os.fork()
        if child == 0:
            prepare_store(template)
            prepare_storage(template.study_url)
            os._exit(0)
        os.waitpid(child, 0)
        for name, seed, faults in planned:
            root = Path(folder) / "round"
            shutil.rmtree(root, ignore_errors=True)
            stores = stores_in(root)
            for file in ("mlflow.db", "studies.db"):
                shutil.copyfile(template.root / file, root / file)
            found = _play_apart(stores, faults)
            played[name] += 1
            print(
                f"{sum(played.values())} of {len(planned)}: {name}, seed {seed}", file=sys.stderr, flush=True
            )
            if found:
                violations[name] += 1
                print(f"VIOLATION {name}, seed {seed}, faults {faults}", *found, sep="\n  ", flush=True)
                print(*_lines(root / "errors.txt")[-15:], sep="\n  ", flush=True)
    width = max(map(len, played), default=0)
    print(f"{'fault':{width}}  rounds  violations")
    for name, count in played.items():
        print(f"{name:{width}}  {count:6}  {violations[name]:10}")
    return 1 if violations else 0


def _play_apart(stores: Stores, faults: list[Fault]) -> list[str]:
    """A round whose checks, which open the stores, leave nothing open in this process."""
    result = stores.root / "result.json"
    child = os.fork()
    if child == 0:
        try:
            result.write_text(json.dumps(play(stores, faults)))
        except BaseException:
            import traceback

            result.write_text(json.dumps([f"the check failed: {traceback.format_exc()}"]))
        os._exit(0)
    os.waitpid(child, 0)
    return list(json.loads(result.read_text()))


if __name__ == "__main__":
    sys.exit(main())
