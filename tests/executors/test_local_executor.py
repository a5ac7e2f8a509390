"""How local workers are started, replaced, guarded and ended: real processes, real signals."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from toy_trainers import toy_job

from podium.errors import InvalidInput, SweepError
from podium.executors.base import Attempt, Ended, EpochDone, Event
from podium.executors.local import LocalExecutor
from podium.result import Failure, TrainingResult, Verdict

pytestmark = pytest.mark.slow
Make = Callable[..., LocalExecutor]


def wait_for_free(executor: LocalExecutor, number: int = 1) -> None:
    deadline = time.monotonic() + 20
    while executor.free < number:
        assert time.monotonic() < deadline
        assert executor.events(0.5) == []


def submit(executor: LocalExecutor, key: str, folder: Path, **settings: Any) -> None:
    wait_for_free(executor)
    executor.submit(Attempt(key=key, job=toy_job(folder, **settings)))


def finish(executor: LocalExecutor, ends: int = 1) -> list[Event]:
    """Events up to that many ends, which may come together, with every epoch answered."""
    events: list[Event] = []
    deadline = time.monotonic() + 20
    while sum(isinstance(event, Ended) for event in events) < ends:
        assert time.monotonic() < deadline, events
        more = executor.events(0.5)
        events += more
        for event in more:
            if isinstance(event, EpochDone):
                executor.answer(event.key, Verdict.CONTINUE)
    return events


def failure_of(events: list[Event]) -> Failure:
    [outcome] = [event.outcome for event in events if isinstance(event, Ended)]
    assert isinstance(outcome, Failure)
    return outcome


def pid_in(folder: Path) -> int:
    deadline = time.monotonic() + 20
    while not (folder / "pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int((folder / "pid").read_text())


def facts_in(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "facts.json").read_text())
    return facts


def test_worker_stays_warm_until_its_number_of_trials_is_full(make_local: Make, tmp_path: Path) -> None:
    executor = make_local(trials_per_worker=2)
    for number in range(4):
        submit(executor, f"{number}.1", tmp_path / str(number))
        finish(executor)
    pids = [pid_in(tmp_path / str(number)) for number in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert not psutil.pid_exists(pids[0])


def test_worker_above_the_memory_limit_is_replaced_after_its_trial(make_local: Make, tmp_path: Path) -> None:
    executor = make_local(memory_limit_bytes=200_000_000)
    for number, behaviour in enumerate(["learn", "grow", "learn"]):
        submit(executor, f"{number}.1", tmp_path / str(number), behaviour=behaviour)
        [end] = [event for event in finish(executor) if isinstance(event, Ended)]
        assert isinstance(end.outcome, TrainingResult)
    pids = [pid_in(tmp_path / str(number)) for number in range(3)]
    assert pids[0] == pids[1] != pids[2]


def test_worker_that_ran_out_of_memory_is_replaced(make_local: Make, tmp_path: Path) -> None:
    executor = make_local()
    for number, behaviour in enumerate(["exhaust", "learn"]):
        submit(executor, f"{number}.1", tmp_path / str(number), behaviour=behaviour)
        finish(executor)
    assert pid_in(tmp_path / "0") != pid_in(tmp_path / "1")


def test_crash_tells_exit_code_and_the_log_and_its_last_lines(make_local: Make, tmp_path: Path) -> None:
    executor = make_local()
    submit(executor, "0.1", tmp_path / "a", behaviour="crash")
    failure = failure_of(finish(executor))
    assert failure.cause == "lost"
    assert "ended with exit code 7 during attempt 0.1" in failure.message
    log = Path(failure.message.rpartition("Its log: ")[2])
    assert "last words of the toy" in log.read_text()
    assert failure.traceback.endswith("last words of the toy")


def test_idle_worker_that_dies_is_replaced_without_an_event(make_local: Make, tmp_path: Path) -> None:
    executor = make_local()
    submit(executor, "0.1", tmp_path / "a")
    finish(executor)
    os.kill(pid_in(tmp_path / "a"), signal.SIGKILL)
    time.sleep(0.2)
    assert executor.events(0.0) == []
    submit(executor, "1.1", tmp_path / "b")
    finish(executor)
    assert pid_in(tmp_path / "b") != pid_in(tmp_path / "a")


def test_attempt_given_to_a_worker_that_has_just_died_is_lost(make_local: Make, tmp_path: Path) -> None:
    executor = make_local()
    submit(executor, "0.1", tmp_path / "a")
    finish(executor)
    os.kill(pid_in(tmp_path / "a"), signal.SIGKILL)
    time.sleep(0.2)
    executor.submit(Attempt(key="1.1", job=toy_job(tmp_path / "b")))
    assert failure_of(finish(executor)).cause == "lost"


def test_an_epoch_may_take_twenty_times_the_longest_whatever_the_patience(
    make_local: Make, tmp_path: Path
) -> None:
    executor = make_local(patience_seconds=30)
    submit(executor, "0.1", tmp_path / "a", behaviour="long_epochs", seconds=1.0)
    events: list[Event] = []
    while not any(isinstance(event, EpochDone) for event in events):
        events += executor.events(5)
    executor.patience_seconds = 0.3  # less than an epoch takes; the longest so far was told as 0.1 s
    executor.answer("0.1", Verdict.CONTINUE)
    [outcome] = [event.outcome for event in finish(executor) if isinstance(event, Ended)]
    assert isinstance(outcome, TrainingResult)


def test_stopped_worker_is_lost_after_patience_and_never_comes_back(make_local: Make, tmp_path: Path) -> None:
    executor = make_local(patience_seconds=1.0)
    submit(executor, "0.1", tmp_path / "a", seconds=0.3)
    pid = pid_in(tmp_path / "a")
    os.kill(pid, signal.SIGSTOP)
    stopped_at = time.monotonic()
    failure = failure_of(finish(executor))
    assert 0.5 < time.monotonic() - stopped_at < 3
    assert failure.cause == "lost"
    assert "said nothing for 1 s and was killed" in failure.message
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    submit(executor, "0.2", tmp_path / "b")
    assert {event.key for event in finish(executor)} == {"0.2"}


def test_patience_does_not_run_while_the_worker_waits_for_its_verdict(
    make_local: Make, tmp_path: Path
) -> None:
    executor = make_local(patience_seconds=0.5)
    submit(executor, "0.1", tmp_path / "a", epochs=1)
    events: list[Event] = []
    while not any(isinstance(event, EpochDone) for event in events):
        events += executor.events(0.2)
    time.sleep(0.7)
    assert executor.events(0.7) == []
    executor.answer("0.1", Verdict.CONTINUE)
    [end] = finish(executor)
    assert isinstance(end, Ended)
    assert isinstance(end.outcome, TrainingResult)


def test_answer_that_nobody_waits_for_is_an_error(make_local: Make, tmp_path: Path) -> None:
    executor = make_local()
    submit(executor, "0.1", tmp_path / "a", seconds=60)
    with pytest.raises(RuntimeError, match=r"0\.1 does not wait"):
        executor.answer("0.1", Verdict.CONTINUE)


def test_worker_that_cannot_start_ends_the_sweep_with_its_reason(make_local: Make) -> None:
    executor = make_local(2, trainer="no_such_module:train")
    with pytest.raises(SweepError, match="ModuleNotFoundError: No module named 'no_such_module'") as caught:
        executor.events(20.0)
    assert "ended with exit code 1" in str(caught.value)
    with pytest.raises(SweepError):
        executor.events(0.0)


def test_interrupt_from_the_keyboard_does_not_reach_a_worker(make_local: Make, tmp_path: Path) -> None:
    executor = make_local()
    submit(executor, "0.1", tmp_path / "a", seconds=0.5, epochs=1)
    pid = pid_in(tmp_path / "a")
    os.kill(pid, signal.SIGINT)
    [end] = [event for event in finish(executor) if isinstance(event, Ended)]
    assert isinstance(end.outcome, TrainingResult)
    assert facts_in(tmp_path / "a")["group"] == pid != os.getpgrp()


def test_children_of_a_worker_go_with_it(make_local: Make, tmp_path: Path) -> None:
    executor = make_local()
    submit(executor, "0.1", tmp_path / "a", behaviour="fork", seconds=60)
    worker = psutil.Process(pid_in(tmp_path / "a"))
    deadline = time.monotonic() + 10
    while not (children := worker.children()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGKILL)  # the child still holds the pipe open
    assert failure_of(finish(executor)).cause == "lost"
    assert psutil.wait_procs(children, timeout=2)[1] == []


def test_workers_are_pinned_to_their_share_of_the_cores(make_local: Make, tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    executor = make_local(2)
    wait_for_free(executor, 2)
    for name in ("a", "b"):
        submit(executor, name, tmp_path / name)
    finish(executor, ends=2)
    shares = [facts_in(tmp_path / name)["cores"] for name in ("a", "b")]
    if len(cores) > 1:
        assert sorted(shares[0] + shares[1]) == cores
    else:
        assert shares == [cores, cores]


def test_worker_sees_no_credentials(
    make_local: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = {
        "MLFLOW_TRACKING_URI": "http://planted-a",
        "PODIUM_STUDY_URL": "sqlite:///planted-b",
        "AWS_PROFILE": "planted-c",
        "HF_TOKEN": "planted-d",
        "client_secret": "planted-e",
        "PGPASSWORD": "planted-f",
        "SOME_API_KEY": "planted-g",
        "DATABASE": "postgresql://somebody:planted-h@host/db",
    }
    kept = {"KERAS_BACKEND": "tensorflow", "KEYMAP": "kept", "SOME_URL": "https://host/a@b"}
    for name, value in (planted | kept).items():
        monkeypatch.setenv(name, value)
    executor = make_local()
    submit(executor, "0.1", tmp_path / "a")
    finish(executor)
    environment = facts_in(tmp_path / "a")["environment"]
    assert "planted" not in json.dumps(environment)
    assert kept.items() <= environment.items()


def test_toy_worker_imports_neither_keras_nor_what_workers_do_without(
    make_local: Make, tmp_path: Path
) -> None:
    executor = make_local()
    submit(executor, "0.1", tmp_path / "a")
    finish(executor)
    modules = set(facts_in(tmp_path / "a")["modules"])
    assert modules.isdisjoint(
        {"optuna", "keras_tuner", "mlflow", "pandas", "matplotlib", "keras", "tensorflow", "numpy"}
    )


def test_zero_workers_or_threads_are_refused(tmp_path: Path) -> None:
    for settings in ({"workers": 0}, {"workers": 1, "threads": 0}):
        with pytest.raises(InvalidInput, match="got 0, need 1 or more"):
            LocalExecutor(log_folder=tmp_path, **settings)  # type: ignore[arg-type]
