"""What every executor must do. To add one: write a function that makes it and name it in EXECUTORS."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from toy_trainers import FOLDER, TOY, toy_job

from podium.errors import SweepError
from podium.executors.base import Attempt, Ended, EpochDone, Event, Executor, Notice, Started
from podium.executors.local import LocalExecutor
from podium.result import Failure, TrainingResult, Verdict

pytestmark = pytest.mark.slow
PATIENCE_SECONDS = 30.0
WAITING = "waiting for the cluster"


def local(workers: int, folder: Path) -> Executor:
    return LocalExecutor(workers=workers, log_folder=folder / "logs", trainer=TOY, threads=1, paths=[FOLDER])


def ray(workers: int, folder: Path) -> Executor:
    from podium.executors.ray import RayExecutor

    return RayExecutor(workers=workers, cpus=1, log_folder=folder / "logs", trainer=TOY, paths=[FOLDER])


EXECUTORS = [local, ray]


class Team:
    """Makes executors of one kind. One that a test left as it was serves the next test too."""

    def __init__(self, make: Callable[[int, Path], Executor]) -> None:
        self._make = make
        self._executor: Executor | None = None
        self._workers = 0

    def of(self, workers: int, folder: Path) -> Executor:
        if self._executor is None or (self._workers, self._executor.free) != (workers, workers):
            self.close()
            self._executor, self._workers = self._make(workers, folder), workers
        return self._executor

    def close(self) -> None:
        if self._executor is not None:
            self._executor.close()
            self._executor = None


@pytest.fixture(params=EXECUTORS, ids=lambda make: make.__name__, scope="module")
def team(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """All of Ray's executors join one cluster."""
    made = Team(request.param)
    if request.param is not ray:
        yield made
        made.close()
        return
    if importlib.util.find_spec("ray") is None:  # not by importing it: it reads its settings then
        pytest.skip("Ray is not installed")
    from podium.executors import ray_cluster

    ray_cluster.prepare(None)
    ray_cluster.connect(None, code=None, folder=tmp_path_factory.mktemp("ray"))
    yield made
    made.close()
    ray_cluster.disconnect()


@pytest.fixture
def make(team: Team, tmp_path: Path) -> Callable[[int], Executor]:
    return lambda workers: team.of(workers, tmp_path)


def collect(executor: Executor, until: Callable[[list[Event]], bool]) -> list[Event]:
    """Events until a condition holds; leaves EpochDone unanswered."""
    events: list[Event] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not until(events):
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS} s; got {events}"
        events += executor.events(0.5)
    return events


def wait_for_free(executor: Executor, number: int = 1) -> None:
    told = collect(executor, lambda _: executor.free >= number)
    # A busy machine takes its time to start workers on a cluster, and people are told so.
    others = [each for each in told if not (isinstance(each, Notice) and WAITING in each.text)]
    assert others == []


def an(kind: type[Event]) -> Callable[[list[Event]], bool]:
    return lambda events: any(isinstance(event, kind) for event in events)


def run(executor: Executor, attempt: Attempt, verdict: Verdict = Verdict.CONTINUE) -> list[Event]:
    """All events of one attempt, each epoch answered with the verdict."""
    wait_for_free(executor)
    executor.submit(attempt)
    events: list[Event] = []
    while not an(Ended)(events):
        more = collect(executor, bool)
        events += more
        for event in more:
            if isinstance(event, EpochDone):
                executor.answer(event.key, verdict)
    return events


def outcome(events: list[Event]) -> TrainingResult | Failure:
    [end] = [event for event in events if isinstance(event, Ended)]
    return end.outcome


def worker_pid(folder: Path) -> int:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (folder / "pid").exists():
        assert time.monotonic() < deadline, f"no toy began in {folder}"
        time.sleep(0.01)
    return int((folder / "pid").read_text())


def assert_gone(executor: Executor, *pids: int) -> None:
    """Processes are gone: at once, but for Ray, which leaves a process that is stopped up to 5 s."""
    deadline = time.monotonic() + (0.0 if isinstance(executor, LocalExecutor) else 8.0)
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.02)


