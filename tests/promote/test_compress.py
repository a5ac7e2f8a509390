"""Compression: a real model pruned, trained on, and measured; the zeros are looked for in the stored file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from promotion_records import Records, podium

pytestmark = pytest.mark.slow


def kernels(file: Path) -> dict[str, np.ndarray]:
    """The kernels of a .keras file, by path, as plain Keras loads it."""
    model = keras.saving.load_model(file, compile=False, safe_mode=True)
    return {each.path: each.numpy() for each in model.weights if each.name == "kernel"}


def test_small_weights_are_zero_in_the_stored_file_and_the_others_were_trained_on(
    records: Records, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    done = podium("compress", records.trained, "--sparsity", "0.8", "--epochs", "4", capsys=capsys)
    assert done.code == 0
    [made] = done.json["files"]
    run = records.client.get_run(done.json["run_id"])
    assert run.data.tags["podium.compressed_run"] == records.trained
    assert "mlflow.parentRunId" not in run.data.tags, "it is no trial of a sweep"
    file = Path(records.client.download_artifacts(run.info.run_id, made["artifact"], str(tmp_path)))
    before = kernels(records.files()["best.keras"])
    after = kernels(file)
    assert before.keys() == after.keys()
    for path, kernel in after.items():
        away = kernel == 0
        assert away.mean() == pytest.approx(0.8, abs=0.5 / kernel.size + 1e-9), path
        assert np.abs(before[path][away]).max() <= np.abs(before[path][~away]).min(), "the smallest went"
        assert not np.allclose(kernel[~away], before[path][~away], rtol=1e-3), "the others were trained on"
    assert made["sparsity_found"] == pytest.approx(0.8, abs=1e-3)
    assert made["gzip_bytes"] == len(gzip.compress(file.read_bytes(), 9))
    assert made["times_smaller"] > 2
    assert made["accuracy"] > 0.5
    original = records.client.get_run(records.trained).data.metrics["best_val_accuracy"]
    assert done.json["original"]["accuracy"] == pytest.approx(original)
    assert run.data.metrics["sparsity-0.8/val_accuracy"] == made["accuracy"]


def test_shares_that_are_none_and_runs_without_a_model_are_refused(
    records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    shares = podium("compress", records.trained, "--sparsity", "0.5", "1.5", capsys=capsys)
    assert shares.code == 2
    assert "shares between 0 and 1" in shares.json["error"]["message"]
    run_id = records.copy(
        0.9, without_tags=["podium.model_sha256"], tags={"podium.not_promotable": "its layers are foreign"}
    )
    refused = podium("compress", run_id, "--sparsity", "0.5", capsys=capsys)
    assert refused.code == 3
    assert "its layers are foreign" in json.dumps(refused.json["error"])
