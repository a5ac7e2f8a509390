"""`podium gc` removes what nothing needs, only when told so, and never what a resume or a model needs."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow.tracking import MlflowClient

from podium import live
from podium.cli import cli
from podium.coordinator.attempts import source
from podium.coordinator.trial import Plan
from podium.engines.base import Outcome
from podium.engines.listed import ListedEngine
from podium.engines.study import prepare_storage
from podium.recipe import Recipe
from podium.stores import Stores, stores_here
from podium.tracking.runs import prepare_store
from podium.tracking.spool import Spool

pytestmark = pytest.mark.slow

NO_PROCESS = 2**22 + 1  # above every process number of Linux
LONG_AGO = time.time() - 30 * 24 * 3600


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stores = stores_here(tmp_path_factory.mktemp("template"))
    prepare_store(stores)
    prepare_storage(stores.study_url)
    return stores.root


@pytest.fixture
def stores(tmp_path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch) -> Stores:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PODIUM_CACHE", str(tmp_path / "cache"))
    stores = stores_here()
    stores.prepare()
    for name in ("mlflow.db", "studies.db"):
        shutil.copyfile(empty / name, stores.root / name)
    return stores


@pytest.fixture
def study(stores: Stores) -> Iterator[Callable[..., ListedEngine]]:
    """Makes a study: a complete trial, one cut short by its engine, one that runs; and its parent run."""
    engines: list[ListedEngine] = []

    def make(name: str, status: str, *, running: bool = True) -> ListedEngine:
        proposals = [{"optimizer.learning_rate": rate} for rate in (0.1, 0.2, 0.3)]
        engine = ListedEngine(proposals, study_name=name, study_url=stores.study_url, epochs=3)
        engine.remember("document", json.dumps({"recipe": {"training": {"epochs": 3}}}))
        for number in range(3 if running else 2):
            engine.ask()
            engine.note(number, "attempts", 1)
        for number in range(2):
            if number == 1:
                shorten(engine, number)
            engine.tell(number, Outcome(state="complete", value=0.5))
        parent_run(stores, name, status)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


def shorten(engine: ListedEngine, number: int) -> None:
    """As Hyperband does it: fewer epochs than the recipe says."""
    record = engine._record
    trial_id = record.trial_id(number)
    proposal = {**record.get(number).user_attrs["podium.proposal"], "epochs": 1}
    record.storage.set_trial_user_attr(trial_id, "podium.proposal", proposal)


def parent_run(stores: Stores, name: str, status: str) -> None:
    client = MlflowClient(stores.tracking_uri)
    run = client.create_run("0", tags={"podium.kind": "sweep", "podium.study": name})
    client.set_terminated(run.info.run_id, status)


def attempt(stores: Stores, study: str, trial: int, *names: str) -> Path:
    """An attempt's folder with checkpoints 1 and 2 and other files, of 1,000 bytes each."""
    folder = stores.checkpoints / study / f"trial-{trial:04d}" / "attempt-1"
    for checkpoint in ("checkpoint-0001", "checkpoint-0002"):
        (folder / checkpoint).mkdir(parents=True)
        (folder / checkpoint / "weights.npz").write_bytes(b"w" * 1000)
    for name in names:
        (folder / name).write_bytes(b"f" * 1000)
    return folder


def files(root: Path) -> set[str]:
    return {
        str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and ".db" not in path.name
    }


def gc(*words: str) -> dict[str, Any]:
    ended = CliRunner().invoke(cli, ["gc", "--json", *words])
    assert ended.exit_code == 0, ended.output
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


def paths(items: list[dict[str, Any]]) -> set[str]:
    return {str(Path(item["path"]).relative_to(Path.cwd())) for item in items}


