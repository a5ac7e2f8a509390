"""Owns rounds in which a node of a Ray cluster dies and another is added: `run_cluster_rounds.py --toys 30 --digits 3`.

The head has no room for workers; two nodes have. In each round one of them is killed without grace in the middle
of a sweep, and one is added; in some the driver dies as well and the sweep is resumed. Exactly as many trials count as the
budget says, and the invariants of tests/faults hold.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from cluster_place import CPUS, TOY_SECONDS, TRIALS, ClusterPlace, RealClusterPlace
from cluster_place import FAULTS as FAULTS  # puts tests/faults within reach
from loopback_nodes import LoopbackNodes

import invariants  # isort: skip
import keras_rounds  # isort: skip
import real_training  # isort: skip
import toy_training  # isort: skip
from records import read_study  # isort: skip
from sweep_start import EPOCHS, Start, until  # isort: skip
from warm_up import warm_up  # isort: skip

SHARED_MEMORY = Path("/dev/shm")
SWEEP_SECONDS = 300.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toys", type=int, default=0, help="rounds with toys")
    parser.add_argument("--digits", type=int, default=0, help="rounds with real trainings")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    given = parser.parse_args()
    home = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="podium-cluster-", dir=home) as name:
        folder = Path(name)
        template = warm_up(folder)
        expected = (
            real_training.ended(real_training.reference(folder / "real", template)) if given.digits else []
        )
        # All rounds have the same address, since a node's environment is that of its start.
        current = folder / "current"
        with LoopbackNodes(environment={toy_training.FOLDER_VARIABLE: str(current)}) as cluster:
            nodes = [cluster.add(cpus=CPUS), cluster.add(cpus=CPUS)]
            violated = 0
            for kind, rounds in (("toys", given.toys), ("digits", given.digits)):
                for seed in range(given.seed, given.seed + rounds):
                    began = time.monotonic()
                    root = folder / f"{kind}-{seed}"
                    root.mkdir()
                    current.unlink(missing_ok=True)
                    current.symlink_to(root)
                    chance = random.Random(f"{kind}/{seed}")
                    make = ClusterPlace if kind == "toys" else RealClusterPlace
                    place = make(current, address=cluster.address, shared=chance.random() < 0.5)
                    if kind == "digits":
                        place.name = real_training.NAME
                    place.prepare(template)
                    play = _toys if kind == "toys" else _digits
                    found = play(place, chance, cluster, nodes, expected)
                    _tell(kind, seed, found, time.monotonic() - began, place)
                    violated += bool(found)
                    shutil.rmtree(root)
    print(f"{given.toys} rounds with toys, {given.digits} with real trainings: {violated} with violations")
    return 1 if violated else 0


def _toys(
    place: ClusterPlace, chance: random.Random, cluster: LoopbackNodes, nodes: list[str], _: object
) -> list[str]:
    place.order({}, seconds=TOY_SECONDS)
    start = place.begin()
    _wait(place, start, chance.randint(1, TRIALS * EPOCHS // 2))
    found = _change_nodes(start, chance, cluster, nodes)
    driver_dies = chance.random() < 0.3
    if driver_dies:
        _wait(place, start, len(place.traced("begin")) + chance.randint(1, TRIALS))
        start.signal(signal.SIGKILL)
    code = start.wait(SWEEP_SECONDS)
    if code not in (0, -signal.SIGKILL):
        found.append(f"I1: the sweep ended with {code}: {start.said[-3000:]}")
    found += invariants.between(place, closed=code == 0)
    if code != 0:
        place.go_on()
    return found + invariants.at_the_end(place)


def _digits(
    place: ClusterPlace, chance: random.Random, cluster: LoopbackNodes, nodes: list[str], expected: object
) -> list[str]:
    start = place.begin()
    wanted = chance.randint(1, real_training.TRIALS * (real_training.EPOCHS - 1))
    until(lambda: start.poll() is not None or _epochs(place) >= wanted, SWEEP_SECONDS)
    found = _change_nodes(start, chance, cluster, nodes)
    code = start.wait(SWEEP_SECONDS)
    if code != 0:
        found.append(f"I1: the sweep ended with {code}: {start.said[-3000:]}")
    return found + keras_rounds._as_expected(place, expected)


def _change_nodes(start: Start, chance: random.Random, cluster: LoopbackNodes, nodes: list[str]) -> list[str]:
    """Kill one node and add one, in any order; `nodes` are then the living ones."""
    found = [] if start.poll() is None else ["the sweep was over before a node was killed"]
    victim = nodes.pop(chance.randrange(len(nodes)))
    if chance.random() < 0.5:
        nodes.append(cluster.add(cpus=CPUS))
        cluster.kill(victim)
    else:
        cluster.kill(victim)
        nodes.append(cluster.add(cpus=CPUS))
    return found


def _wait(place: ClusterPlace, start: Start, begun: int) -> None:
    until(lambda: start.poll() is not None or len(place.traced("begin")) >= begun, SWEEP_SECONDS)


def _epochs(place: ClusterPlace) -> int:
    return sum(len(trial.curve) for trial in read_study(place)[1])


def _tell(kind: str, seed: int, found: list[str], seconds: float, place: ClusterPlace) -> None:
    where = "a shared folder" if place.shared else "the object store"
    starts = len(place.starts)
    lost = sum(len(trial.losses) for trial in read_study(place)[1])
    print(
        f"{kind} {seed}: {seconds:.1f} s, {starts} starts, {lost} attempts lost, checkpoints by {where}",
        flush=True,
    )
    if found:
        print(f"VIOLATION in {kind} {seed}:", *found, sep="\n  ", flush=True)
        print(f"  again: python {sys.argv[0]} --{kind} 1 --seed {seed}", flush=True)


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)
    sys.exit(main())
