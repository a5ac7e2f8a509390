"""What must not become the champion, and that nothing has moved afterwards."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from promotion_records import Records, podium

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object) -> None:
        raise AssertionError("the gate refuses before anything is loaded")

    monkeypatch.setattr("podium.jobs.promote.CleanProcess", started)


def _refused(records: Records, *words: str) -> tuple[list[str], str]:
    """Codes and message of a refusal that left everything as it was."""
    before = records.versions(), records.alias("champion"), records.alias("challenger")
    ended = records.command(*words)
    assert ended.code == 3, ended.json
    assert ended.json["status"] == "refused"
    assert ended.json["version"] is None
    assert (records.versions(), records.alias("champion"), records.alias("challenger")) == before
    digest = records.client.get_run(records.trained).data.tags["podium.test_digest"]
    assert records.ledger().count(test_digest=digest, sweep=records.sweep) == 0
    return ended.refusals, ended.json["error"]["message"]


def test_tampered_model_file_is_refused(records: Records) -> None:
    files = records.files()
    content = bytearray(files["best.keras"].read_bytes())
    content[len(content) // 2] ^= 1
    files["best.keras"].write_bytes(content)
    records.confirmed([0.5, 0.6, 0.7], files=files)
    codes, message = _refused(records, records.sweep)
    assert codes == ["tampered-artifact"]
    assert "was changed: SHA-256 recorded" in message
    assert "\n" not in message


@pytest.mark.parametrize("missing", ["best.keras", "predictions.npz"])
def test_missing_artifact_is_refused(records: Records, missing: str) -> None:
    files = records.files()
    del files[missing]
    records.confirmed([0.5, 0.6, 0.7], files=files)
    codes, message = _refused(records, records.sweep)
    assert codes == ["missing-artifact"]
    assert "missing" in message


def test_data_that_is_not_the_runs_is_refused(records: Records) -> None:
    records.confirmed([0.5, 0.6], tags={"podium.train_digest": "0" * 64})
    codes, message = _refused(records, records.sweep)
    assert codes == ["wrong-training-data"]
    assert "recorded 000000000000, found" in message


def test_test_data_that_is_not_the_runs_is_refused(records: Records) -> None:
    records.confirmed([0.5, 0.6], tags={"podium.test_digest": "0" * 64})
    assert _refused(records, records.sweep)[0] == ["wrong-test-data"]


def test_data_that_is_gone_is_refused(records: Records) -> None:
    records.confirmed([0.5, 0.6], params={"data.reference": "npz:gone.npz"})
    codes, message = _refused(records, records.sweep)
    assert codes == ["missing-data"]
    assert "gone.npz" in message


def test_run_of_other_data_than_the_champions_is_refused(records: Records) -> None:
    records.made_up_champion(mean=0.1, **{"podium.train_digest": "1" * 64, "podium.run_id": "another"})
    run_id = records.confirmed([0.5, 0.6, 0.7])[1]
    codes, message = _refused(records, run_id)
    assert codes == ["other-data"]
    assert "other data" in message


def test_run_that_does_not_beat_the_champion_is_refused(records: Records) -> None:
    records.made_up_champion(mean=0.6)
    records.confirmed([0.5, 0.6, 0.7])
    codes, message = _refused(records, records.sweep)
    assert codes == ["not-better"]
    assert "0.6000, not better than 0.6000" in message


def test_run_that_fails_checks_of_its_recipe_is_refused(records: Records) -> None:
    asked = {
        "checks.val_accuracy.at_least": "0.65",
        "checks.gap.at_most": "0.2",
        "checks.train_accuracy": "None",
    }
    records.confirmed([0.5, 0.6, 0.7], params=asked, metrics={"best_accuracy": 0.79})
    codes, message = _refused(records, records.sweep)
    assert codes == ["failed-checks"]
    assert message.endswith("fails checks of its recipe: val_accuracy 0.6000 (at least 0.65).")


def test_a_flag_without_a_reason_waives_nothing(records: Records) -> None:
    records.made_up_champion(mean=0.6)
    records.confirmed([0.5, 0.6, 0.7])
    assert _refused(records, records.sweep, "--anyway", " ")[0] == ["not-better"]


def test_run_with_a_metric_that_is_not_finite_is_refused(records: Records) -> None:
    runs = records.confirmed([0.5, 0.6, 0.7], metrics={"val_loss": math.nan})
    codes, message = _refused(records, runs[1])
    assert codes == ["not-finite"]
    assert "val_loss" in message
    infinite = records.copy(0.5, metrics={"best_loss": math.inf})
    assert "best_loss" in _refused(records, infinite, "--unconfirmed", "why not")[1]


@pytest.mark.parametrize("status", ["FAILED", "KILLED", "RUNNING"])
def test_run_that_is_not_finished_is_refused(records: Records, status: str) -> None:
    run_id = records.copy(0.5, status=status)
    assert "not-finished" in _refused(records, run_id, "--unconfirmed", "why not")[0]


def test_what_no_confirmation_named_is_refused(records: Records) -> None:
    trial = records.copy(0.9)
    for what in (trial, records.sweep, records.trained):
        assert _refused(records, what)[0] == ["unconfirmed"]
    low, high, middle = records.confirmed([0.5, 0.7, 0.6])
    assert "not the median one" in _refused(records, low)[1]
    assert "not the median one" in _refused(records, high)[1]
    assert "a trial of a confirmed sweep" in _refused(records, trial)[1]
    ended = records.command(trial)
    assert ended.json["error"]["remedy"].endswith('--unconfirmed "WHY"')
    assert middle not in json.dumps(ended.json)


def test_nothing_to_roll_back_to_is_refused(records: Records) -> None:
    records.confirmed([0.5])
    assert _refused(records, records.sweep, "--rollback")[0] == ["nothing-before"]
    records.made_up_champion(mean=0.6)
    assert "no version before" in _refused(records, records.sweep, "--rollback")[1]


def test_rollback_takes_no_reasons(records: Records) -> None:
    assert records.command("--rollback", "--again", "why not").code == 2


@pytest.mark.parametrize("name", ["a/b", "a:b", 'a"b', " "])
def test_a_model_name_that_mlflow_would_refuse_is_refused_first(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["promote", "--model", name], ["promote", "--rollback", "--model", name]):
        refused = podium(*words, capsys=capsys)
        assert refused.code == 2
        assert refused.json["error"]["message"].startswith(f"--model: got '{name}'")
    assert list(tmp_path.iterdir()) == []
