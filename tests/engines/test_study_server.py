"""A study in PostgreSQL: one writer, and a connection that is lost costs nothing and does nothing twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cut_connections import Cuts, cutting
from servers import plain
from toy_sweeps import play, toy_engine, toy_sweep

from podium.engines import patient_storage, study_lock
from podium.engines.base import Engine
from podium.engines.study import Record
from podium.errors import InvalidInput, SweepError

pytestmark = pytest.mark.slow
OPTUNA = {"name": "optuna", "sampler": "tpe", "pruner": "successive_halving", "seed": 3}
KERAS_TUNER = {"name": "keras_tuner", "oracle": "random", "seed": 3}
TRIALS = 6
END_WRITERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name LIKE 'podium %' AND datname = current_database()"
)
HOLD = (
    "import sys, time; from podium.engines.study import Record;"
    "record = Record('s', sys.argv[1], goals=['maximize'], create=True);"
    "print('held', flush=True); time.sleep(60)"
)


def content(engine: Engine) -> list[Any]:
    found = engine.trials()
    engine.close()
    return found


@pytest.mark.parametrize("method", [OPTUNA, KERAS_TUNER], ids=["optuna", "keras_tuner"])
def test_commits_that_are_cut_off_lose_nothing_and_do_nothing_twice(
    method: dict[str, Any], server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient_storage, "FIRST_PAUSE_SECONDS", 0.001)
    sweep = toy_sweep(tmp_path, method)
    undisturbed = toy_engine(sweep)
    play(undisturbed, TRIALS)
    with cutting(server_url, seed=5) as cuts:
        engine = toy_engine(sweep, url=cuts.url)
        cuts.share = 0.3
        play(engine, TRIALS)
        cuts.share = 0.0
        assert content(engine) == content(undisturbed)
    assert min(cuts.lost, cuts.done) > 10


def test_a_second_writer_is_refused_until_the_first_is_dead(server_url: str) -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLD, server_url], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    with pytest.raises(InvalidInput, match=f"s is running already \\(process {first.pid} on") as refused:
        Record("s", server_url, goals=["maximize"], create=False)
    assert "podium status s" in str(refused.value.remedy)
    Record("s", server_url, goals=["maximize"], create=False, read_only=True).close()
    other = Record("another", server_url, goals=["maximize"], create=True)
    other.close()
    first.send_signal(signal.SIGKILL)
    first.communicate()
    Record("s", server_url, goals=["maximize"], create=False).close()


def test_a_study_that_another_process_took_meanwhile_is_left_to_it(server_url: str) -> None:
    record = Record("s", server_url, goals=["maximize"], create=True)
    with psycopg.connect(plain(server_url), autocommit=True) as thief:
        thief.execute(END_WRITERS)
        thief.execute("SELECT pg_advisory_lock(%s)", (study_lock._key("study s"),))
        with pytest.raises(SweepError, match="took up the sweep s"):
            record.remember("fact", 1)
    record.close()


def test_a_study_that_another_process_wrote_meanwhile_is_left_as_it_is(server_url: str) -> None:
    record = Record("s", server_url, goals=["maximize"], create=True)
    with psycopg.connect(plain(server_url), autocommit=True) as connection:
        connection.execute(END_WRITERS)
    meanwhile = Record("s", server_url, goals=["maximize"], create=False)
    meanwhile.remember("fact", 1)
    meanwhile.close()
    with pytest.raises(SweepError, match="took up the sweep"):
        record.remember("fact", 2)
    record.close()
    reader = Record("s", server_url, goals=["maximize"], create=False, read_only=True)
    assert reader.recall("fact") == 1
    reader.close()


def test_patience_ends_with_an_error_and_is_not_asked_twice(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient_storage, "PATIENCE_SECONDS", 0.3)
    with cutting(server_url, seed=0) as cuts:
        record = Record("s", cuts.url, goals=["maximize"], create=True)
        record.remember("fact", 1)
    with pytest.raises(SweepError, match="was away for 0 s") as ended:
        record.remember("fact", 2)
    assert "--resume" in str(ended.value.remedy)
    began = time.monotonic()
    with pytest.raises(SweepError):
        record.remember("fact", 3)
    assert time.monotonic() - began < 0.2
    record.close()


def test_cuts_are_what_they_say(server_url: str) -> None:
    with cutting(server_url, seed=1) as cuts:
        assert _written_in_spite_of_a_cut(cuts, 20) == cuts.done


def _written_in_spite_of_a_cut(cuts: Cuts, rows: int) -> int:
    """Rows that are there although their commit had no answer."""
    address = plain(cuts.url)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE TABLE facts (number int)")
    cuts.share = 1.0
    for number in range(rows):
        with pytest.raises(psycopg.OperationalError), psycopg.connect(address) as connection:
            connection.execute("INSERT INTO facts VALUES (%s)", (number,))
    cuts.share = 0.0
    time.sleep(0.1)
    with psycopg.connect(address) as connection:
        row = connection.execute("SELECT count(*) FROM facts").fetchone()
    assert row is not None
    return int(row[0])
