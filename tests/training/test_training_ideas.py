"""The recipe keys beyond the guide's: each trains, repeats and resumes to the bit, and is saved as stock Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from training_jobs import FAST, GUIDE, OTHERS, SMALL, Reports, make_job

from podium.recipe import Recipe
from podium.recipe_sections import ModelSettings, OptimizerSettings
from podium.result import TrainingArrays, Verdict
from podium.training import augmentation, data, device, optimizer
from podium.training.export import predict
from podium.training.layers import STOCK, TRAINED, learned_weights
from podium.training.model import build_network, build_training_model
from podium.training.networks import network_outputs, whiten
from podium.training.optimizer_parts import KernelMuon
from podium.training.pruning import trained_part
from podium.training.train import train

IMAGES = np.random.default_rng(3).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)


def test_smoothed_labels_keep_the_losses_that_layers_add() -> None:
    inputs = keras.Input((8, 8, 3))
    kept = keras.layers.Dense(4, activation="softmax", kernel_regularizer=keras.regularizers.L2(0.1))
    network = keras.Model(inputs, kept(keras.layers.Flatten()(inputs)))
    labels = np.arange(40) % 4
    found = []
    for smoothing in (0.0, 1e-9):
        recipe = Recipe().with_values({"training.label_smoothing": smoothing, "augmentation.strength": 0.0})
        model = build_training_model(network, recipe, (8, 8, 3), 4)
        model.compile(loss=keras.losses.SparseCategoricalCrossentropy())
        found.append(float(model.compute_loss(IMAGES, labels, model(IMAGES, training=True))))
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert float(sum(network.losses)) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("values", [FAST, GUIDE, OTHERS], ids=["fast", "guide's ideas", "muon, randaugment"])
def test_training_repeats_resumes_and_is_saved_as_stock_keras(
    arrays: TrainingArrays, tmp_path: Path, values: dict[str, Any]
) -> None:
    settings = {**values, "training.epochs": 2}
    whole = train(make_job(arrays, tmp_path / "whole", settings), Reports())
    assert whole.not_promotable is None
    stopped = make_job(arrays, tmp_path / "stopped", settings)
    assert train(stopped, Reports({1: Verdict.INTERRUPT})).status == "interrupted"
    resumed = train(make_job(arrays, tmp_path / "resumed", settings, resume_from=stopped.folder), Reports())
    assert resumed.final_weights_sha256 == whole.final_weights_sha256
    assert resumed.metrics == whole.metrics
    assert whole.model_file is not None
    saved = keras.saving.load_model(whole.model_file, safe_mode=True)
    assert saved.output_shape == (None, 10)


@pytest.mark.slow
def test_averages_of_weights_are_validated_and_saved_and_the_training_does_not_see_them(
    arrays: TrainingArrays, tmp_path: Path
) -> None:
    settings = {**SMALL, "training.epochs": 3, "callbacks.reduce_lr_on_plateau": None}
    found, curves = {}, {}
    for momentum in (None, 0.0, 0.9):
        reports = Reports()
        job = make_job(arrays, tmp_path / str(momentum), {**settings, "optimizer.ema_momentum": momentum})
        found[momentum] = train(job, reports)
        curves[momentum] = [event.metrics for event in reports.events]
    # Averages of the last weights alone are these weights.
    assert found[0.0].final_weights_sha256 == found[None].final_weights_sha256
    assert curves[0.0] == curves[None]
    assert [each["loss"] for each in curves[0.9]] == [each["loss"] for each in curves[None]]
    assert all(
        one["val_loss"] != other["val_loss"] for one, other in zip(curves[0.9], curves[None], strict=True)
    )
    assert found[0.9].final_weights_sha256 != found[None].final_weights_sha256


def test_whitened_patches_are_decorrelated() -> None:
    settings = ModelSettings(network="fast_cnn", depth=1, filters=2, late_filters=2, whitening=True)
    network = build_network(settings, (8, 8, 3), 4, TRAINED)
    whiten(network, IMAGES)
    layer = network.get_layer("whitening")
    assert not layer.trainable
    maps = np.asarray(keras.ops.convert_to_numpy(layer(IMAGES.astype("float32") / 255)))
    maps = maps.reshape(-1, maps.shape[-1])
    assert np.abs(maps.mean(0)).max() < 1e-3
    half = maps.shape[1] // 2
    covariance = np.cov(maps[:, :half].T)
    np.testing.assert_allclose(covariance, np.eye(half), atol=0.05)
    np.testing.assert_allclose(maps[:, half:], -maps[:, :half], atol=1e-4)


def test_dirac_convolutions_begin_by_handing_their_inputs_on() -> None:
    settings = ModelSettings(depth=1, filters=5, initialization="dirac")
    first, second, *_ = [
        layer for layer in build_network(settings, (8, 8, 3), 4, TRAINED).layers if hasattr(layer, "filters")
    ]
    kernel = keras.ops.convert_to_numpy(second.kernel)
    np.testing.assert_array_equal(kernel[1, 1], np.eye(5))
    assert np.abs(kernel).sum() == 5
    images = np.abs(IMAGES[:2].astype("float32"))
    passed = keras.ops.convert_to_numpy(first(images))
    np.testing.assert_allclose(passed[..., :3], images, rtol=1e-6)
    assert passed[..., 3:].std() > 0


def test_a_network_of_stock_layers_names_no_initialiser_of_ours() -> None:
    settings = ModelSettings(depth=1, filters=2, initialization="dirac")
    assert "Dirac" not in str(build_network(settings, (8, 8, 3), 4).get_config())


def test_residual_blocks_and_attention_are_in_the_network() -> None:
    plain, residual, attended = (
        build_network(ModelSettings(depth=2, filters=8, **more), (8, 8, 3), 4)  # type: ignore[arg-type]
        for more in ({}, {"residual": True}, {"attention": {"ratio": 4}})
    )
    # A 1x1 convolution and its batch normalisation for each block that widens: 3 -> 8 -> 16.
    assert residual.count_params() - plain.count_params() == (3 * 8 + 4 * 8) + (8 * 16 + 4 * 16)
    # Two dense layers a block: 8 -> 2 -> 8 and 16 -> 4 -> 16.
    assert attended.count_params() - plain.count_params() == (8 * 2 + 2 + 2 * 8 + 8) + (
        16 * 4 + 4 + 4 * 16 + 16
    )


@pytest.mark.parametrize("network", ["fast_cnn", "guide_cnn"])
def test_a_prediction_is_the_mean_of_an_image_and_its_mirror_image(network: Any) -> None:
    plain, flipped = (
        ModelSettings(network=network, depth=1, filters=4, late_filters=4, dropout=0.0, test_time_flip=each)
        for each in (False, True)
    )
    images = IMAGES.astype("float32") / 255
    trained = build_network(plain, (8, 8, 3), 4, TRAINED)
    one, other = (predict(trained, views) for views in (images, images[:, :, ::-1]))
    assert np.abs(one - other).max() > 1e-3
    for kinds in (TRAINED, STOCK):
        both = build_network(flipped, (8, 8, 3), 4, kinds)
        for weight, learned in zip(learned_weights(both), learned_weights(trained), strict=True):
            weight.assign(learned)
        np.testing.assert_allclose(predict(both, images), (one + other) / 2, atol=1e-6)


def test_a_network_of_two_views_is_named_the_same_whatever_was_built_before() -> None:
    settings = ModelSettings(depth=1, filters=2, test_time_flip=True)
    one, other = (build_network(settings, (8, 8, 3), 4).get_config() for _ in range(2))
    assert one == other
    assert one["layers"][1]["name"] == "mirror_image"


def test_a_training_step_sees_one_view() -> None:
    settings = ModelSettings(network="fast_cnn", depth=1, filters=4, late_filters=4, dropout=0.0)
    plain = build_network(settings, (8, 8, 3), 4, TRAINED)
    both = build_network(settings.model_copy(update={"test_time_flip": True}), (8, 8, 3), 4, TRAINED)
    both.set_weights(plain.get_weights())
    images = IMAGES.astype("float32") / 255
    np.testing.assert_array_equal(both(images, training=True), plain(images, training=True))


def test_what_is_trained_of_a_saved_model_sees_one_view() -> None:
    settings = ModelSettings(depth=1, filters=4, test_time_flip=True)
    pixels = keras.Input((8, 8, 3), dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 255)(pixels)
    saved = keras.Model(pixels, network_outputs(scaled, settings, (8, 8, 3), 4))
    images = IMAGES.astype("float32") / 255
    one, other = (predict(trained_part(saved), views) for views in (images, images[:, :, ::-1]))
    assert np.abs(one - other).max() > 1e-4
    np.testing.assert_allclose(predict(saved, IMAGES), (one + other) / 2, atol=1e-6)


def test_both_views_are_not_rounded_to_the_networks_precision() -> None:
    settings = ModelSettings(depth=1, filters=4, test_time_flip=True)
    with device.precision("bfloat16"):
        network = build_network(settings, (8, 8, 3), 4, TRAINED)
    images = IMAGES.astype("float32") / 255
    for training in (False, True):
        passed = keras.ops.convert_to_numpy(network.get_layer("both_views")(images, training=training))
        np.testing.assert_array_equal(passed[: len(images)], images)


def test_a_validation_batch_holds_half_as_many_images_of_two_views() -> None:
    one, both = (Recipe().with_values({"model.test_time_flip": flip}) for flip in (False, True))
    sizes = [data.validation_batch_size(recipe, (64, 64, 3)) for recipe in (one, both)]
    assert sizes[0] == 2 * sizes[1]


def test_mixed_images_have_mixed_labels_in_training_only() -> None:
    recipe = Recipe().with_values({"augmentation.mixup": {"alpha": 1.0}, "augmentation.strength": 0.0})
    network = build_network(ModelSettings(depth=1, filters=2), (8, 8, 3), 4)
    model = build_training_model(network, recipe, (8, 8, 3), 4)
    labels = (np.arange(40) % 4).astype("int32")
    batch = {"images": IMAGES, "labels": labels}
    mixed = keras.ops.convert_to_numpy(model(batch, training=True)["labels"])
    np.testing.assert_allclose(mixed.sum(1), 1.0, rtol=1e-5)
    assert ((mixed > 0.01) & (mixed < 0.99)).any()
    still = model(batch, training=False)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(still["labels"]), np.eye(4)[labels])
    expected = network(IMAGES.astype("float32") / 255, training=False)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(still["probabilities"]), keras.ops.convert_to_numpy(expected), atol=1e-5
    )


def test_labels_are_smoothed_in_training_and_not_in_validation() -> None:
    recipe = Recipe().with_values({"training.label_smoothing": 0.4, "augmentation.strength": 0.0})
    network = build_network(ModelSettings(depth=1, filters=2), (8, 8, 3), 4)
    model = build_training_model(network, recipe, (8, 8, 3), 4)
    model.compile(loss="sparse_categorical_crossentropy")
    probabilities = np.array([[0.7, 0.1, 0.1, 0.1]], "float32")
    labels = np.array([0])
    trained = float(model.compute_loss(None, labels, probabilities, training=True))
    validated = float(model.compute_loss(None, labels, probabilities, training=False))
    assert validated == pytest.approx(-np.log(0.7), rel=1e-5)
    assert trained == pytest.approx(-(0.7 * np.log(0.7) + 0.3 * np.log(0.1)), rel=1e-5)


def test_every_image_is_mirrored_in_every_other_epoch(arrays: TrainingArrays) -> None:
    loaded = data.load(arrays)
    batches = data.Batches(loaded, loaded.train, len(loaded.train), seed=4, alternating_flip=True)
    seen = []
    for epoch in range(3):
        batches.start_epoch(epoch)
        images, labels = batches[0]
        order = np.random.default_rng([4, epoch]).permutation(loaded.train)
        np.testing.assert_array_equal(labels, loaded.labels[order])
        mirrored = np.array(
            [
                np.array_equal(image, loaded.images[index][:, ::-1])
                for image, index in zip(images, order, strict=True)
            ]
        )
        seen.append(mirrored[np.argsort(order)])
    np.testing.assert_array_equal(seen[0], ~seen[1])
    np.testing.assert_array_equal(seen[0], seen[2])
    assert 0.3 < seen[0].mean() < 0.7


def test_offsets_of_normalisation_are_trained_at_their_own_rate() -> None:
    settings = OptimizerSettings(name="sgd", learning_rate=0.1, normalization_rate=5.0)
    built = optimizer.build(settings, steps_per_epoch=1, epochs=1)
    layer = keras.layers.BatchNormalization()
    layer.build((None, 2))
    gamma, beta = layer.trainable_variables
    built.build([gamma, beta])
    built.apply([keras.ops.ones(2), keras.ops.ones(2)], [gamma, beta])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(gamma), 0.9, rtol=1e-6)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(beta), -0.5, rtol=1e-6)


def test_lookahead_pulls_weights_to_slow_ones() -> None:
    settings = OptimizerSettings.model_validate(
        {"name": "sgd", "learning_rate": 1.0, "lookahead": {"every": 2, "keep": 0.5}}
    )
    built = optimizer.build(settings, steps_per_epoch=4, epochs=1)
    weight = keras.Variable(np.zeros(1, "float32"))
    built.build([weight])
    found = []
    for _ in range(4):
        built.apply([-keras.ops.ones(1)], [weight])
        found.append(float(keras.ops.convert_to_numpy(weight)[0]))
    # The second step is the first to be kept (nothing slow yet); the fourth keeps 0.5 * (4 / 4) ** 3 of it.
    assert found == pytest.approx([1.0, 2.0, 3.0, 0.5 * 2.0 + 0.5 * 4.0])


def test_one_cycle_rises_from_a_fifth_and_falls_to_its_floor() -> None:
    settings = OptimizerSettings.model_validate(
        {"learning_rate": 2.0, "schedule": {"name": "one_cycle", "warmup_epochs": 1.0, "decay_rate": 0.1}}
    )
    built = optimizer.build(settings, steps_per_epoch=4, epochs=3)
    rates = []
    for step in range(13):
        built.iterations.assign(step)
        rates.append(float(keras.ops.convert_to_numpy(built.learning_rate)))
    rising, falling = np.linspace(0.4, 2.0, 5), np.linspace(2.0, 0.2, 9)
    np.testing.assert_allclose(rates, [*rising, *falling[1:]], rtol=1e-5)


def test_muon_trains_kernels_of_convolutions_as_matrices() -> None:
    settings = OptimizerSettings(name="muon", learning_rate=0.1)
    built = optimizer.build(settings, steps_per_epoch=1, epochs=1)
    kernel = keras.Variable(np.zeros((3, 3, 4, 6), "float32"))
    built.build([kernel])
    gradient = np.random.default_rng(0).normal(size=(3, 3, 4, 6)).astype("float32")
    built.apply([keras.ops.convert_to_tensor(gradient)], [kernel])
    step = keras.ops.convert_to_numpy(kernel).reshape(-1, 6)
    # All directions are taken about equally far, whatever the gradient's sizes along them.
    sizes = np.linalg.svd(step, compute_uv=False)
    assert sizes.max() / sizes.min() < 2.0


@pytest.mark.parametrize("shape", [(54, 16), (16, 54), (16, 16)])
@pytest.mark.parametrize("rank", [16, 3])
def test_muons_steps_are_keras_own(shape: tuple[int, int], rank: int) -> None:
    draw = np.random.default_rng(0).normal
    matrix = draw(size=(shape[0], rank)) @ draw(size=(rank, shape[1])) + 1e-4 * draw(size=shape)
    gradient = keras.ops.convert_to_tensor(matrix.astype("float32"))
    plain = keras.optimizers.Muon().zeropower_via_newtonschulz5(gradient, 5)
    own = KernelMuon().zeropower_via_newtonschulz5(gradient, 5)
    assert float(keras.ops.max(keras.ops.abs(plain))) > 0.1
    np.testing.assert_allclose(own, plain, atol=1e-4)


def test_muon_takes_no_step_without_a_gradient() -> None:
    nothing = keras.ops.zeros((54, 16))
    np.testing.assert_array_equal(KernelMuon().zeropower_via_newtonschulz5(nothing, 5), nothing)


def test_ideas_count_as_another_program() -> None:
    base = Recipe()
    changed = base.with_values({"augmentation.mixup": {"alpha": 0.3}})
    assert augmentation.kinds(base.augmentation) != augmentation.kinds(changed.augmentation)
