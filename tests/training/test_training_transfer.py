"""Transfer: a backbone of keras.applications that is kept, then trained, and saved as stock Keras."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import keras
import numpy as np
import pytest
from training_jobs import SMALL, Reports, make_job

from podium.errors import InvalidInput, TrialFailed
from podium.recipe import Recipe
from podium.recipe_sections import ModelSettings
from podium.result import TrainingArrays
from podium.training import checkpoint, device
from podium.training.backbone import preparation
from podium.training.layers import STOCK, TRAINED, learned_weights
from podium.training.model import build_network
from podium.training.train import train

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="a backbone is trained on TensorFlow alone"
)
TRANSFER: dict[str, Any] = {
    **SMALL,
    "model.network": "transfer",
    "model.backbone": {"name": "MobileNet", "weights": None, "upscale": 4},
    "augmentation.strength": 0.0,
    "callbacks.early_stopping": None,
}


def backbone(file: Path) -> dict[str, np.ndarray]:
    model = keras.saving.load_model(file, compile=False, safe_mode=True)
    return {each.path: each.numpy() for each in model.get_layer("backbone").weights}


@pytest.mark.slow
@pytest.mark.parametrize("averages", [None, 0.5], ids=["weights", "averages"])
def test_a_backbone_is_kept_to_the_bit_then_trained_and_saved_for_plain_keras(
    arrays: TrainingArrays, tmp_path: Path, averages: float | None
) -> None:
    keras.utils.set_random_seed(0)
    original = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    # Statistics as after a training: without them nothing of an image would come through.
    for layer in original.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    original(np.random.default_rng(0).uniform(-1, 1, (32, 32, 32, 3)).astype(np.float32), training=True)
    file = tmp_path / "mobilenet.weights.h5"
    original.save_weights(file)
    values = {
        **TRANSFER,
        "model.backbone": {
            **TRANSFER["model.backbone"],
            "weights": str(file),
            "unfreeze_epoch": 2,
            "unfreeze_rate": 1.0,
        },
        "optimizer.learning_rate": 1e-3,
        "optimizer.ema_momentum": averages,
        "training.epochs": 2,
    }
    expected = {each.path: each.numpy() for each in original.weights}

    first = make_job(arrays, tmp_path / "first", values, epochs=1)
    kept = train(first, Reports())
    assert kept.model_file is not None, kept.not_promotable
    found = backbone(kept.model_file)
    assert found.keys() == expected.keys()
    for path, weight in found.items():
        np.testing.assert_array_equal(weight, expected[path], err_msg=path)

    whole = train(make_job(arrays, tmp_path / "whole", values), Reports())
    job = make_job(arrays, tmp_path / "resumed", values, resume_from=first.folder)
    assert train(job, Reports()).final_weights_sha256 == whole.final_weights_sha256
    before, after = (checkpoint.newest(each.folder, last_epoch=2).state for each in (first, job))
    assert before is not None
    assert after is not None
    pairs = zip(before.weights, after.weights, strict=True)
    changed = sum(not np.array_equal(*pair) for pair in pairs)
    kernels = sum(each.name.endswith("kernel") for each in original.weights)
    assert changed == kernels + 2, "and the head's two; normalisation and preparation stay"


@pytest.mark.slow
def test_layers_that_keras_adds_with_weights_that_it_downloads_are_saved(
    arrays: TrainingArrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras.utils.set_random_seed(0)
    file = tmp_path / "efficientnet.weights.h5"
    plain = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3))
    plain.save_weights(file)
    # In place of the download alone.
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: str(file))
    values = {**TRANSFER, "model.backbone": {"name": "EfficientNetB0", "weights": "imagenet", "upscale": 4}}
    result = train(make_job(arrays, tmp_path / "out", values, epochs=1), Reports())
    assert result.model_file is not None, result.not_promotable
    saved = keras.saving.load_model(result.model_file, compile=False, safe_mode=True)
    added = len(saved.get_layer("backbone").layers) - len(plain.layers)
    assert added == 1, "Keras rescales once more where the weights are ImageNet's"


@pytest.mark.slow
def test_blocks_and_operations_within_a_backbone_are_saved_in_float32() -> None:
    settings = ModelSettings.model_validate(
        {"network": "transfer", "backbone": {"name": "ConvNeXtTiny", "weights": None, "upscale": 4}}
    )
    with device.precision("bfloat16"):
        trained = build_network(settings, (8, 8, 3), 4, TRAINED)
    kinds = replace(STOCK, backbone=trained.get_layer("backbone"))
    saved = build_network(settings, (8, 8, 3), 4, kinds)
    layers = [each for each in saved._flatten_layers() if isinstance(each, keras.layers.Layer)]
    assert {each.dtype_policy.name for each in layers} == {"float32"}
    assert [each.shape for each in saved.weights] == [each.shape for each in learned_weights(trained)]


@pytest.mark.parametrize("name", ["ResNet50", "MobileNet", "DenseNet121", "EfficientNetB0"])
def test_pixels_are_prepared_as_the_backbone_had_them(name: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.float32)
    modules = {
        "ResNet50": keras.applications.resnet,
        "MobileNet": keras.applications.mobilenet,
        "DenseNet121": keras.applications.densenet,
        "EfficientNetB0": keras.applications.efficientnet,
    }
    matrix, offset = preparation(getattr(keras.applications, name))
    expected = modules[name].preprocess_input(images.copy())
    np.testing.assert_allclose(images / 255 @ matrix + offset, expected, atol=1e-3)


def test_what_a_backbone_cannot_be_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(**changes: Any) -> None:
        settings = {"name": "MobileNet", "weights": None, "upscale": 4, **changes}
        model = ModelSettings.model_validate({"network": "transfer", "backbone": settings})
        build_network(model, (8, 8, 1), 10, TRAINED)

    with pytest.raises(TrialFailed, match=r"got 'MobilNet'\. Choose one of keras\.applications: .*ResNet50"):
        build(name="MobilNet")
    with pytest.raises(TrialFailed, match=r"no file /.*gone\.h5"):
        build(weights="gone.h5")
    with pytest.raises(TrialFailed, match=r"takes no images of 8 x 8 \(see upscale"):
        build(upscale=1)
    (tmp_path / "other.h5").write_bytes(b"no weights")
    with pytest.raises(TrialFailed, match=r"other\.h5' does not hold the weights of keras"):
        build(weights=str(tmp_path / "other.h5"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", _no_network)
    with pytest.raises(TrialFailed, match="cannot be downloaded; name a local file"):
        build(weights="imagenet")
    with pytest.raises(InvalidInput, match="needs a backbone"):
        Recipe().with_values({"model.network": "transfer"})


def _no_network(*arguments: Any, **settings: Any) -> None:
    raise URLError("no network")
