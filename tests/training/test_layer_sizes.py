"""What each layer of a network is, held to what it is known to be."""

from __future__ import annotations

import keras

from podium.recipe import Recipe
from podium.recipe_sections import ModelSettings
from podium.training.layer_sizes import LayerSize, layer_sizes
from podium.training.model import build_network

layers = keras.layers


def by_kind(sizes: list[LayerSize]) -> list[tuple[str, int | None]]:
    return [(each.kind, each.receptive_field) for each in sizes]


def test_the_guides_cnn_is_as_reckoned_by_hand() -> None:
    """Not the guide's own figures: it says about 1.2 million parameters."""
    sizes = layer_sizes(build_network(Recipe().model, (32, 32, 3), 10))
    convolutions = [each for each in sizes if each.kind == "Conv2D"]
    # 3 x 3 x channels x filters + filters.
    assert [each.parameters for each in convolutions] == [
        9 * 3 * 32 + 32,
        9 * 32 * 32 + 32,
        9 * 32 * 64 + 64,
        9 * 64 * 64 + 64,
        9 * 64 * 128 + 128,
        9 * 128 * 128 + 128,
    ]
    assert sum(each.parameters for each in convolutions) == 287_008
    # Four numbers a channel; the pools leave 4 x 4 x 128 = 2,048 values for the dense layers.
    normalisations = [each.parameters for each in sizes if each.kind == "BatchNormalization"]
    assert normalisations == [128, 128, 256, 256, 512, 512, 1024, 512]
    dense = [each.parameters for each in sizes if each.kind == "Dense"]
    assert dense == [2048 * 256 + 256, 256 * 128 + 128, 128 * 10 + 10]
    assert sum(each.parameters for each in sizes) == 287_008 + 3_328 + 558_730 == 849_066
    # A weight works once at each place of its map: 32 x 32, 16 x 16, 8 x 8.
    assert [each.multiply_adds for each in convolutions] == [
        9 * 3 * 32 * 1024,
        9 * 32 * 32 * 1024,
        9 * 32 * 64 * 256,
        9 * 64 * 64 * 256,
        9 * 64 * 128 * 64,
        9 * 128 * 128 * 64,
    ]
    assert sum(each.multiply_adds or 0 for each in sizes) == 38_633_472 + 558_336 == 39_191_808


def test_the_guides_cnn_sees_as_far_as_reckoned_by_hand() -> None:
    """A window of k pixels adds k - 1 steps to what is seen; each pool doubles the step."""
    sizes = layer_sizes(build_network(Recipe().model, (32, 32, 3), 10))
    seen = [
        each.receptive_field for each in sizes if each.kind in ("Conv2D", "MaxPooling2D", "Flatten", "Dense")
    ]
    assert seen == [3, 5, 6, 10, 14, 16, 24, 32, 36, 0, 0, 0, 0]


def test_strides_dilation_and_branches_count() -> None:
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 5, strides=2, padding="same")(inputs)  # sees 5, steps of 2
    wide = layers.Conv2D(4, 3, dilation_rate=2, padding="same")(x)  # a window of 5: 5 + 4 * 2
    near = layers.Conv2D(4, 1)(x)
    x = layers.Add()([wide, near])
    x = layers.SeparableConv2D(6, 3, padding="same")(x)  # 13 + 2 * 2
    sizes = layer_sizes(keras.Model(inputs, x))
    assert [field for kind, field in by_kind(sizes)] == [5, 13, 5, 13, 17]
    separable = sizes[-1].multiply_adds
    assert separable == (9 * 4 + 4 * 6) * 16 * 16


def test_attention_sees_the_whole_image() -> None:
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    weights = layers.Reshape((1, 1, 4))(layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    x = layers.Multiply()([x, weights])
    assert by_kind(layer_sizes(keras.Model(inputs, x)))[-1] == ("Multiply", 0)


def test_a_network_of_two_views_tells_all_of_its_layers() -> None:
    plain, both = (
        layer_sizes(build_network(ModelSettings(depth=1, filters=2, test_time_flip=flip), (8, 8, 3), 4))
        for flip in (False, True)
    )
    work = [sum(each.multiply_adds or 0 for each in sizes) for sizes in (plain, both)]
    assert work[0] == work[1] > 0, "of one view"
    assert by_kind(both)[-2:] == [("Reshape", 0), ("Mean", 0)]
    assert None not in [each.multiply_adds for each in both]


def nested() -> keras.Model:
    inputs = keras.Input((32, 32, 3))
    return keras.Model(inputs, layers.Conv2D(4, 3)(layers.Conv2D(4, 3)(inputs)), name="inner")


def test_inner_networks_are_opened() -> None:
    inputs = keras.Input((32, 32, 3))
    sizes = layer_sizes(keras.Model(inputs, nested()(inputs)))
    assert by_kind(sizes) == [("Conv2D", 3), ("Conv2D", 5)]
    assert all(each.name.startswith("inner/conv2d") for each in sizes)


def test_what_does_not_tell_how_far_it_sees_is_unknown() -> None:
    inputs = keras.Input((32, 32, 3))
    x = layers.Resizing(32, 32)(layers.MaxPooling2D(2)(inputs))
    sizes = layer_sizes(keras.Model(inputs, nested()(x)))
    assert by_kind(sizes) == [("MaxPooling2D", 2), ("Resizing", None), ("Conv2D", None), ("Conv2D", None)]
