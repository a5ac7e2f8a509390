from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from tracking_records import DATA, begin, epoch, record_trial, rows

from podium.errors import PodiumError
from podium.result import EpochEvent
from podium.stores import Stores
from podium.tracking import query
from podium.tracking.delivery import plan
from podium.tracking.runs import Recorder
from podium.tracking.spool import Record

pytestmark = pytest.mark.slow


def open_parent(recorder: Recorder, **tags: str) -> str:
    return recorder.open_parent(name="digits-1", parameters={"engine.name": "optuna"}, tags=tags)


def client(stores: Stores) -> MlflowClient:
    return MlflowClient(stores.tracking_uri, registry_uri=stores.tracking_uri)


def test_a_trial_is_a_child_run_with_parameters_tags_data_and_its_whole_curve(
    stores: Stores, recorder: Recorder
) -> None:
    parent = open_parent(recorder)
    record_trial(
        recorder, 4, parameters={f"key.{n}": n for n in range(150)}, tags={"podium.engine": "optuna"}
    )
    assert recorder.flush(20)
    run_id = recorder.run_id(4)
    assert run_id is not None
    run = client(stores).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert len(run.data.params) == 150
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["podium.trial"] == "4"
    assert run.data.tags["podium.state"] == "complete"
    assert run.data.tags["podium.train_digest"] == DATA.train_digest
    assert run.data.metrics["best_val_accuracy"] == pytest.approx(0.27)
    (data,) = run.inputs.dataset_inputs
    assert len(data.dataset.digest) <= 36
    assert DATA.split_digest in data.dataset.profile
    assert data.tags[0].value == "training"
    curve = query.history(stores, run_id)
    assert curve["epoch"].tolist() == [1, 2, 3]
    assert curve["val_loss"].tolist() == [3.0, 1.5, 1.0]
    assert curve["images_per_second"].tolist() == [100.0, 100.0, 100.0]
    assert recorder.problems == []


def test_epochs_of_a_run_are_written_together_and_with_its_end_but_never_across_it() -> None:
    kinds = [("start", "a"), ("epoch", "a"), ("epoch", "b"), ("epoch", "a"), ("end", "a"), ("start", "a")]
    kinds += [("epoch", "a"), ("epoch", "b")]
    records = [Record(sequence=n, content={"kind": k, "key": key}) for n, (k, key) in enumerate(kinds, 1)]
    steps = plan(records)
    assert [(step.kind, [record.sequence for record in step.records]) for step in steps] == [
        ("start", [1]),
        ("epoch", [3, 8]),
        ("end", [2, 4, 5]),
        ("start", [6]),
        ("epoch", [7]),
    ]


def test_calls_return_at_once_and_a_second_of_epochs_costs_one_batch(recorder: Recorder) -> None:
    open_parent(recorder)
    begin(recorder, 0)
    recorder.wait_for_run_id(0, 20)
    started = time.thread_time()
    for number in range(1, 501):
        recorder.epoch(0, epoch(number))
    assert time.thread_time() - started < 2.0
    before = time.process_time()
    assert recorder.flush(20)
    # 500 batches cost above 3 seconds; 500 epochs of 7 metrics in batches of 1,000 values are 4.
    assert time.process_time() - before < 2.5


def test_pruned_is_killed_and_failed_keeps_its_traceback(stores: Stores, recorder: Recorder) -> None:
    open_parent(recorder)
    begin(recorder, 0)
    recorder.end_run(0, status="KILLED", metrics={}, tags={})
    begin(recorder, 1)
    recorder.end_run(
        1,
        status="FAILED",
        metrics={},
        tags={"podium.cause": "error"},
        text_artifacts={"traceback.txt": "Traceback: x"},
    )
    recorder.end_parent(status="FINISHED", metrics={"trials_total": 2}, tags={})
    assert recorder.flush(20)
    frame = query.children(stores, query.find_parent(stores, "digits"))
    assert frame["status"].tolist() == ["KILLED", "FAILED"]
    assert frame["state"].tolist() == ["pruned", "failed"]
    run_id = str(frame["run_id"][1])
    assert [each.path for each in client(stores).list_artifacts(run_id)] == ["traceback.txt"]
    assert rows(stores, "select count(*) from runs where status = 'RUNNING'") == [(0,)]


