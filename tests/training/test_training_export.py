"""best.keras: plain Keras alone loads it and it predicts what was recorded."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from podium.digests import weights_digest
from podium.training import data
from podium.training.evaluation import evaluate

pytestmark = pytest.mark.slow

LOAD_WITHOUT_PODIUM = """
import sys
sys.modules["podium"] = None  # importing it raises ImportError
import keras, numpy as np
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
with np.load(sys.argv[2], allow_pickle=False) as kept:
    predicted = model.predict(kept["images"], verbose=0)
    print(kept["images"].dtype, predicted.dtype, np.abs(predicted - kept["probabilities"]).max() < 1e-5)
"""

TRAIN_ANEW = """
import json, sys
from pathlib import Path
from podium.training import device
device.configure(threads=int(sys.argv[1]))
from podium.recipe import Recipe
from podium.result import TrainingArrays, TrainingJob, Verdict
from podium.training.train import train
given = json.loads(sys.argv[2])
arrays = {key: Path(value) if key in ("images", "labels", "split") else value for key, value in given["arrays"].items()}
job = TrainingJob(recipe=Recipe.model_validate(given["recipe"]), arrays=TrainingArrays(**arrays),
                  folder=Path(given["folder"]), epochs=given["epochs"])
result = train(job, lambda event: Verdict.CONTINUE)
print(result.weights_sha256, result.final_weights_sha256, result.threads)
"""


def run_python(code: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_plain_keras_loads_it_without_podium_and_predicts_what_was_recorded(finished: Any) -> None:
    predictions = finished.job.folder / "predictions.npz"
    assert run_python(LOAD_WITHOUT_PODIUM, str(finished.result.model_file), str(predictions)) == [
        "uint8",
        "float32",
        "True",
    ]


def test_a_cold_process_with_as_many_threads_gives_the_same_weights(finished: Any, tmp_path: Path) -> None:
    given = {
        "recipe": finished.job.recipe.model_dump(),
        "arrays": {
            key: str(value) for key, value in vars(finished.job.arrays).items() if key != "class_names"
        },
        "folder": str(tmp_path / "cold"),
        "epochs": finished.job.epochs,
    }
    given["arrays"]["class_names"] = list(finished.job.arrays.class_names)
    result = finished.result
    assert run_python(TRAIN_ANEW, str(result.threads), json.dumps(given)) == [
        result.weights_sha256,
        result.final_weights_sha256,
        str(result.threads),
    ]


def test_the_file_holds_the_best_weights_in_stock_layers(finished: Any) -> None:
    result = finished.result
    assert hashlib.sha256(result.model_file.read_bytes()).hexdigest() == result.model_sha256
    model = keras.saving.load_model(result.model_file)
    assert weights_digest(model.get_weights()) == result.weights_sha256
    assert model.input.dtype == "uint8"
    assert model.output.dtype == "float32"
    kinds = {type(layer).__name__ for layer in model.layers}
    assert "Rescaling" in kinds
    assert not kinds & {"RandomFlip", "RandomRotation", "RandomZoom", "Functional"}
    assert not hasattr(model, "optimizer"), "it was compiled"


def test_recorded_predictions_name_their_images(finished: Any) -> None:
    arrays = data.load(finished.job.arrays)
    with np.load(finished.job.folder / "predictions.npz", allow_pickle=False) as kept:
        np.testing.assert_array_equal(kept["images"], arrays.images[kept["indices"]])
        np.testing.assert_array_equal(kept["labels"], arrays.labels[kept["indices"]])
        assert set(kept["indices"]) <= set(arrays.validation)
        assert kept["probabilities"].dtype == np.float32
        np.testing.assert_allclose(kept["probabilities"].sum(axis=1), 1.0, atol=1e-5)


def test_evaluating_the_file_gives_the_best_epochs_validation_metrics(scheduled: Any) -> None:
    arrays = data.load(scheduled.job.arrays)
    found = evaluate(
        scheduled.result.model_file,
        arrays.images[arrays.validation],
        arrays.labels[arrays.validation],
    )
    assert found.accuracy == pytest.approx(scheduled.result.metrics["val_accuracy"], abs=1e-6)
    assert found.loss == pytest.approx(scheduled.result.metrics["val_loss"], abs=1e-4)
