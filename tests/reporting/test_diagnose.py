"""What the diagnosis says of recorded curves of real trainings (benchmarks/record_curves.py made them)."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from podium.reporting.diagnose import REMEDIES, diagnose

CURVES = sorted((Path(__file__).parent / "curves").glob("*.json"))


def recorded(name):
    document = json.loads((Path(__file__).parent / "curves" / f"{name}.json").read_text())
    history = pd.DataFrame(document["history"]).astype(float)
    history.insert(0, "epoch", range(1, len(history) + 1))
    return history, document


@pytest.mark.parametrize("name", [path.stem for path in CURVES])
def test_recorded_run_is_diagnosed_as_what_it_was_made_to_show(name):
    history, document = recorded(name)

    found = diagnose(history, classes=document["classes"], stopped_early=document["stopped_early"])

    assert found.tag == document["case"]["finding"], found.sentence
    assert found.remedy == REMEDIES[found.tag]
    assert found.sentence.endswith(".")


def test_recorded_runs_show_every_finding():
    findings = {recorded(path.stem)[1]["case"]["finding"] for path in CURVES}

    assert findings == set(REMEDIES) - {"too short to tell"}


@pytest.mark.parametrize("name", ["healthy-cifar10-augmented", "healthy-digits-augmented"])
def test_healthy_run_cut_short_is_still_improving(name):
    history, _ = recorded(name)

    for epochs in range(4, 7):
        assert diagnose(history.head(epochs), classes=10, stopped_early=False).tag == "still improving"


def test_lag_of_batch_normalisation_is_no_overfitting():
    history, _ = recorded("healthy-digits")
    assert (history["accuracy"] - history["val_accuracy"]).head(3).mean() > 0.15

    assert diagnose(history.head(3), classes=10, stopped_early=False).tag == "still improving"


def test_training_accuracy_below_validation_accuracy_is_healthy_under_dropout():
    history, document = recorded("healthy-digits-augmented")
    assert (history["accuracy"] < history["val_accuracy"]).tail(10).all()

    assert diagnose(history, classes=10, stopped_early=document["stopped_early"]).tag == "healthy"


def test_rising_validation_loss_is_overfitting_also_where_accuracies_agree():
    history, _ = recorded("overfitting-1500-images")
    # As under strong dropout: the same losses, training accuracy no higher than validation accuracy.
    history["accuracy"] = history["val_accuracy"]

    found = diagnose(history, classes=10, stopped_early=False)

    assert found.tag == "overfitting"
    assert "validation loss rose" in found.sentence


def test_loss_that_becomes_infinite_late_has_diverged():
    history, _ = recorded("healthy-digits")
    history.loc[history.index[-1], "loss"] = float("inf")

    assert "epoch 20" in diagnose(history, classes=10, stopped_early=False).sentence


def test_stopping_early_is_not_still_improving():
    history, _ = recorded("improving-cifar10-longer")

    assert diagnose(history, classes=10, stopped_early=True).tag == "underfitting"


def test_order_of_rows_does_not_matter():
    history, _ = recorded("overfitting-500-images")

    shuffled = history.sample(frac=1.0, random_state=0)

    assert diagnose(shuffled, classes=10, stopped_early=False) == diagnose(
        history, classes=10, stopped_early=False
    )


@pytest.mark.parametrize("epochs", [0, 1])
def test_too_few_epochs_are_said_to_be_too_few(epochs):
    history, _ = recorded("improving-cifar10")

    assert diagnose(history.head(epochs), classes=10, stopped_early=False).tag == "too short to tell"


def test_missing_column_is_an_error_that_names_it():
    history, _ = recorded("improving-cifar10")

    with pytest.raises(ValueError, match="history lacks val_accuracy; it has epoch"):
        diagnose(history.drop(columns="val_accuracy"), classes=10, stopped_early=False)


def test_one_class_is_an_error():
    history, _ = recorded("improving-cifar10")

    with pytest.raises(ValueError, match="classes: got 1"):
        diagnose(history, classes=1, stopped_early=False)
