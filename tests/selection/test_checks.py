"""Checks of a recipe: what passes, what fails, and what is unknown."""

from __future__ import annotations

import numpy as np
import pytest

from podium.recipe_sections import CheckSettings
from podium.selection.checks import Check, failed, of_test, of_training

GUIDE = CheckSettings.model_validate(
    {
        "train_accuracy": {"at_least": 0.85},
        "val_accuracy": {"at_least": 0.75},
        "gap": {"at_most": 0.1},
        "test_accuracy": {"at_least": 0.75},
    }
)


@pytest.mark.parametrize(
    ("train", "validation", "expected"),
    [
        (0.9, 0.85, []),
        (0.85, 0.75, []),
        (0.84, 0.80, ["train_accuracy"]),
        (0.95, 0.80, ["gap"]),
        (0.90, 0.7499, ["val_accuracy", "gap"]),
        (0.80, 0.90, ["train_accuracy"]),
    ],
)
def test_limits_are_inclusive_and_each_check_stands_alone(
    train: float, validation: float, expected: list[str]
) -> None:
    checks = of_training(GUIDE, {"accuracy": train, "val_accuracy": validation})
    assert [each.name for each in failed(checks)] == expected
    assert [each.name for each in checks] == ["train_accuracy", "val_accuracy", "gap"]


def test_a_gap_at_its_limit_passes_whatever_its_last_digit() -> None:
    assert 0.8 - 0.7 > 0.1
    checks = of_training(
        CheckSettings.model_validate({"gap": {"at_most": 0.1}}), {"accuracy": 0.8, "val_accuracy": 0.7}
    )
    assert not failed(checks)


def test_what_is_unknown_fails() -> None:
    assert [each.sentence for each in failed(of_training(GUIDE, {}))] == [
        "train_accuracy unknown (at least 0.85)",
        "val_accuracy unknown (at least 0.75)",
        "gap unknown (at most 0.1)",
    ]
    assert [
        each.name for each in failed(of_training(GUIDE, {"accuracy": 0.9, "val_accuracy": float("nan")}))
    ] == [
        "val_accuracy",
        "gap",
    ]
    assert [each.sentence for each in failed(of_test(GUIDE, None))] == [
        "test_accuracy unknown (at least 0.75)"
    ]


def test_the_test_set_is_no_check_of_a_training() -> None:
    assert "test_accuracy" not in [
        each.name for each in of_training(GUIDE, {"accuracy": 1, "val_accuracy": 1})
    ]
    assert not failed(of_test(GUIDE, 0.75))
    assert failed(of_test(GUIDE, 0.74))


def test_without_checks_nothing_is_asked() -> None:
    assert of_training(None, {"accuracy": 0.0}) == of_test(None, 0.0) == []
    assert of_test(CheckSettings.model_validate({"gap": {"at_most": 0.1}}), 0.0) == []


def test_an_accuracy_at_its_limit_passes_as_keras_gives_it() -> None:
    for share in (0.65, 0.7, 0.9, 0.95):
        as_float32 = float(np.float32(share))
        assert Check(name="val_accuracy", value=as_float32, bound="at_least", limit=share).passed
        assert not Check(name="val_accuracy", value=as_float32 - 1e-3, bound="at_least", limit=share).passed
