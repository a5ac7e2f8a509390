"""Ensembles: stored models of a sweep's trials averaged into one, measured, registered, and promotable."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from promotion_records import Ended, Records, podium, with_changed_arrays

from podium.packager.logged_model import sha256_of
from podium.session.champion import class_names, trained_on
from podium.tracking.artifacts import fetch
from podium.tracking.query import find_parent
from podium.tracking.registry import read_version

pytestmark = pytest.mark.slow


class Sweep:
    """The sweep of a test, with trials whose networks differ."""

    def __init__(self, records: Records, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.records, self._folder, self._capsys = records, folder, capsys
        self.members: dict[str, Path] = {}

    def __call__(self, *words: str) -> Ended:
        return podium(*words, capsys=self._capsys)

    def trial(self, value: float, *, number: int, shift: float, **tags: str) -> str:
        """A complete trial whose last layer prefers a class by `shift`; its files are as a training leaves them."""
        files = self.records.files()
        recipe = fetch(self.records.stores, self.records.trained, "recipe.yaml", self._folder)
        assert recipe is not None
        network = keras.saving.load_model(files["best.keras"], compile=False)
        weights = network.get_weights()
        weights[-1][number] += shift
        network.set_weights(weights)
        network.save(files["best.keras"])
        with np.load(files["predictions.npz"]) as recorded:
            images = recorded["images"]
        probabilities = network(images, training=False).numpy()
        with_changed_arrays(files["predictions.npz"], probabilities=probabilities)
        kept = self._folder / f"{number}.keras"
        kept.write_bytes(files["best.keras"].read_bytes())
        given = {"podium.trial": str(number), "podium.model_sha256": sha256_of(kept), **tags}
        run_id = self.records.copy(value, tags=given, files={**files, "recipe.yaml": recipe})
        self.members[run_id] = kept
        return run_id


@pytest.fixture
def sweep(records: Records, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Sweep:
    return Sweep(records, tmp_path, capsys)


def test_an_ensemble_is_the_mean_of_the_best_models_registered_without_an_alias_and_promotable(
    sweep: Sweep, tmp_path: Path
) -> None:
    records = sweep.records
    best = sweep.trial(0.9, number=1, shift=2.0)
    sweep.trial(0.2, number=2, shift=50.0)
    second = sweep.trial(0.8, number=3, shift=-2.0)
    sweep.trial(0.95, number=4, shift=0.0, **{"podium.duplicate_of": "1"})
    done = sweep("ensemble", records.sweep, "--top", "2")
    assert (done.code, done.json["warnings"], done.json["alias"]) == (0, [], None)
    assert [each["run_id"] for each in done.json["members"]] == [best, second]
    assert (records.versions(), records.alias("champion")) == ([1], None)
    run = records.client.get_run(done.json["run_id"])
    assert json.loads(run.data.tags["podium.members"]) == [best, second]
    assert find_parent(records.stores, records.sweep) == records.parent

    # By hand, from the registered files: stock Keras in safe mode, bytes in, the mean out.
    version = records.client.get_model_version(records.sweep, "1")
    file = fetch(records.stores, run.info.run_id, "best.keras", tmp_path)
    assert file is not None
    assert sha256_of(file) == version.tags["podium.model_sha256"] == done.json["model_sha256"]
    whole = keras.saving.load_model(file, compile=False, safe_mode=True)
    assert any(type(layer) is keras.layers.Average for layer in whole.layers)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    alone = [
        keras.saving.load_model(sweep.members[each], compile=False)(images, training=False).numpy()
        for each in (best, second)
    ]
    assert np.abs(alone[0] - alone[1]).max() > 0.05, "equal members would prove nothing"
    np.testing.assert_allclose(whole(images, training=False).numpy(), np.mean(alone, axis=0), atol=1e-6)
    assert run.data.metrics["best_val_accuracy"] == done.json["val_accuracy"]

    # Its first version passed no gate: promotion takes nothing from it, and tests.
    refused = sweep("promote", done.json["run_id"])
    assert refused.refusals == ["unconfirmed"]
    assert "an average of trials" in refused.json["error"]["message"]
    promoted = sweep("promote", done.json["run_id"], "--unconfirmed", "a test")
    assert (promoted.code, promoted.json["version"], records.alias("champion")) == (0, 2, 2)
    assert promoted.json["ledger_count"] == 1
    assert promoted.json["test_accuracy"] > 0.2

    # What predict and export go by, of either version.
    for number in (1, 2):
        found = read_version(records.stores, records.sweep, number)
        data = trained_on(records.stores, found)
        assert class_names(records.stores, found, 10) == data.dataset.class_names


def test_what_cannot_be_averaged_truly_leaves_no_version(sweep: Sweep) -> None:
    records = sweep.records
    first = sweep.trial(0.9, number=1, shift=1.0)
    few = sweep("ensemble", records.sweep, "--top", "2")
    assert few.code == 2
    assert "the sweep has 1 complete trials" in few.json["error"]["message"]
    second = sweep.trial(0.8, number=2, shift=1.0, **{"podium.split_digest": "0" * 64})
    other = sweep("ensemble", records.sweep, "--top", "2")
    assert other.code == 3
    assert "split digests differ" in other.json["error"]["message"]
    digest = records.client.get_run(first).data.tags["podium.split_digest"]
    records.client.set_tag(second, "podium.split_digest", digest)
    records.client.set_tag(second, "podium.model_sha256", "0" * 64)
    changed = sweep("ensemble", records.sweep, "--top", "2")
    assert changed.code == 1
    assert "was changed" in changed.json["error"]["message"]
    assert records.versions() == []
