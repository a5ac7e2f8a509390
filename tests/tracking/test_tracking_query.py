from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import parse_qs, unquote

import pytest
from mlflow_server import nobody_there
from tracking_records import begin, record_trial

from podium.errors import InvalidInput, PodiumError
from podium.stores import Stores, redacted
from podium.tracking import query
from podium.tracking.run_record import read_run
from podium.tracking.runs import Recorder
from podium.tracking.store import is_server

pytestmark = pytest.mark.slow


def sweep(stores: Stores, name: str, trials: int) -> str:
    recorder = Recorder(stores, experiment=name)
    tags = {"podium.metric": "val_accuracy", "podium.goal": "maximize"}
    parent = recorder.open_parent(name=f"{name}-1", parameters={}, tags=tags)
    for trial in reversed(range(trials)):
        record_trial(recorder, trial, epochs=trial + 1)
    begin(recorder, 11)
    recorder.close()
    return parent


def test_a_sweep_is_found_by_name_by_id_and_as_the_latest(stores: Stores) -> None:
    first, second = sweep(stores, "digits", 1), sweep(stores, "cifar10", 1)
    assert query.find_parent(stores, "digits") == first
    assert query.find_parent(stores, first) == first
    assert query.find_parent(stores, None) == second
    again = sweep(stores, "digits", 1)
    assert query.find_parent(stores, "digits") == again


def test_what_is_no_sweep_is_refused_with_what_there_is(stores: Stores) -> None:
    with pytest.raises(InvalidInput, match="no sweep is on record"):
        query.find_parent(stores, None)
    parent = sweep(stores, "digits", 1)
    with pytest.raises(InvalidInput, match="Did you mean 'digits'") as refusal:
        query.find_parent(stores, "digit")
    assert refusal.value.remedy == "Known: digits."
    with pytest.raises(InvalidInput, match="no run ffff"):
        query.find_parent(stores, "f" * 32)
    child = str(query.children(stores, parent)["run_id"][0])
    with pytest.raises(InvalidInput, match="not a sweep's parent run"):
        query.find_parent(stores, child)


def test_children_come_by_trial_number_with_curves_of_all_runs_at_once(stores: Stores) -> None:
    parent = sweep(stores, "digits", 4)
    frame = query.children(stores, parent)
    assert frame["trial"].tolist() == [0, 1, 2, 3, 11]
    assert frame["state"].tolist() == ["complete"] * 4 + ["running"]
    assert frame["params.a.b"].tolist() == ["1"] * 5
    assert frame["metrics.best_val_accuracy"].round(2).tolist()[:4] == [0.09, 0.18, 0.27, 0.36]
    assert frame["metrics.best_val_accuracy"].isna().tolist() == [False] * 4 + [True]
    curves = query.histories(stores, frame["run_id"].tolist())
    assert curves.groupby("run_id", sort=False).size().tolist() == [1, 2, 3, 4]
    assert curves["epoch"].tolist() == [1, 1, 2, 1, 2, 3, 1, 2, 3, 4]
    one = query.run_frame(stores, [str(frame["run_id"][2])])
    assert one.iloc[0].dropna().to_dict() == frame.iloc[2].dropna().to_dict()
    assert query.history(stores, str(frame["run_id"][4])).empty


def test_a_run_id_may_be_typed_as_tables_show_it(stores: Stores) -> None:
    parent = sweep(stores, "digits", 2)
    ids = query.children(stores, parent)["run_id"].tolist()
    assert query.whole_run_id(stores, ids[0][:8]) == ids[0]
    assert query.whole_run_id(stores, ids[0]) == ids[0]
    assert query.whole_run_id(stores, "digits") == "digits"
    sweep(stores, ids[1][:9], 1)  # a sweep's name comes first
    assert query.whole_run_id(stores, ids[1][:9]) == ids[1][:9]
    missing = next(
        f"{number:08x}" for number in range(9) if not any(each.startswith(f"{number:08x}") for each in ids)
    )
    with pytest.raises(InvalidInput, match=f"no run's id begins with {missing}"):
        query.whole_run_id(stores, missing)


def test_leaders_are_the_best_complete_trials(stores: Stores) -> None:
    parent = sweep(stores, "digits", 4)
    ids = query.children(stores, parent)["run_id"].tolist()
    assert query.leaders(stores, parent, 2) == [ids[3], ids[2]]


def test_a_store_that_is_away_is_said_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with nobody_there(tmp_path) as away:
        for read in (query.find_parent, read_run, query.children):
            with pytest.raises(PodiumError, match=f"The tracking store {away.tracking_uri} cannot be used"):
                read(away, "0" * 32)


def test_the_comparison_address_survives_quoting(stores: Stores) -> None:
    parent = sweep(stores, "digits", 2)
    runs = query.children(stores, parent)["run_id"].tolist()
    url = query.compare_url(stores, parent, runs, base="http://127.0.0.1:5001/")
    page, _, values = url.partition("?")
    assert page == "http://127.0.0.1:5001/#/compare-runs"
    assert '"' not in url
    assert "[" not in url
    assert json.loads(parse_qs(values)["runs"][0]) == runs
    assert json.loads(unquote(values).partition("experiments=")[2]) == ["1"]


def test_the_comparison_address_is_the_servers_or_else_this_machines(stores: Stores) -> None:
    parent = sweep(stores, "digits", 1)
    line = query.side_by_side(query.compare_url(stores, parent, []))
    if is_server(stores):
        assert line.startswith(f"curves side by side: {stores.tracking_uri}/#/compare-runs?")
    else:
        assert line.startswith("curves side by side (after `make ui`): http://127.0.0.1:5000/#/compare-runs?")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("http://anna:p%40ss@host:5000/x", "http://***@host:5000/x"),
        ("postgresql+psycopg://anna:a@b@db/s", "postgresql+psycopg://***@db/s"),
        ("see https://host/a?token=abc&x=1 now", "see https://host/a?token=***&x=1 now"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("refused for planted-secret", "refused for ***"),
    ],
)
def test_addresses_lose_their_secrets(monkeypatch: pytest.MonkeyPatch, text: str, clean: str) -> None:
    monkeypatch.setitem(os.environ, "MLFLOW_TRACKING_PASSWORD", "planted-secret")
    assert redacted(text) == clean