def test_infinite_and_nan_metrics_are_left_out_and_named(stores: Stores, recorder: Recorder) -> None:
    open_parent(recorder)
    begin(recorder, 0)
    recorder.epoch(0, epoch(1))
    recorder.epoch(0, epoch(2, val_loss=float("nan")))
    recorder.end_run(0, status="FAILED", metrics={"best_loss": float("inf")}, tags={})
    assert recorder.flush(20)
    run = client(stores).get_run(recorder.wait_for_run_id(0, 1))
    assert run.data.tags["podium.not_finite"] == "val_loss@2, best_loss"
    assert "best_loss" not in run.data.metrics
    assert query.history(stores, run.info.run_id)["val_loss"].notna().tolist() == [True, False]


def test_too_long_a_parameter_is_cut_with_a_mark_and_named(stores: Stores, recorder: Recorder) -> None:
    open_parent(recorder)
    begin(recorder, 0, parameters={"long": "x" * 7000, "short": "y"})
    assert recorder.flush(20)
    run = client(stores).get_run(recorder.wait_for_run_id(0, 1))
    assert len(run.data.params["long"]) == 6000
    assert run.data.params["long"].endswith("... [cut: 7000 characters]")
    assert run.data.tags["podium.cut_parameters"] == "long"


def test_passwords_in_addresses_reach_no_tag_parameter_text_or_spool(
    stores: Stores, recorder: Recorder, tmp_path: Path
) -> None:
    open_parent(recorder)
    address = "postgresql://anna:geheim@db/studies?token=geheim"
    begin(recorder, 0, parameters={"url": address}, tags={"podium.command": f"podium sweep {address}"})
    recorder.end_run(
        0, status="FAILED", metrics={}, tags={}, text_artifacts={"traceback.txt": f"at {address}"}
    )
    assert b"podium sweep" in (tmp_path / "spool" / "spool.jsonl").read_bytes()
    assert b"geheim" not in (tmp_path / "spool" / "spool.jsonl").read_bytes()
    assert recorder.flush(20)
    run_id = recorder.wait_for_run_id(0, 1)
    text = client(stores).download_artifacts(run_id, "traceback.txt", str(tmp_path))
    assert Path(text).read_text() == "at postgresql://***@db/studies?token=***"
    for content in (stores.root / "mlflow.db", stores.root / "mlflow.db-wal"):
        assert b"geheim" not in content.read_bytes()


def test_another_attempt_goes_on_in_the_same_run_and_repeats_no_epoch(
    stores: Stores, recorder: Recorder
) -> None:
    open_parent(recorder)
    begin(recorder, 0)
    for number in (1, 2, 3):
        recorder.epoch(0, epoch(number))
    recorder.end_run(0, status="KILLED", metrics={}, tags={"podium.state": "interrupted"})
    assert recorder.flush(20)
    begin(recorder, 0)
    assert recorder.flush(20)
    first = recorder.run_id(0)
    assert client(stores).get_run(str(first)).info.status == "RUNNING"
    for number in (3, 4):
        recorder.epoch(0, epoch(number))
    recorder.end_run(0, status="FINISHED", metrics={}, tags={})
    assert recorder.flush(20)
    assert rows(stores, "select count(*), count(distinct step) from metrics where key = 'loss'") == [(4, 4)]
    assert rows(stores, "select count(*) from runs") == [(2,)]


def test_a_later_process_goes_on_in_the_runs_of_an_earlier_one(
    stores: Stores, make_recorder: Callable[..., Recorder]
) -> None:
    earlier = make_recorder()
    parent = open_parent(earlier)
    record_trial(earlier, 0)
    begin(earlier, 1)
    earlier.epoch(1, epoch(1))
    earlier.close()
    later = make_recorder()
    later.reopen_parent(parent)
    assert later.wait_for_run_id(0, 20) == earlier.run_id(0)
    begin(later, 1)
    for number in (1, 2):
        later.epoch(1, epoch(number))
    later.end_run(1, status="FINISHED", metrics={}, tags={})
    later.end_parent(status="FINISHED", metrics={}, tags={})
    assert later.flush(20)
    assert later.run_id(1) == earlier.run_id(1)
    frame = query.children(stores, parent)
    assert frame["status"].tolist() == ["FINISHED", "FINISHED"]
    assert len(query.history(stores, str(later.run_id(1)))) == 2


