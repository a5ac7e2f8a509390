"""Owns the connection to a Ray cluster: joined or started here, what travels to its workers, what its nodes offer."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import re
import secrets
import signal
import socket
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.errors import InvalidInput, SweepError, install
from podium.executors.worker_process import scrubbed

# Settings of the backend that decide what a training computes; everything else is the node's own.
_TRAVELS = re.compile(r"^(KERAS|TF|XLA|JAX)_")
_REACH_SECONDS = 10.0
# Ray reads these when it is imported. Its messages would go to standard output, where an answer may be JSON.
_DRIVER = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
    "RAY_RUNTIME_ENV_IGNORE_GITIGNORE": "1",  # what git ignores may be a part of a user's model
    "RAY_AUTH_MODE": "token",
}


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one worker gets of a node: whole CPU cores, and a GPU, a fraction of one, or none (0)."""

    cpus: int
    gpus: float

    def __str__(self) -> str:
        gpus = "" if not self.gpus else f" and {self.gpus:g} GPU"
        return f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}{gpus}"


@dataclass(frozen=True, kw_only=True)
class Node:
    """A living node: Ray's id of it, its host, and what it has in all."""

    id: str
    host: str
    cpus: float
    gpus: float

    def room(self, share: Share) -> int:
        """How many workers fit on it."""
        room = math.floor(self.cpus / share.cpus)
        return min(room, math.floor(self.gpus / share.gpus)) if share.gpus else room


def prepare(address: str | None) -> None:
    """Check that Ray is there, and set what it reads when it is imported: call this first.

    Token authentication is on, unless RAY_AUTH_MODE says otherwise. Raises: InvalidInput without Ray.
    """
    if importlib.util.find_spec("ray") is None:
        raise InvalidInput("--executor ray needs Ray, which is not installed.", remedy=install("ray"))
    for name, value in _DRIVER.items():
        os.environ.setdefault(name, value)
    if address is None and not os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def connect(address: str | None, *, code: Path | None, folder: Path) -> bool:
    """Join the cluster at `address` (as `ray.init` takes it), or start one on this machine.

    Podium itself and `code`, a folder with a user's own model, travel to a joined cluster as py_modules. Ray puts
    the folder in which the driver stands on its workers' import path: that is `folder`, which holds no modules.
    Answers whether there was no connection before.
    Raises: InvalidInput if there is no cluster, or none that lets us in; SweepError if none can be started.
    """
    import ray

    if ray.is_initialized():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    _check_reachable(address)
    with _undisturbed_signals(), contextlib.chdir(folder), _without_credentials(address):
        try:
            ray.init(**_settings(address, code))
        except (ConnectionError, ray.exceptions.AuthenticationError) as error:
            raise InvalidInput(
                f"--address: got '{address}', and no Ray cluster lets us in there: {_first_line(error)}",
                remedy="Run this on a node of the cluster (`ray start` makes one), with the cluster's token in "
                "RAY_AUTH_TOKEN or ~/.ray/auth_token.",
            ) from error
        except (RuntimeError, OSError, ValueError) as error:
            raise SweepError(f"Ray does not start: {error}") from error
    return True


def disconnect() -> None:
    """Leave the cluster; one that was started here ends."""
    import ray

    with _undisturbed_signals():
        ray.shutdown()


def living_nodes() -> list[Node]:
    """The cluster's nodes."""
    import ray

    return [
        Node(
            id=node["NodeID"],
            host=node["NodeManagerHostname"],
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=node["Resources"].get("GPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def share_of(nodes: Collection[Node], *, workers: int | None, cpus: int | None, gpus: float | None) -> Share:
    """A worker's share where it was not said: one GPU if there are any, and the cores of the smallest node,
    divided by the workers that it gets of `workers`; 1 core if that is not known either."""
    useful = [node for node in nodes if node.cpus >= 1]
    if gpus is None:
        gpus = 1.0 if any(node.gpus >= 1 for node in nodes) else 0.0
    if cpus is None:
        cpus = 1
        if workers is not None and useful:
            a_node = math.ceil(workers / len(useful))
            cpus = max(1, int(min(node.cpus for node in useful)) // a_node)
    return Share(cpus=cpus, gpus=gpus)


def _check_reachable(address: str | None) -> None:
    """Ray itself goes on trying for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise InvalidInput(
            f"--address: got '{address}', and nothing answers there: {error}.",
            remedy="`ray status` on a node of the cluster names its address; 'auto' finds it there.",
        ) from error


def _settings(address: str | None, code: Path | None) -> dict[str, Any]:
    variables = {name: value for name, value in scrubbed(os.environ).items() if _TRAVELS.match(name)}
    # Ray leaves CUDA_VISIBLE_DEVICES as it is for who asks for no GPU; then a CPU trial would see them all.
    variables["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "1"
    environment: dict[str, Any] = {"env_vars": variables}
    settings: dict[str, Any] = {
        "address": address or "local",
        "log_to_driver": False,
        "logging_level": "error",
        "runtime_env": environment,
    }
    if address is None:
        return {
            **settings,
            "num_cpus": len(os.sched_getaffinity(0)),
            "include_dashboard": False,
        }
    own = str(Path(__file__).parents[1])
    environment["py_modules"] = [own] if code is None else [own, str(code.resolve())]
    return settings


@contextlib.contextmanager
def _undisturbed_signals() -> Iterator[None]:
    """Ray sets a handler for SIGTERM of its own; who called decides what that means."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _without_credentials(address: str | None) -> Iterator[None]:
    """A cluster that is started here has this process's environment, and so have all its workers."""
    if address is not None:
        yield
        return
    before = dict(os.environ)
    kept = {**scrubbed(before), **_ray_settings(before)}
    try:
        _become(kept)
        yield
    finally:
        _become({**before, **_ray_settings(os.environ)})


def _ray_settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith("RAY_")}


def _become(environment: Mapping[str, str]) -> None:
    for name in set(os.environ) - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
