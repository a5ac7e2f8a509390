"""The networks, their precision, optimizers and augmentation; nothing is trained here."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from podium.errors import TrialFailed
from podium.recipe import Recipe
from podium.recipe_sections import ModelSettings, OptimizerSettings
from podium.training import device, optimizer
from podium.training.model import build_network, build_training_model


def test_the_default_network_is_the_guides_with_849066_parameters() -> None:
    network = build_network(ModelSettings(), (32, 32, 3), 10)
    assert network.count_params() == 849_066
    kinds = [type(layer).__name__ for layer in network.layers[1:]]
    block = ["Conv2D", "BatchNormalization"] * 2 + ["MaxPooling2D", "Dropout"]
    assert kinds == block * 3 + ["Flatten"] + ["Dense", "BatchNormalization", "Dropout"] * 2 + ["Dense"]
    assert [layer.filters for layer in network.layers if hasattr(layer, "filters")] == [
        32,
        32,
        64,
        64,
        128,
        128,
    ]
    assert [layer.rate for layer in network.layers if hasattr(layer, "rate")] == [0.25] * 3 + [0.5] * 2


def test_training_model_adds_scaling_and_augmentation_but_nothing_to_learn() -> None:
    network = build_network(ModelSettings(depth=1, filters=2), (8, 8, 3), 4)
    model = build_training_model(network, Recipe(), (8, 8, 3), 4)
    assert len(model.trainable_weights) == len(network.trainable_weights)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    scaled = images.astype("float32") / np.float32(255.0)
    expected = keras.ops.convert_to_numpy(network(scaled, training=False))
    # Without training=True nothing is random: no flip, no rotation, no dropout.
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(images, training=False)), expected, atol=1e-6)


def test_an_image_too_small_for_the_depth_is_named() -> None:
    with pytest.raises(TrialFailed, match=r"model\.depth: got 4, .* 8 x 12 pixels bear 3 at most"):
        build_network(ModelSettings(depth=4), (8, 12, 1), 10)
    assert build_network(ModelSettings(depth=3, filters=1), (8, 12, 1), 10).output_shape == (None, 10)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_reduced_precision_computes_in_16_bits_and_keeps_weights_and_output_in_32(name: str) -> None:
    with device.precision(name):
        network = build_network(ModelSettings(depth=1, filters=2), (8, 8, 1), 3)
        model = build_training_model(network, Recipe(), (8, 8, 1), 3)
        model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    assert keras.config.dtype_policy().name == "float32"
    assert network.layers[1].compute_dtype == name
    assert {weight.dtype for weight in network.weights} == {"float32"}
    assert model.output.dtype == "float32"
    scales_loss = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scales_loss == (name == "float16")


@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "sgd", "rmsprop"])
def test_every_optimizer_takes_its_settings(name: str) -> None:
    settings = OptimizerSettings.model_validate(
        {
            "name": name,
            "learning_rate": 0.01,
            "weight_decay": 0.125,
            "clipnorm": 2.0,
            "momentum": 0.5,
            "nesterov": True,
        }
    )
    built = optimizer.build(settings, steps_per_epoch=5, epochs=2)
    assert type(built).__name__.lower() == name
    assert (float(built.weight_decay), built.clipnorm) == (0.125, 2.0)
    assert getattr(built, "momentum", 0.5) == 0.5
    assert getattr(built, "nesterov", True) is True
    off = optimizer.build(settings.model_copy(update={"weight_decay": 0.0}), steps_per_epoch=5, epochs=2)
    assert not off.weight_decay


def rates(settings: dict[str, object], steps: int) -> list[float]:
    schedule = OptimizerSettings.model_validate({"learning_rate": 0.1, "schedule": settings})
    built = optimizer.build(schedule, steps_per_epoch=10, epochs=4)
    reader = optimizer.LearningRate(built, schedule, 10, 4)
    found = []
    for step in range(1, steps + 1):
        built.iterations.assign(step)
        found.append(reader.of_last_step())
    return found


def test_cosine_schedule_warms_up_and_ends_at_its_floor() -> None:
    found = rates({"name": "cosine", "warmup_epochs": 1.0, "decay_rate": 0.05}, 41)
    assert found[0] == 0.0
    np.testing.assert_allclose(found[:11], np.linspace(0.0, 0.1, 11), rtol=1e-5)
    cosine = 0.1 * (0.05 + 0.95 * (1 + np.cos(np.pi * np.arange(31) / 30)) / 2)
    np.testing.assert_allclose(found[10:], cosine, rtol=1e-4)


def test_exponential_schedule_falls_by_its_factor_over_all_steps() -> None:
    found = rates({"name": "exponential", "decay_rate": 0.01}, 41)
    np.testing.assert_allclose(found, 0.1 * 0.01 ** (np.arange(41) / 40), rtol=1e-4)


def test_constant_schedule_stays_where_its_warm_up_ends() -> None:
    found = rates({"name": "constant", "warmup_epochs": 1.0}, 41)
    np.testing.assert_allclose(found[:11], np.linspace(0.02, 0.1, 11), rtol=1e-5)
    assert set(found[10:]) == {0.1}


def test_a_fixed_rate_is_reported_as_it_was_typed() -> None:
    settings = OptimizerSettings(learning_rate=0.001)
    built = optimizer.build(settings, steps_per_epoch=5, epochs=2)
    assert optimizer.LearningRate(built, settings, 5, 2).of_last_step() == 0.001
