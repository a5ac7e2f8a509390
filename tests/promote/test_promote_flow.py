"""Promotion with real parts: the clean process, the ledger, the registry."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from promotion_records import Records, with_changed_arrays

from podium.datasets.prepare import prepare
from podium.recipe_sections import DataSettings
from podium.stores import dataset_cache
from podium.verification.clean_process import CleanProcess

pytestmark = pytest.mark.slow

# As a user without Podium would load the champion, with Podium out of reach.
PLAIN = """
import sys
sys.modules["podium"] = None
import json, keras, mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
with np.load(sys.argv[3]) as recorded:
    images, expected = recorded["images"], recorded["probabilities"]
folder = mlflow.artifacts.download_artifacts(sys.argv[2])
plain = keras.saving.load_model(folder + "/data/model.keras").predict(images, verbose=0)
flavour = mlflow.keras.load_model(sys.argv[2]).predict(images, verbose=0)
print(json.dumps([str(images.dtype), float(abs(plain - expected).max()), float(abs(flavour - expected).max())]))
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[CleanProcess]:
    """Every clean process that was started."""
    processes: list[CleanProcess] = []

    class Counted(CleanProcess):
        def __init__(self) -> None:
            super().__init__()
            processes.append(self)

    monkeypatch.setattr("podium.jobs.promote.CleanProcess", Counted)
    return processes


def _look_count(records: Records) -> int:
    digest = records.client.get_run(records.trained).data.tags["podium.test_digest"]
    return records.ledger().count(test_digest=digest, sweep=records.sweep)


