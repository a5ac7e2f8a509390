"""Owns which share of this machine each local worker gets: cores, threads, GPU, memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from podium.errors import InvalidInput, PodiumError

MEMORY_SHARE = 0.6
NO_GPU = "-1"
_UUID = re.compile(r"\(UUID: ([^)]+)\)")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One device as `nvidia-smi -L` lists it. `identity` is what CUDA_VISIBLE_DEVICES takes."""

    identity: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """One worker's share: `cores` it is pinned to, `threads` it computes with, its GPU if any."""

    cores: tuple[int, ...]
    threads: int
    gpu: Gpu | None = None

    @property
    def device(self) -> str:
        """In words, for a record."""
        if self.gpu is not None:
            return f"GPU {self.gpu.name} ({self.gpu.identity})"
        return f"CPU core {self.cores[0]}" if len(self.cores) == 1 else f"CPU cores {_ranges(self.cores)}"


def share_out(workers: int, *, threads: int | None, cores: Sequence[int], gpus: Sequence[Gpu]) -> list[Place]:
    """Divide cores evenly, and give each worker a GPU of its own where there are any.

    With fewer GPUs than workers there are as many places as GPUs. With more workers than cores, workers
    share cores. All workers get the same number of threads, so that each computes the same bits; a
    core that is left over gives one worker room for what is not arithmetic.

    Raises: InvalidInput if `workers` or `threads` is below 1.
    """
    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None and value < 1:
            raise InvalidInput(f"{name}: got {value}, need 1 or more.")
    count = min(workers, len(gpus)) if gpus else workers
    bounds = [len(cores) * index // count for index in range(count + 1)]
    shares = [
        tuple(cores[bounds[index] : bounds[index + 1]])
        if count <= len(cores)
        else (cores[index % len(cores)],)
        for index in range(count)
    ]
    even = threads or max(1, len(cores) // count)
    devices: list[Gpu | None] = [*gpus[:count]] or [None] * count
    return [Place(cores=share, threads=even, gpu=gpu) for share, gpu in zip(shares, devices, strict=True)]


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def visible_gpus(environment: Mapping[str, str]) -> list[Gpu]:
    """The GPUs of `nvidia-smi -L`, of which CUDA_VISIBLE_DEVICES may leave fewer; none without the tool."""
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listing = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PodiumError(
            "`nvidia-smi -L` did not answer within 30 seconds.",
            remedy="Mend the GPU driver, or train on the CPU with CUDA_VISIBLE_DEVICES=-1 and "
            "nvidia-smi taken off the PATH.",
        ) from error
    if listing.returncode != 0:
        return []
    return chosen_gpus(listed_gpus(listing.stdout), environment.get("CUDA_VISIBLE_DEVICES"))


def listed_gpus(listing: str) -> list[Gpu]:
    """The devices in the output of `nvidia-smi -L`: a GPU that is cut into MIG parts counts as its parts."""
    gpus: list[Gpu] = []
    whole: Gpu | None = None
    for line in listing.splitlines():
        found = _UUID.search(line)
        if found is None:
            continue
        name = line[: found.start()].split(":", 1)[-1].strip() or line[: found.start()].strip()
        if line.startswith("GPU "):
            whole = Gpu(identity=found[1], name=name)
            gpus.append(whole)
        elif whole is not None:
            if whole in gpus:
                gpus.remove(whole)
            part = line[: found.start()].split("Device")[0].strip()
            gpus.append(Gpu(identity=found[1], name=f"{whole.name} {part}"))
    return gpus


def chosen_gpus(gpus: Sequence[Gpu], visible: str | None) -> list[Gpu]:
    """What a CUDA_VISIBLE_DEVICES leaves of `gpus`. As CUDA does, stop at the first entry that names none."""
    if visible is None:
        return list(gpus)
    chosen: list[Gpu] = []
    for entry in (part.strip() for part in visible.split(",")):
        if entry.isdigit():
            named = list(gpus[int(entry) : int(entry) + 1])
        else:
            named = [gpu for gpu in gpus if entry and gpu.identity.startswith(entry)]
        if len(named) != 1 or named[0] in chosen:
            break
        chosen += named
    return chosen


def machine_bytes() -> int:
    """Memory that all processes here may use: the machine's, or less where a control group limits it."""
    limits = [psutil.virtual_memory().total]
    for path in _group_files("memory.max"):
        text = path.read_text().strip()
        if text.isdigit():  # else 'max'
            limits.append(int(text))
    return min(limits)


def gpu_bytes(gpu: Gpu) -> int | None:
    """Memory of one device as `nvidia-smi` tells it, None where it does not (of a part of a GPU, say)."""
    query = [
        "nvidia-smi",
        f"--id={gpu.identity}",
        "--query-gpu=memory.total",
        "--format=csv,noheader,nounits",
    ]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = answer.stdout.strip()
    return int(text) * 2**20 if answer.returncode == 0 and text.isdigit() else None


def memory_cap(workers: int) -> int:
    """Bytes one worker may hold before it is replaced: 60 % of the machine's memory, divided evenly."""
    return int(MEMORY_SHARE * machine_bytes() / workers)


def private_bytes(pid: int) -> int:
    """Memory that a process holds alone, in bytes: resident, less what it shares (the mapped dataset)."""
    memory = psutil.Process(pid).memory_info()
    return int(memory.rss - memory.shared)


def memory_kills(counters: Sequence[Path] | None = None) -> int:
    """How many processes the kernel has killed for want of memory: the machine's count and our group's."""
    total = 0
    for path in _kill_counters() if counters is None else counters:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                total += int(value)
    return total


def _ranges(numbers: Sequence[int]) -> str:
    first, last = numbers[0], numbers[-1]
    whole = last - first + 1 == len(numbers)
    return f"{first}-{last}" if whole else ",".join(map(str, numbers))


def _kill_counters() -> list[Path]:
    vmstat = Path("/proc/vmstat")
    return [*([vmstat] if vmstat.is_file() else []), *_group_files("memory.events")]


def _group_files(name: str) -> list[Path]:
    """A file of this process's control group, if there is one."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            found.append(Path("/sys/fs/cgroup") / line[3:].lstrip("/") / name)
    return [path for path in found if path.is_file()]
