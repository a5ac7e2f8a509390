"""Owns a Ray cluster on loopback: a head without room for workers, and nodes that are added and killed.

The cluster is kept by a process of its own, so that who uses this may fork: `python loopback_nodes.py` reads one
command a line and answers with one line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

# A node that does not answer is given up after some 3 seconds, not after 20.
IMPATIENT = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
}
STORE_BYTES = 100 * 2**20
TOKEN = "loopback-" + "0" * 40
ENVIRONMENT = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}


class LoopbackNodes:
    """A running cluster; `address` is what `--address` takes. Use it as a context."""

    def __init__(self, *, environment: dict[str, str] | None = None) -> None:
        os.environ.update(ENVIRONMENT)
        self._keeper = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.address = str(self._ask("start"))

    def add(self, *, cpus: int = 1, gpus: int = 0) -> str:
        """Add a node; answers its id."""
        return str(self._ask("add", cpus, gpus))

    def kill(self, node: str) -> None:
        """Kill all of a node's processes at once, workers included, as a power cut does."""
        self._ask("kill", node)

    def __enter__(self) -> LoopbackNodes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.close()
        self._keeper.wait(timeout=60)
        self._keeper.stdout.close()

    def _ask(self, *words: Any) -> Any:
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write(json.dumps(words) + "\n")
        self._keeper.stdin.flush()
        answer = self._keeper.stdout.readline()
        if not answer:
            raise RuntimeError(f"the keeper of the cluster died at {words}")
        return json.loads(answer)


def keep(answers: Any) -> None:
    """Be the keeper."""
    import psutil
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    nodes: dict[str, Any] = {}
    for line in sys.stdin:
        match json.loads(line):
            case ["start"]:
                cluster.add_node(
                    num_cpus=0,
                    include_dashboard=False,
                    object_store_memory=STORE_BYTES,
                    _system_config=IMPATIENT,
                )
                answer = cluster.address
            case ["add", cpus, gpus]:
                node = cluster.add_node(
                    num_cpus=cpus,
                    num_gpus=gpus,
                    object_store_memory=STORE_BYTES,
                )
                answer = node.node_id
                nodes[answer] = node
            case ["kill", name]:
                node = nodes.pop(name)
                raylets = [each.process.pid for each in node.all_processes["raylet"]]
                _kill_all([psutil.Process(pid) for pid in raylets])
                cluster.remove_node(node, allow_graceful=False)
                answer = name
            case command:
                raise RuntimeError(f"no such command: {command}")
        print(json.dumps(answer), file=answers, flush=True)
    cluster.shutdown()


def _kill_all(raylets: Sequence[Any]) -> None:
    # Stopped first: one that saw another's end would report it.
    family = [each for raylet in raylets for each in (raylet, *raylet.children(recursive=True))]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in family:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is no answer
    os.environ.update(ENVIRONMENT)
    keep(answers)