def test_median_seed_run_becomes_champion_once_and_loads_without_podium(
    records: Records, started: list[CleanProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, middle = records.confirmed([0.50, 0.70, 0.55])

    with monkeypatch.context() as patch:

        def away(*_: object) -> None:
            raise MlflowException("the store is away")

        patch.setattr(MlflowClient, "set_registered_model_alias", away)
        failed = records.command(records.sweep)
    assert failed.code == 1
    assert records.versions() == [1]
    assert records.alias("champion") is None

    promoted = records.command(records.sweep)
    assert promoted.code == 0
    again = records.command(middle, "--model", records.sweep)
    assert again.json == promoted.json
    assert len(started) == 1
    expected = {
        "model": records.sweep,
        "version": 1,
        "alias": "champion",
        "previous_version": None,
        "run_id": middle,
        "ledger_count": 1,
        "refusals": [],
    }
    assert {key: promoted.json[key] for key in expected} == expected
    assert records.alias("champion") == 1
    assert _look_count(records) == 1

    version = records.client.get_model_version(records.sweep, "1")
    tags = version.tags
    assert json.loads(tags["podium.values"]) == [0.50, 0.70, 0.55]
    assert float(tags["podium.mean"]) == pytest.approx(0.58333333)
    assert json.loads(tags["podium.verified"])["largest_difference"] <= 1e-5
    assert json.loads(tags["podium.verified"])["podium_importable"] is False
    assert json.loads(tags["podium.test_accuracy"]) == promoted.json["test_accuracy"]
    assert len(version.description) < 4_500
    assert "0.5833 ± 0.1041" in version.description
    assert "the median of them" in version.description
    _check_artifacts(records, middle, promoted.json["test_accuracy"], tmp_path)

    predictions = records.files()["predictions.npz"]
    command = [sys.executable, "-I", "-c", PLAIN, records.stores.tracking_uri]
    done = subprocess.run(
        [*command, f"models:/{records.sweep}@champion", str(predictions)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    kind, plain, flavour = json.loads(done.stdout.splitlines()[-1])
    assert kind == "uint8"
    assert max(plain, flavour) <= 1e-5


def _check_artifacts(records: Records, run_id: str, accuracy: float, folder: Path) -> None:
    """The test's numbers follow from its probabilities, and the card holds them."""
    place = Path(records.client.download_artifacts(run_id, "promotion", str(folder)))
    names = {
        "model_card.md",
        "test.json",
        "test_probabilities.npz",
        "confusion_matrix.png",
        "predictions.png",
    }
    assert {file.name for file in place.iterdir()} == names
    with np.load(place / "test_probabilities.npz") as arrays:
        probabilities, labels = arrays["probabilities"], arrays["labels"]
    assert len(labels) == 360
    assert (probabilities.argmax(axis=1) == labels).mean() == pytest.approx(accuracy)
    test = json.loads((place / "test.json").read_text())
    assert np.array(test["confusion"]).trace() == round(accuracy * 360)
    assert np.array(test["confusion"]).sum(axis=1).tolist() == np.bincount(labels, minlength=10).tolist()
    card = (place / "model_card.md").read_text()
    for part in (f"| accuracy | {accuracy:.4f} |", "looked at this test set once", "+0.0500 to +0.1500"):
        assert part in card
    assert "mlflow models serve --env-manager local" in card


def test_better_model_takes_over_with_a_reason_and_can_be_rolled_back(
    records: Records, started: list[CleanProcess], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    records.made_up_champion(mean=0.4)
    digest = records.client.get_run(records.trained).data.tags["podium.test_digest"]
    records.ledger().intend(
        test_digest=digest, model_sha256="0" * 64, sweep=records.sweep, why="the champion"
    )
    asked = {"checks.gap.at_most": "1.0", "checks.test_accuracy.at_least": "1.0"}
    median = records.confirmed([0.5, 0.6, 0.7], params=asked, **records.other_model())[1]

    refused = records.command(records.sweep)
    assert refused.code == 3
    assert refused.refusals == ["looked-before"]
    assert "--again" in refused.json["error"]["remedy"]
    assert _look_count(records) == refused.json["ledger_count"] == 1

    with monkeypatch.context() as patch:

        def killed(process: CleanProcess, **request: Any) -> dict[str, Any]:
            process.process.kill()
            return CleanProcess.evaluate(process, **request)

        patch.setattr("podium.jobs.promote.CleanProcess.evaluate", killed)
        failed = records.command(records.sweep, "--again", "the first try was cut short")
    assert failed.code == 1
    assert "died at 'evaluate'" in failed.json["error"]["message"]
    assert _look_count(records) == 2, "an intent without a result is a look"
    assert (records.versions(), records.alias("champion"), records.alias("challenger")) == ([1], 1, None)

    missed = records.command(records.sweep, "--again", "more trials")
    assert (missed.code, missed.refusals) == (3, ["failed-checks"])
    accuracy = missed.json["test_accuracy"]
    assert (
        f"fails checks of its recipe: test_accuracy {accuracy:.4f} (at least 1)."
        in (missed.json["error"]["message"])
    )
    assert (records.versions(), records.alias("champion"), _look_count(records)) == ([1], 1, 3)

    promoted = records.command(records.sweep, "--anyway", "better than none")
    assert promoted.code == 0
    assert promoted.json["test_accuracy"] == accuracy
    assert (promoted.json["version"], promoted.json["previous_version"]) == (2, 1)
    assert promoted.json["ledger_count"] == 3
    assert (records.alias("champion"), records.alias("challenger")) == (2, 1)
    card = Path(
        records.client.download_artifacts(median, "promotion/model_card.md", str(tmp_path))
    ).read_text()
    assert "looked at this test set 3 times" in card
    gap = records.client.get_run(median).data.metrics["best_accuracy"] - 0.6
    assert (
        f"Checks of its recipe: gap {gap:.4f} (at most 1), test_accuracy {accuracy:.4f} (at least 1)" in card
    )
    assert "Reason given: better than none" in card
    assert all(process.process.returncode is not None for process in started)

    back = records.command(records.sweep, "--rollback")
    assert (back.code, back.json["version"], back.json["previous_version"]) == (0, 1, 2)
    assert (records.alias("champion"), records.alias("challenger")) == (1, 2)
    forth = records.command("--rollback", "--model", records.sweep)
    assert forth.json["run_id"] == median
    assert forth.json["test_accuracy"] == promoted.json["test_accuracy"]
    assert (records.alias("champion"), records.alias("challenger")) == (2, 1)


def test_model_that_predicts_other_than_recorded_is_refused(
    records: Records, started: list[CleanProcess]
) -> None:
    files = records.files()
    with np.load(files["predictions.npz"]) as arrays:
        probabilities = arrays["probabilities"]
    probabilities[63, 0] += 2e-5
    with_changed_arrays(files["predictions.npz"], probabilities=probabilities)
    run_id = records.copy(0.5, files=files)
    refused = records.command(run_id, "--unconfirmed", "a test")
    assert refused.code == 3
    assert refused.refusals == ["other-predictions"]
    assert "differ by 2e-05, allowed 1e-05" in refused.json["error"]["message"]
    assert records.versions() == []
    assert _look_count(records) == 0


def test_data_without_a_test_part_gives_no_test_accuracy(records: Records, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=np.arange(40) % 10)
    reference = f"npz:{tmp_path / 'data.npz'}"
    dataset = prepare(DataSettings(reference=reference), cache=dataset_cache())
    run_id = records.copy(
        0.5,
        params={"data.reference": reference},
        tags={"podium.train_digest": dataset.train_digest},
        without_tags=["podium.test_digest"],
    )
    promoted = records.command(run_id, "--unconfirmed", "a test")
    assert promoted.code == 0, promoted.json
    assert promoted.json["test_accuracy"] is None
    assert promoted.json["ledger_count"] == 0
    assert promoted.json["version"] == records.alias("champion") == 1
    card = Path(
        records.client.download_artifacts(run_id, "promotion/model_card.md", str(tmp_path))
    ).read_text()
    assert "The data has no test part" in card
    assert "Reason given: a test" in card
    assert "no test part" in records.client.get_model_version(records.sweep, "1").description
