"""One small real training, and records around copies of it that look like confirmed sweeps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from promotion_records import Records, Workplace

from podium.jobs.train import train

RECIPE = """
model: {depth: 1, filters: 8, dense_units: 128, dropout: 0.1, dense_dropout: 0.1, normalization_momentum: 0.9}
augmentation: {strength: 0.0}
training: {epochs: 3, batch_size: 64}
"""


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A folder in which `podium train` was run once; `PODIUM_CACHE` and `mlruns` lie in it."""
    root = tmp_path_factory.mktemp("promote")
    (root / "tiny.yaml").write_text(RECIPE)
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PODIUM_CACHE", str(root / "cache"))
        os.chdir(root)
        try:
            answer = train(root / "tiny.yaml", [], data=None, seed=None)
        finally:
            os.chdir(before)
    return Workplace(root=root, run_id=str(answer.values["run_id"]))


@pytest.fixture
def records(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Records:
    """The workplace with a ledger and an experiment of this test's own."""
    monkeypatch.chdir(workplace.root)
    monkeypatch.setenv("PODIUM_CACHE", str(workplace.root / "cache"))
    monkeypatch.setenv("PODIUM_STUDY_URL", f"sqlite:///{tmp_path / 'studies.db'}")
    return Records(workplace, sweep=f"sweep-{tmp_path.name}", capsys=capsys, folder=tmp_path)
