"""The store of studies, and the engine that hands out a list."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from toy_sweeps import play, toy_engine, toy_sweep

from podium.engines.base import Done, Outcome, Proposal
from podium.engines.listed import ListedEngine
from podium.engines.storage import opened
from podium.engines.study import list_studies, prepare_storage, study_exists
from podium.errors import InvalidInput, SweepError

LIST = [{"model.depth": 2, "training.seed": 1}, {"model.depth": 3, "training.seed": 1}, {"code": None}]


@pytest.mark.slow
def test_sqlite_is_put_in_wal_mode_once_for_all(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    prepare_storage(f"sqlite:///{path}")
    prepare_storage(f"sqlite:///{path}")
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_looking_for_a_study_makes_no_store(new_url: str, tmp_path: Path) -> None:
    assert not study_exists(new_url, "any")
    assert list_studies(new_url) == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_only_the_ledger_was_written_to_is_no_store_yet(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE podium_looks (id INTEGER)")
    connection.commit()
    connection.close()
    url = f"sqlite:///{path}"
    assert list_studies(url) == []
    prepare_storage(url)
    assert list_studies(url) == []
    assert ListedEngine([{}], study_name="first", study_url=url).ask() is not None


@pytest.mark.parametrize(
    "url", ["no url", "postgresql://user:secret@127.0.0.1:1/none", "sqlite:////no/such/folder/studies.db"]
)
def test_a_store_that_cannot_be_opened_is_named_without_its_password(url: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be used") as refused:
        prepare_storage(url)
    assert "secret" not in str(refused.value)
    assert "PODIUM_STUDY_URL" in str(refused.value.remedy)


@pytest.mark.slow
def test_a_list_is_handed_out_once_across_restarts(url: str) -> None:
    first = ListedEngine(LIST, study_name="confirm", study_url=url)
    proposal = first.ask()
    assert proposal == Proposal(number=0, parameters=LIST[0])
    assert first.report(0, 1, 0.5) is False
    first.tell(0, Outcome(state="complete", value=0.5, attributes={"run": "a"}))
    first.ask()
    first.close()

    second = ListedEngine(LIST, study_name="confirm", study_url=url)
    assert [trial.state for trial in second.trials()] == ["complete", "running"]
    assert second.trials()[0].attributes == {"run": "a"}
    assert second.ask() == Proposal(number=2, parameters=LIST[2])
    assert isinstance(second.ask(), Done)
    second.tell(1, Outcome(state="failed", cause="error", message="no"))
    with pytest.raises(SweepError, match="told twice"):
        second.tell(0, Outcome(state="complete", value=0.6))
    assert second.best() == [0]
    second.close()


@pytest.mark.slow
def test_another_list_for_the_same_study_is_refused(url: str) -> None:
    first = ListedEngine(LIST, study_name="confirm", study_url=url)
    first.ask()
    first.close()
    with pytest.raises(SweepError, match=r"trial 0 of study 'confirm' was .*'model.depth': 2"):
        ListedEngine(LIST[1:], study_name="confirm", study_url=url)


@pytest.mark.parametrize(
    "engine",
    [
        {"name": "optuna", "sampler": "random", "pruner": "none", "seed": 1},
        {"name": "listed", "trials": [{"model.depth": 1}, {"model.depth": 2}]},
    ],
    ids=lambda engine: engine["name"],
)
def test_a_trial_that_another_process_makes_meanwhile_is_noticed(
    tmp_path: Path, engine: dict[str, Any]
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    sweep = toy_sweep(tmp_path, engine)
    prepare_storage(url)
    own = toy_engine(sweep, url=url)
    play(own, 1)
    other = toy_engine(sweep, url=url, create=False)
    play(other, 1)
    with pytest.raises(SweepError, match="another process uses study 'toy'"):
        own.ask()
    own.close()
    other.close()


def test_a_list_without_a_store_lives_in_memory() -> None:
    engine = ListedEngine(LIST[:1], study_name="train")
    engine.ask()
    engine.tell(0, Outcome(state="complete", value=0.25))
    assert [trial.value for trial in engine.trials()] == [0.25]
    assert isinstance(engine.ask(), Done)


@pytest.mark.slow
def test_processes_that_make_the_tables_at_once_do_not_disturb_each_other(new_url: str) -> None:
    program = (
        "import sys; from podium.engines.study import prepare_storage;"
        "print('ready', flush=True); sys.stdin.readline(); prepare_storage(sys.argv[1])"
    )
    command = [sys.executable, "-c", program, new_url]
    pipe = subprocess.PIPE
    makers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(4)]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "ready\n"
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("go\n")
        maker.stdin.flush()
    answers = [maker.communicate(timeout=60) for maker in makers]
    assert [maker.returncode for maker in makers] == [0] * 4, answers


def test_a_list_in_a_sweep_file_is_the_baseline_and_then_its_changes(tmp_path: Path) -> None:
    trials = [{"model.depth": 1}, {"optimizer.name": "sgd", "optimizer.momentum": 0.5}]
    sweep = toy_sweep(tmp_path, {"name": "listed", "trials": trials})
    engine = toy_engine(sweep)
    played = play(engine, 5)
    baseline = played.proposals[0].parameters
    assert "optimizer.momentum" not in baseline
    assert [dict(proposal.parameters) for proposal in played.proposals] == [
        dict(baseline),
        {**{key: value for key, value in baseline.items() if key != "model.dense_units"}, "model.depth": 1},
        {**baseline, "optimizer.name": "sgd", "optimizer.momentum": 0.5},
    ]
    assert isinstance(played.ended, Done)


def test_trials_of_a_list_are_seen_by_optunas_own_tools(url: str, tmp_path: Path) -> None:
    sweep = toy_sweep(tmp_path, {"name": "listed", "trials": [{"model.depth": 2}]})
    engine = toy_engine(sweep, url=url)
    play(engine, 2)
    engine.close()
    with opened(url) as storage:
        study = optuna.load_study(study_name="toy", storage=storage)
        assert study.trials[1].params["model.depth"] == 2
