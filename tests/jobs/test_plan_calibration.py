"""How a plan measures: on a few images, with all workers busy, again where it was over too soon."""

from __future__ import annotations

from pathlib import Path

import plan_trainers
import pytest

from podium.recipe import Recipe
from podium.session import calibration
from podium.session.calibration import Calibration, calibrate
from podium.session.material import Material, gather

TRAIN, VALIDATION = 1150, 287
START = 512  # images of 32 x 32


@pytest.fixture
def material(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Material:
    """The digits, and workers that find the toy trainer."""
    monkeypatch.setenv("PODIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(plan_trainers.__file__).parent))
    monkeypatch.setenv(plan_trainers.NOTES, str(tmp_path / "notes"))
    monkeypatch.setattr(calibration, "TRAINER", "plan_trainers:calibrate")
    recipe = Recipe().with_values({"data.validation.fraction": 0.2})
    return gather(recipe, code=None, largest_batch=32)


def measure(
    material: Material, rates: dict[str, float], *, workers: int = 1, momentum: float = 0.0
) -> Calibration:
    recipes = {
        name: Recipe().with_values({"optimizer.learning_rate": rate, "optimizer.momentum": momentum})
        for name, rate in rates.items()
    }
    return calibrate(recipes, material, metric="val_accuracy", goal="maximize", workers=workers, threads=1)


def noted(tmp_path: Path) -> list[int]:
    return sorted(int(line) for line in (tmp_path / "notes").read_text().splitlines())


@pytest.mark.slow
def test_an_epoch_on_a_few_images_is_reckoned_up_to_all(material: Material, tmp_path: Path) -> None:
    found = measure(material, {"slow": 0.01}).measured["slow"]
    assert noted(tmp_path) == [START]
    assert found.images_per_second == pytest.approx(100.0)
    # 256 of the validation images were among the few.
    expected = (
        0.01 * TRAIN + plan_trainers.VALIDATION_SECONDS * VALIDATION / 256 + plan_trainers.CHECKPOINT_SECONDS
    )
    assert found.epoch_seconds == pytest.approx(expected)
    assert (found.kept_bytes, found.checkpoint_bytes) == (1000, 3000)
    assert (found.peak_bytes, found.parameters, found.device) == (10**8, 7, "toy")


@pytest.mark.slow
def test_what_is_over_too_soon_is_measured_on_more(material: Material, tmp_path: Path) -> None:
    found = measure(material, {"fast": 1e-4, "slow": 0.01}).measured
    assert noted(tmp_path) == [START, START, TRAIN]
    assert (found["fast"].images, found["slow"].images) == (TRAIN, START)


@pytest.mark.slow
def test_no_worker_is_idle_while_another_measures(material: Material, tmp_path: Path) -> None:
    found = measure(material, {"one": 0.01, "two": 0.02, "three": 0.03}, workers=2)
    assert len(noted(tmp_path)) == 4
    assert [round(one.images_per_second) for one in found.measured.values()] == [100, 50, 33]


@pytest.mark.slow
def test_what_cannot_be_trained_is_told_and_the_rest_measured(material: Material) -> None:
    found = measure(material, {"greedy": 0.01}, momentum=0.5)
    assert found.measured == {}
    assert found.failed["greedy"].cause == "memory"
    assert "toys everywhere" in found.failed["greedy"].message
