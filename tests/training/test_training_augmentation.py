"""Flip, rotation and zoom as one warp, held against Keras's three layers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from podium.recipe_sections import AugmentationSettings
from podium.training import augmentation

SIDE = 17
IMAGES = 3000


def coordinates(count: int) -> NDArray[np.float32]:
    """Images (count, SIDE, SIDE, 2) whose pixels hold their own x and y, so that a warped one tells its warp."""
    y, x = np.mgrid[:SIDE, :SIDE].astype("float32")
    return np.broadcast_to(np.stack([x, y], -1), (count, SIDE, SIDE, 2)).copy()


def applied(layers: list[Any], images: NDArray[Any]) -> NDArray[np.float32]:
    for layer in layers:
        images = layer(images, training=True)
    return np.asarray(keras.ops.convert_to_numpy(images))


def warps(layers: list[Any]) -> dict[str, NDArray[np.float32]]:
    """Angle, scale, mirroring and place of the centre of every warped image, read at the centre of the image."""
    found = applied(layers, coordinates(IMAGES))
    middle = SIDE // 2
    along_x = found[:, middle, middle + 1] - found[:, middle, middle]
    along_y = found[:, middle + 1, middle] - found[:, middle, middle]
    determinant = along_x[:, 0] * along_y[:, 1] - along_x[:, 1] * along_y[:, 0]
    return {
        "angle": np.arctan2(along_y[:, 0], along_y[:, 1]) * np.sign(determinant),
        "scale": np.sqrt(np.abs(determinant)),
        "mirrored": (determinant < 0).astype("float32"),
        "centre": np.abs(found[:, middle, middle] - middle).max(-1),
    }


def test_one_warp_is_distributed_as_the_three_stock_layers() -> None:
    stock = [
        keras.layers.RandomFlip("horizontal", seed=1),
        keras.layers.RandomRotation(0.1, seed=2),
        keras.layers.RandomZoom(0.2, seed=3),
    ]
    settings = AugmentationSettings(rotation=0.05, zoom=0.1, strength=2.0)
    expected, got = warps(stock), warps(augmentation.layers(settings, seed=4))
    for name in ("angle", "scale"):
        assert ks_2samp(expected[name], got[name]).pvalue > 0.01, name
        assert got[name].min() == pytest.approx(expected[name].min(), abs=0.02)
        assert got[name].max() == pytest.approx(expected[name].max(), abs=0.02)
    assert got["mirrored"].mean() == pytest.approx(0.5, abs=0.04)
    assert got["centre"].max() < 1e-3


@pytest.mark.parametrize(("turn", "scale"), [(0.0, 1.0), (0.07, 1.0), (-0.2, 1.0), (0.0, 1.3), (0.0, 0.8)])
def test_a_warp_reads_the_pixels_that_keras_reads(turn: float, scale: float) -> None:
    images = np.random.default_rng(0).uniform(0, 255, (2, 12, 9, 3)).astype("float32")
    angle = 2 * np.pi * turn
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], "float32")
    got = keras.ops.convert_to_numpy(
        augmentation.warp(images, np.stack([matrix, matrix]), np.zeros((2, 2), "float32"))
    )
    # A range of one value is no chance.
    layer: Any = keras.layers.RandomRotation((turn, turn))
    if scale != 1.0:
        layer = keras.layers.RandomZoom((scale - 1.0, scale - 1.0))
    np.testing.assert_allclose(got, applied([layer], images), atol=0.05)


def test_pixels_of_8_bits_are_read_as_they_are_and_only_in_training() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    (layer,) = augmentation.layers(AugmentationSettings(strength=1e-9, flip=False), seed=1)
    assert np.abs(applied([layer], images) - images).max() < 1e-3
    (layer,) = augmentation.layers(AugmentationSettings(), seed=1)
    assert np.abs(applied([layer], images) - images).max() > 10
    unchanged = keras.ops.convert_to_numpy(layer(images, training=False))
    assert unchanged.dtype == np.float32
    np.testing.assert_array_equal(unchanged, images)


def test_strength_scales_the_ranges_up_to_what_an_image_bears() -> None:
    assert augmentation.ranges(AugmentationSettings(strength=2.0)) == pytest.approx((0.2, 0.2))
    assert augmentation.ranges(AugmentationSettings(strength=10.0)) == pytest.approx((0.5, 0.9))
    assert augmentation.layers(AugmentationSettings(strength=0.0), seed=1) == []
    assert augmentation.layers(AugmentationSettings(flip=False, rotation=0.0, zoom=0.0), seed=1) == []
    (only,) = augmentation.layers(AugmentationSettings(rotation=0.0, zoom=0.0), seed=1)
    assert isinstance(only, keras.layers.RandomFlip)


def test_seeds_decide_and_every_batch_is_changed_anew() -> None:
    images = coordinates(8)
    first, again, other = (augmentation.layers(AugmentationSettings(), seed=seed) for seed in (1, 1, 2))
    drawn = applied(first, images)
    np.testing.assert_array_equal(drawn, applied(again, images))
    assert np.abs(drawn - applied(other, images)).max() > 0.1
    assert np.abs(drawn - applied(first, images)).max() > 0.1


def test_shifts_are_whole_pixels_and_each_is_as_likely() -> None:
    settings = AugmentationSettings(flip=False, rotation=0.0, zoom=0.0, shift=2)
    (layer,) = augmentation.layers(settings, seed=1)
    found = applied([layer], coordinates(IMAGES))
    middle = SIDE // 2
    moved = found[:, middle, middle] - middle
    np.testing.assert_allclose(moved, np.round(moved), atol=1e-4)
    values, counts = np.unique(np.round(moved).astype(int), return_counts=True)
    assert values.tolist() == [-2, -1, 0, 1, 2]
    assert counts.min() > 0.9 * 2 * IMAGES / 5


def test_contrast_falls_as_often_as_it_rises() -> None:
    layers = augmentation.layers(AugmentationSettings(strength=0.0, contrast=0.5), seed=0)
    images = np.full((400, 4, 4, 1), 60, np.float32)
    images[:, :, ::2] = 160
    spread = np.ptp(applied(layers, images), axis=(1, 2, 3)) / 100
    assert 0.5 <= spread.min() < 0.55
    assert 1.45 < spread.max() <= 1.5
    assert abs((spread < 1).mean() - 0.5) < 0.1


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_erasing_is_the_share_of_images_that_lose_a_patch(share: float) -> None:
    layers = augmentation.layers(AugmentationSettings(strength=0.0, erasing=share), seed=0)
    changed = (applied(layers, np.full((400, 16, 16, 1), 100, np.float32)) != 100).any(axis=(1, 2, 3))
    assert abs(changed.mean() - share) < 0.1