def make_old(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        os.utime(path, (LONG_AGO, LONG_AGO))
    os.utime(folder, (LONG_AGO, LONG_AGO))


def test_what_a_finished_sweep_left_is_listed_first_and_removed_when_told(
    stores: Stores, study: Callable[..., ListedEngine], tmp_path: Path
) -> None:
    study("done-1", "FINISHED", running=False)
    attempt(stores, "done-1", 0, "best.keras", "packaged.json")
    attempt(stores, "done-1", 1, "history.json", "packaged.json")
    before = files(tmp_path)
    listed = gc()
    assert files(tmp_path) == before
    assert listed["removed"] is False
    assert paths(listed["items"]) == {"mlruns/checkpoints/done-1"}
    assert listed["bytes"] == 8000
    removed = gc("--yes")
    assert removed["items"] == listed["items"]
    assert not (stores.checkpoints / "done-1").exists()
    assert gc()["items"] == []


def test_what_belongs_to_other_stores_stays(stores: Stores, study: Callable[..., ListedEngine]) -> None:
    study("own-1", "FINISHED", running=False)
    for name, own in (("own-1", True), ("far-1", False)):
        attempt(stores, name, 0)
        (stores.sweeps / name).mkdir()
        live.write_status(stores.sweeps / name, {})
        live.note_stores(
            stores.sweeps / name, stores if own else replace(stores, study_url="postgresql://host/studies")
        )
    answer = gc("--yes")
    assert paths(answer["items"]) == {"mlruns/checkpoints/own-1"}
    assert [(Path(kept["path"]).name, kept["why"]) for kept in answer["kept"]] == [
        ("far-1", "its study and its runs are in other stores: set their addresses to see them")
    ]


def test_a_pruned_trial_whose_files_are_not_in_mlflow_keeps_them(
    stores: Stores, study: Callable[..., ListedEngine]
) -> None:
    study("done-1", "FINISHED", running=False)
    attempt(stores, "done-1", 0, "history.json", "packaged.json")
    only_copy = attempt(stores, "done-1", 1, "history.json")
    assert paths(gc("--yes")["items"]) == {"mlruns/checkpoints/done-1/trial-0000"}
    assert (only_copy / "history.json").is_file()


def test_a_model_that_is_not_in_mlflow_stays(stores: Stores, study: Callable[..., ListedEngine]) -> None:
    study("done-1", "FINISHED", running=False)
    attempt(stores, "done-1", 0, "best.keras", "packaged.json")
    only_copy = attempt(stores, "done-1", 1, "best.keras")
    answer = gc("--yes")
    assert paths(answer["items"]) == {"mlruns/checkpoints/done-1/trial-0000"}
    assert paths(answer["kept"]) == {"mlruns/checkpoints/done-1/trial-0001/attempt-1"}
    assert (only_copy / "best.keras").is_file()


def test_what_a_resume_needs_stays_and_orphans_beside_it_go(
    stores: Stores, study: Callable[..., ListedEngine]
) -> None:
    engine = study("open-1", "RUNNING")
    ended, cut_short, running = (attempt(stores, "open-1", n, "history.json") for n in range(3))
    attempt(stores, "open-1", 7)
    (running / f".checkpoint-0003-{NO_PROCESS}").mkdir()
    (running / f".checkpoint-0003-{os.getpid()}").mkdir()
    answer = gc("--yes")
    base = "mlruns/checkpoints/open-1"
    assert paths(answer["items"]) == {
        f"{base}/trial-0000/attempt-1/checkpoint-0001",
        f"{base}/trial-0000/attempt-1/checkpoint-0002",
        f"{base}/trial-0001/attempt-1/checkpoint-0001",
        f"{base}/trial-0002/attempt-1/.checkpoint-0003-{NO_PROCESS}",
        f"{base}/trial-0007",
    }
    assert [(Path(kept["path"]).name, kept["bytes"]) for kept in answer["kept"]] == [("open-1", 6000)]
    assert (ended / "history.json").is_file()
    assert (cut_short / "checkpoint-0002").is_dir()
    assert len(list(running.glob("checkpoint-*"))) == 2
    # What the next attempt of the running trial goes on from is what it would have gone on from before.
    plan = plan_of(stores.checkpoints / "open-1")
    records = {record.number: record for record in engine.trials()}
    proposal = records[2].proposal
    assert proposal is not None
    assert source(plan, records, proposal, 2) == running


def plan_of(folder: Path) -> Plan:
    def unused(*_: object) -> Any:
        raise AssertionError("nothing is trained here")

    return Plan(
        recipe=Recipe(), metric="val_accuracy", goal="maximize", folder=folder, job=unused, package=unused,
        tags={}, inputs=[],
    )  # fmt: skip


def test_a_finished_sweep_that_has_a_running_trial_again_can_be_resumed(
    stores: Stores, study: Callable[..., ListedEngine]
) -> None:
    study("grown-1", "FINISHED")
    running = attempt(stores, "grown-1", 2)
    gc("--yes")
    assert len(list(running.glob("checkpoint-*"))) == 2


def test_nothing_of_a_sweep_that_runs_is_touched(
    stores: Stores, study: Callable[..., ListedEngine], tmp_path: Path
) -> None:
    study("done-1", "FINISHED", running=False)
    attempt(stores, "done-1", 0)
    attempt(stores, "training-1", 0)
    with live.locked(stores.sweeps / "done-1"), live.locked(stores.sweeps / "training-1"):
        before = files(tmp_path)
        answer = gc("--yes")
        assert files(tmp_path) == before
    assert answer["items"] == []
    assert paths(answer["kept"]) == {"mlruns/checkpoints/done-1", "mlruns/checkpoints/training-1"}
    assert {item["why"] for item in answer["kept"]} == {"its sweep or training runs now"}


def test_of_no_study_goes_unless_mlflow_knows_it_to_be_unfinished(stores: Stores) -> None:
    attempt(stores, "baseline-20261101-120000", 0)
    attempt(stores, "forgotten-1", 0)
    attempt(stores, "elsewhere-1", 0)
    for name in ("forgotten-1", "elsewhere-1"):
        (stores.sweeps / name).mkdir()
        live.write_status(stores.sweeps / name, {})
    parent_run(stores, "elsewhere-1", "KILLED")
    answer = gc("--yes")
    names = {"baseline-20261101-120000", "forgotten-1"}
    assert paths(answer["items"]) == {f"mlruns/checkpoints/{name}" for name in names}
    assert paths(answer["kept"]) == {"mlruns/checkpoints/elsewhere-1"}


def test_old_logs_and_delivered_spools_go_and_others_stay(
    stores: Stores, study: Callable[..., ListedEngine]
) -> None:
    study("old-1", "FINISHED", running=False)
    study("open-1", "RUNNING")
    for name in ("old-1", "open-1", "young", "waiting", "delivered"):
        folder = stores.sweeps / name
        (folder / "logs").mkdir(parents=True)
        (folder / "logs" / "worker-0001.log").write_text("log\n")
        (folder / "lock").touch()
        spool = Spool(folder / "spool")
        spool.append({"kind": "annotate"})
        if name != "waiting":
            spool.acknowledge(1)
        spool.close()
        if name != "young":
            make_old(folder)
    live.write_status(stores.sweeps / "old-1", {})
    make_old(stores.sweeps / "old-1")
    answer = gc("--yes")
    assert paths(answer["items"]) == {
        "mlruns/sweeps/old-1/logs/worker-0001.log",
        "mlruns/sweeps/old-1/spool",
        "mlruns/sweeps/delivered",
    }
    assert [(Path(kept["path"]).parent.name, kept["why"]) for kept in answer["kept"]] == [
        ("waiting", "1 records are not in MLflow")
    ]
    assert live.read_status(stores.sweeps / "old-1") == {}
    assert (stores.sweeps / "young" / "logs" / "worker-0001.log").is_file()


def test_what_killed_processes_left_half_written_goes(stores: Stores, tmp_path: Path) -> None:
    (stores.root / f".mlflow.db.{NO_PROCESS}").mkdir()
    (stores.root / f".write-probe-{NO_PROCESS}").touch()
    (stores.root / f".write-probe-{os.getpid()}").touch()
    cache = tmp_path / "cache"
    for name in ("index", ".building-killed", "train"):
        (cache / name).mkdir(parents=True)
    (cache / "index" / ".writing-young").touch()
    (cache / "index" / ".writing-old").touch()
    os.utime(cache / "index" / ".writing-old", (LONG_AGO, LONG_AGO))
    assert paths(gc("--yes")["items"]) == {
        f"mlruns/.mlflow.db.{NO_PROCESS}",
        f"mlruns/.write-probe-{NO_PROCESS}",
        "cache/.building-killed",
        "cache/index/.writing-old",
    }
    assert (cache / "train").is_dir()


def test_in_an_empty_folder_nothing_is_made_or_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PODIUM_CACHE", str(tmp_path / "cache"))
    assert gc("--yes")["items"] == []
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_asked_is_an_error_and_nothing_goes(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attempt(stores, "some-1", 0)
    before = files(tmp_path)
    monkeypatch.setenv("PODIUM_STUDY_URL", "postgresql://127.0.0.1:9/studies")
    ended = CliRunner().invoke(cli, ["gc", "--yes", "--json"])
    assert ended.exit_code == 2
    assert files(tmp_path) == before
