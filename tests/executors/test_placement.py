"""How cores, GPUs and memory are shared out among workers."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from podium.executors.placement import (
    Gpu,
    chosen_gpus,
    listed_gpus,
    memory_cap,
    memory_kills,
    share_out,
)
from podium.executors.worker_process import scrubbed

TWO_GPUS = """\
GPU 0: NVIDIA H200 (UUID: GPU-3c1f1a5e-0000-1111-2222-333344445555)
GPU 1: NVIDIA H200 (UUID: GPU-9d2b7c44-0000-1111-2222-333344445555)
"""
A_CUT_GPU = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f)
  MIG 1g.5gb      Device  0: (UUID: MIG-e6af58f0-9af8-594f-825e-74d23da1a68a)
  MIG 1g.5gb      Device  1: (UUID: MIG-8eb6d1a2-9af8-594f-825e-74d23da1a68a)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-11111111-d268-c3f3-1b07-005d5ae1dc3f)
"""
GPUS = [Gpu(identity=f"GPU-{letter}", name="H200") for letter in "abc"]


@pytest.mark.parametrize(
    ("workers", "cores", "shares", "threads"),
    [
        (1, [0, 1, 2, 3], [(0, 1, 2, 3)], 4),
        (2, [0, 1, 2, 3], [(0, 1), (2, 3)], 2),
        (2, [4, 7, 9], [(4,), (7, 9)], 1),
        (3, [0, 1], [(0,), (1,), (0,)], 1),
    ],
)
def test_cores_are_divided_evenly_and_threads_are_the_same_for_all(
    workers: int, cores: list[int], shares: list[tuple[int, ...]], threads: int
) -> None:
    places = share_out(workers, threads=None, cores=cores, gpus=[])
    assert [place.cores for place in places] == shares
    assert {place.threads for place in places} == {threads}
    assert all(place.gpu is None for place in places)


def test_threads_can_be_chosen() -> None:
    places = share_out(2, threads=5, cores=range(4), gpus=[])
    assert [place.threads for place in places] == [5, 5]


def test_each_gpu_belongs_to_one_worker() -> None:
    places = share_out(5, threads=None, cores=range(6), gpus=GPUS)
    assert [place.gpu for place in places] == GPUS
    assert [place.cores for place in places] == [(0, 1), (2, 3), (4, 5)]
    assert places[0].device == "GPU H200 (GPU-a)"
    assert [place.gpu for place in share_out(2, threads=None, cores=[0], gpus=GPUS)] == GPUS[:2]


def test_device_names_the_cores() -> None:
    [place] = share_out(1, threads=None, cores=[2, 3, 4], gpus=[])
    assert place.device == "CPU cores 2-4"
    [place] = share_out(1, threads=None, cores=[2, 4], gpus=[])
    assert place.device == "CPU cores 2,4"


def test_gpus_are_read_from_the_listing() -> None:
    assert listed_gpus(TWO_GPUS) == [
        Gpu(identity="GPU-3c1f1a5e-0000-1111-2222-333344445555", name="NVIDIA H200"),
        Gpu(identity="GPU-9d2b7c44-0000-1111-2222-333344445555", name="NVIDIA H200"),
    ]
    assert listed_gpus("No devices found.\n") == []


def test_parts_of_a_gpu_count_instead_of_the_whole() -> None:
    assert [(gpu.identity[:12], gpu.name) for gpu in listed_gpus(A_CUT_GPU)] == [
        ("MIG-e6af58f0", "NVIDIA A100-SXM4-40GB MIG 1g.5gb"),
        ("MIG-8eb6d1a2", "NVIDIA A100-SXM4-40GB MIG 1g.5gb"),
        ("GPU-11111111", "NVIDIA A100-SXM4-40GB"),
    ]


@pytest.mark.parametrize(
    ("visible", "left"),
    [
        (None, "abc"),
        ("", ""),
        ("-1", ""),
        ("2,0", "ca"),
        ("1,-1,0", "b"),
        ("7", ""),
        ("GPU-b", "b"),
        ("GPU", ""),
    ],
)
def test_cuda_visible_devices_is_respected(visible: str | None, left: str) -> None:
    assert [gpu.identity[-1] for gpu in chosen_gpus(GPUS, visible)] == list(left)


def test_memory_is_divided_among_workers_with_room_to_spare() -> None:
    total = psutil.virtual_memory().total
    assert memory_cap(3) * 3 == pytest.approx(0.6 * total, rel=1e-6)


def test_kernel_memory_kills_are_counted_over_machine_and_group(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("nr_free_pages 5\noom_kill 2\noom_kill_disable 9\n")
    (tmp_path / "memory.events").write_text("low 0\noom 4\noom_kill 1\n")
    assert memory_kills([tmp_path / "vmstat", tmp_path / "memory.events"]) == 3
    assert memory_kills() >= 0


def test_addresses_with_a_user_in_them_are_scrubbed() -> None:
    environment = {"INDEX": "https://planted@host/simple", "PAGE": "https://host/about", "HOME": "/home/me"}
    assert scrubbed(environment) == {"PAGE": "https://host/about", "HOME": "/home/me"}