def test_attempt_starts_reports_each_epoch_once_and_ends(
    make: Callable[[int], Executor], tmp_path: Path
) -> None:
    events = run(make(1), Attempt(key="0.1", job=toy_job(tmp_path / "a", epochs=3)))
    assert isinstance(events[0], Started)
    assert str(worker_pid(tmp_path / "a")) in events[0].place
    assert [event.epoch.epoch for event in events[1:-1] if isinstance(event, EpochDone)] == [1, 2, 3]
    assert {event.key for event in events} == {"0.1"}
    result = outcome(events)
    assert isinstance(result, TrainingResult)
    assert (result.status, result.epochs, result.metrics["val_accuracy"]) == ("finished", 3, 0.75)


def test_worker_waits_for_the_verdict_before_the_next_epoch(
    make: Callable[[int], Executor], tmp_path: Path
) -> None:
    executor = make(1)
    wait_for_free(executor)
    executor.submit(Attempt(key="0.1", job=toy_job(tmp_path / "a", epochs=3)))
    collect(executor, an(EpochDone))
    assert executor.events(0.5) == []
    executor.answer("0.1", Verdict.CONTINUE)
    [second] = collect(executor, bool)
    assert isinstance(second, EpochDone)
    assert second.epoch.epoch == 2


@pytest.mark.parametrize(
    ("verdict", "status"), [(Verdict.PRUNE, "pruned"), (Verdict.INTERRUPT, "interrupted")]
)
def test_verdict_ends_the_attempt_within_the_epoch(
    make: Callable[[int], Executor], tmp_path: Path, verdict: Verdict, status: str
) -> None:
    result = outcome(run(make(1), Attempt(key="0.1", job=toy_job(tmp_path / "a", epochs=50)), verdict))
    assert isinstance(result, TrainingResult)
    assert (result.status, result.epochs) == (status, 1)


@pytest.mark.parametrize(
    ("behaviour", "cause", "message", "traceback"),
    [
        ("raise", "error", "ValueError: the toy broke", "in _misbehave"),
        ("diverge", "nan", "loss is nan after epoch 1.", "where it happened"),
        ("exhaust", "memory", "MemoryError: the toy is full", "in _misbehave"),
        ("exit", "error", "SystemExit: 5", "in _misbehave"),
    ],
)
def test_exception_is_a_failure_with_its_cause_and_the_executor_goes_on(
    make: Callable[[int], Executor], tmp_path: Path, behaviour: str, cause: str, message: str, traceback: str
) -> None:
    executor = make(1)
    failure = outcome(run(executor, Attempt(key="0.1", job=toy_job(tmp_path / "a", behaviour=behaviour))))
    assert isinstance(failure, Failure)
    assert failure.cause == cause
    assert failure.message.startswith(message)
    assert traceback in failure.traceback
    assert len(failure.message + failure.traceback) < 16_384
    assert isinstance(outcome(run(executor, Attempt(key="1.1", job=toy_job(tmp_path / "b")))), TrainingResult)


def test_what_ends_the_sweep_is_raised_after_the_events_that_were_ready(
    make: Callable[[int], Executor], tmp_path: Path
) -> None:
    executor = make(2)
    wait_for_free(executor, 2)
    executor.submit(Attempt(key="0.1", job=toy_job(tmp_path / "a", epochs=1)))
    collect(executor, an(EpochDone))
    executor.submit(Attempt(key="1.1", job=toy_job(tmp_path / "b", behaviour="fill_disk")))
    executor.answer("0.1", Verdict.CONTINUE)
    time.sleep(0.5)
    assert isinstance(outcome(collect(executor, an(Ended))), TrainingResult)
    with pytest.raises(SweepError, match="no space left") as caught:
        collect(executor, an(Ended))
    assert caught.value.remedy == "Make space."