def test_one_key_is_one_parent_run(stores: Stores, recorder: Recorder) -> None:
    first = open_parent(recorder, **{"podium.key": "digits-1"})
    assert open_parent(recorder, **{"podium.key": "digits-1"}) == first
    assert rows(stores, "select count(*) from runs") == [(1,)]


def test_what_mlflow_refuses_holds_up_nothing_and_is_named(stores: Stores, recorder: Recorder) -> None:
    open_parent(recorder)
    begin(recorder, 0, parameters={"good": 1, "not/../a name": 2, "fine": 3})
    recorder.annotate("f" * 32, {"a": "b"})
    record_trial(recorder, 1)
    assert recorder.flush(20)
    assert len(recorder.problems) == 2
    assert "parameter not/../a name of run" in recorder.problems[0]
    found = query.run_frame(stores, [str(recorder.run_id(0))]).iloc[0]
    assert (found["params.good"], found["params.fine"]) == ("1", "3")
    assert "tags of run" in recorder.problems[1]
    assert recorder.run_id(1) is not None


def test_an_end_is_on_record_even_if_its_epochs_are_refused(stores: Stores, recorder: Recorder) -> None:
    open_parent(recorder)
    begin(recorder, 0)
    recorder.epoch(0, EpochEvent(epoch=1, metrics={"not/../a name": 0.5}, seconds=1.0, images=100))
    recorder.end_run(0, status="FINISHED", metrics={"best_val_accuracy": 0.5}, tags={"podium.x": "y"})
    assert recorder.flush(20)
    [problem] = recorder.problems
    assert problem.startswith("epochs of run")
    run = client(stores).get_run(str(recorder.run_id(0)))
    assert (run.info.status, run.data.tags["podium.x"]) == ("FINISHED", "y")
    assert run.data.metrics == {"best_val_accuracy": 0.5}


def test_epochs_are_on_record_even_if_their_end_is_refused(stores: Stores, recorder: Recorder) -> None:
    open_parent(recorder)
    begin(recorder, 0)
    recorder.epoch(0, EpochEvent(epoch=1, metrics={"val_loss": 0.5}, seconds=1.0, images=100))
    recorder.end_run(0, status="FINISHED", metrics={"not/../a name": 0.5}, tags={})
    assert recorder.flush(20)
    [problem] = recorder.problems
    assert problem.startswith("end of run")
    run = client(stores).get_run(str(recorder.run_id(0)))
    assert (run.info.status, run.data.metrics["val_loss"]) == ("FINISHED", 0.5)


def test_epochs_told_again_after_an_end_of_another_process_are_there_once(stores: Stores) -> None:
    event = EpochEvent(epoch=1, metrics={"val_loss": 0.5}, seconds=1.0, images=100)
    first = Recorder(stores, experiment="digits")
    parent = open_parent(first)
    begin(first, 0)
    first.epoch(0, event)
    assert first.flush(20)
    run_id = str(first.run_id(0))
    first.close()
    second = Recorder(stores, experiment="digits")
    second.reopen_parent(parent)
    second.end_run(0, status="KILLED", metrics={}, tags={})
    assert second.flush(20)
    second.epoch(0, event)
    second.end_run(0, status="FINISHED", metrics={}, tags={})
    assert second.flush(20)
    second.close()
    assert rows(stores, f"select count(*) from metrics where run_uuid = '{run_id}' and key = 'val_loss'") == [
        (1,)
    ]


def test_a_trial_that_never_started_has_no_run_id(recorder: Recorder) -> None:
    open_parent(recorder)
    assert recorder.run_id(7) is None
    with pytest.raises(PodiumError, match="trial 7 has no run"):
        recorder.wait_for_run_id(7, 0.2)


def test_parent_without_a_store_is_one_clear_error(sqlite_stores: Stores) -> None:
    (sqlite_stores.root / "mlflow.db").unlink()
    recorder = Recorder(sqlite_stores, experiment="digits")
    with pytest.raises(PodiumError, match=r"tracking store sqlite.* cannot be used"):
        open_parent(recorder)
    recorder.close()
    assert not (sqlite_stores.root / "mlflow.db").exists()
