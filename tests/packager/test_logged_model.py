from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from podium.errors import PodiumError
from podium.packager.logged_model import log_model, model_shapes, sha256_of
from podium.stores import Stores
from podium.tracking import registry

pytestmark = pytest.mark.slow

# Run with -I and another folder, so that nothing of Podium can be imported.
LOAD = """
import hashlib, importlib.util, json, sys
sys.path = [p for p in sys.path if "podium" not in p and not p.endswith("/src")]
sys.meta_path = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")
                 and "editable" not in repr(f).lower()]
assert importlib.util.find_spec("podium") is None
import mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
import keras
images = np.arange(2 * 8 * 8 * 3, dtype="uint8").reshape(2, 8, 8, 3)
file = keras.saving.load_model(sys.argv[3]).predict(images, verbose=0)
flavour = mlflow.keras.load_model(sys.argv[2]).predict(images, verbose=0)
function = mlflow.pyfunc.load_model(sys.argv[2])
answer = np.asarray(function.predict(images))
folder = mlflow.artifacts.download_artifacts(sys.argv[2])
with open(folder + "/data/model.keras", "rb") as content:
    digest = hashlib.sha256(content.read()).hexdigest()
print(json.dumps({"same": bool((file == flavour).all() and (file == answer).all()),
                  "sum": float(answer.sum()), "sha256": digest, "signature": str(function.metadata.signature)}))
"""


def test_champion_loads_in_plain_keras_and_mlflow_without_podium(
    stores: Stores, client: MlflowClient, run_id: str, keras_file: Path, tmp_path: Path
) -> None:
    log_model(stores, run_id=run_id, model_file=keras_file, sha256=sha256_of(keras_file))  # pays for imports
    started = time.process_time()
    model_id = log_model(stores, run_id=run_id, model_file=keras_file, sha256=sha256_of(keras_file))
    assert time.process_time() - started < 2
    version = registry.create_version(
        stores, model="digits", model_id=model_id, run_id=run_id, tags={}, description="a card"
    )
    registry.set_champion(stores, "digits", version)
    uri = "models:/digits@champion"
    command = [sys.executable, "-I", "-c", LOAD, stores.tracking_uri, uri, str(keras_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["same"]
    assert answer["sum"] == pytest.approx(2.0, abs=1e-5)
    assert answer["sha256"] == hashlib.sha256(keras_file.read_bytes()).hexdigest()
    assert "uint8" in answer["signature"]
    assert "(-1, 8, 8, 3)" in answer["signature"]
    assert "(-1, 5)" in answer["signature"]


def test_logging_the_same_model_again_answers_the_one_that_is_there(
    stores: Stores, client: MlflowClient, run_id: str, keras_file: Path
) -> None:
    first = log_model(stores, run_id=run_id, model_file=keras_file)
    assert log_model(stores, run_id=run_id, model_file=keras_file) == first
    outputs = client.get_run(run_id).outputs.model_outputs
    assert [each.model_id for each in outputs] == [first]
    assert client.get_logged_model(first).tags["podium.model_sha256"] == sha256_of(keras_file)


def test_a_changed_missing_or_foreign_file_is_refused_and_leaves_no_model(
    stores: Stores, client: MlflowClient, run_id: str, keras_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(PodiumError, match="it was changed"):
        log_model(stores, run_id=run_id, model_file=keras_file, sha256="0" * 64)
    with pytest.raises(PodiumError, match="is missing"):
        log_model(stores, run_id=run_id, model_file=tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(PodiumError, match="not a Keras model file"):
        log_model(stores, run_id=run_id, model_file=tmp_path / "text.keras")
    outputs = client.get_run(run_id).outputs
    assert not outputs.model_outputs


def test_shapes_are_read_without_loading_the_model(keras_file: Path) -> None:
    assert model_shapes(keras_file) == ((8, 8, 3), 5)