def test_killed_worker_is_a_lost_attempt_and_another_takes_its_place(
    make: Callable[[int], Executor], tmp_path: Path
) -> None:
    executor = make(1)
    wait_for_free(executor)
    executor.submit(Attempt(key="0.1", job=toy_job(tmp_path / "a", seconds=60)))
    os.kill(worker_pid(tmp_path / "a"), signal.SIGKILL)
    killed_at = time.monotonic()
    failure = outcome(collect(executor, an(Ended)))
    assert time.monotonic() - killed_at < 2
    assert isinstance(failure, Failure)
    assert failure.cause == "lost"
    assert "during attempt 0.1" in failure.message
    again = run(executor, Attempt(key="0.2", job=toy_job(tmp_path / "b")))
    assert isinstance(outcome(again), TrainingResult)


def test_worker_killed_while_it_waits_for_a_verdict_is_lost_though_answered(
    make: Callable[[int], Executor], tmp_path: Path
) -> None:
    executor = make(1)
    wait_for_free(executor)
    executor.submit(Attempt(key="0.1", job=toy_job(tmp_path / "a")))
    collect(executor, an(EpochDone))
    os.kill(worker_pid(tmp_path / "a"), signal.SIGKILL)
    executor.answer("0.1", Verdict.CONTINUE)
    failure = outcome(collect(executor, an(Ended)))
    assert isinstance(failure, Failure)
    assert failure.cause == "lost"
    executor.answer("0.1", Verdict.CONTINUE)


def test_cancelled_attempt_is_silent_and_its_process_gone(
    make: Callable[[int], Executor], tmp_path: Path
) -> None:
    executor = make(1)
    wait_for_free(executor)
    executor.submit(Attempt(key="0.1", job=toy_job(tmp_path / "a", seconds=0.2)))
    pid = worker_pid(tmp_path / "a")
    time.sleep(0.4)  # its Started and EpochDone are on their way
    executor.cancel("0.1")
    assert_gone(executor, pid)
    events = run(executor, Attempt(key="0.2", job=toy_job(tmp_path / "b")))
    assert {event.key for event in events} == {"0.2"}
    assert executor.events(0.3) == []


def test_submitting_more_than_is_free_is_an_error(make: Callable[[int], Executor], tmp_path: Path) -> None:
    executor = make(1)
    wait_for_free(executor)
    executor.submit(Attempt(key="0.1", job=toy_job(tmp_path / "a", seconds=60)))
    assert executor.free == 0
    with pytest.raises(RuntimeError, match=r"1\.1: no worker is free"):
        executor.submit(Attempt(key="1.1", job=toy_job(tmp_path / "b")))


def test_close_leaves_no_process(make: Callable[[int], Executor], tmp_path: Path) -> None:
    executor = make(2)
    wait_for_free(executor, 2)
    for name in ("a", "b"):
        executor.submit(Attempt(key=name, job=toy_job(tmp_path / name, seconds=60)))
    pids = [worker_pid(tmp_path / name) for name in ("a", "b")]
    os.kill(pids[0], signal.SIGSTOP)
    closed_at = time.monotonic()
    executor.close()
    assert time.monotonic() - closed_at < 6
    assert_gone(executor, *pids)


def test_forty_attempts_over_two_workers_end_once_each(
    make: Callable[[int], Executor], tmp_path: Path
) -> None:
    executor = make(2)
    waiting = [Attempt(key=f"{n}.1", job=toy_job(tmp_path / str(n), seconds=0.005)) for n in range(40)]
    ended: list[str] = []
    epochs: list[tuple[str, int]] = []
    wait_for_free(executor, 2)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(ended) < 40:
        assert time.monotonic() < deadline
        while waiting and executor.free:
            executor.submit(waiting.pop(0))
        for event in executor.events(1.0):
            if isinstance(event, EpochDone):
                epochs.append((event.key, event.epoch.epoch))
                executor.answer(event.key, Verdict.CONTINUE)
            elif isinstance(event, Ended):
                assert isinstance(event.outcome, TrainingResult)
                ended.append(event.key)
    assert sorted(ended) == sorted(f"{n}.1" for n in range(40))
    assert sorted(epochs) == sorted((f"{n}.1", epoch) for n in range(40) for epoch in (1, 2))
    assert executor.events(0.2) == []
    assert len({worker_pid(tmp_path / str(n)) for n in range(40)}) == 2
