"""`podium describe` in words and numbers, of networks that are built in a process of their own."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from podium.errors import InvalidInput
from podium.jobs.describe import describe
from podium.jobs.plan import plan

BASELINE = Path(__file__).parents[2] / "experiments" / "baseline.yaml"


@pytest.mark.slow
def test_the_guides_cnn_is_described_without_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = describe(BASELINE, [], data=None, batch=100)
    assert answer.values["parameters"] == 849_066
    assert answer.values["multiply_adds"] == 39_191_808
    assert (answer.values["image_shape"], answer.values["classes"]) == ([32, 32, 3], 10)
    assert answer.values["receptive_field"] == 36
    first = answer.values["layers"][0]
    assert first == {
        "name": "conv2d",
        "kind": "Conv2D",
        "output_shape": [32, 32, 32],
        "parameters": 896,
        "multiply_adds": 884_736,
        "receptive_field": 3,
    }
    # Weights, gradients and Adam's two moments of what is trained: 1,664 of the weights are moving averages.
    state = 4 * (849_066 + 3 * (849_066 - 1_664))
    assert answer.values["state_bytes"] == state
    assert answer.values["training_bytes"] == state + 2 * 100 * answer.values["activation_bytes"]
    assert list(tmp_path.iterdir()) == [], "nothing is recorded"
    console = Console(file=io.StringIO(), record=True, width=160)
    for part in answer.shown:
        console.print(part, markup=False)
    text = console.export_text()
    assert "849,066 parameters (3.4 MB in float32)" in text
    assert "39,191,808" in text


def test_what_has_no_network_is_neither_described_nor_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assignments = ["classical.name=svm", "precision=auto"]
    with pytest.raises(InvalidInput, match="trains svm, which has no network"):
        describe(BASELINE, assignments, data=None, batch=None)
    quickstart = BASELINE.parents[1] / "sweeps" / "quickstart.yaml"
    with pytest.raises(InvalidInput, match="trains svm; a plan reckons with a network"):
        plan(quickstart, ["classical.name=svm"])
