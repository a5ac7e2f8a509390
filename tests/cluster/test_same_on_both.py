"""With one worker a sweep file gives the same proposals and, to the bit, the same weights on both executors."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import real_training
from records import read_study
from sweep_start import Place

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]


def sweep(folder: Path, *options: str) -> tuple[dict[str, Any], Place]:
    place = real_training.RealPlace(folder, name=real_training.NAME)
    folder.mkdir()
    place.rewrite()
    done = subprocess.run(
        [sys.executable, "-m", "podium.cli", "sweep", "sweep.yaml", "training.epochs=2", *options, "--json"],
        cwd=folder,
        env={**os.environ, "AWS_SECRET_ACCESS_KEY": "s3cret", "PODIUM_CACHE": str(folder.parent / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1, done.stdout  # Ray's own messages stay out of it
    return json.loads(done.stdout), place


def test_one_worker_proposes_and_trains_the_same_on_both_executors(tmp_path: Path) -> None:
    here, local = sweep(tmp_path / "local")
    there, ray = sweep(tmp_path / "ray", "--executor", "ray")
    assert (here["study"], here["best"]["params"]) == (there["study"], there["best"]["params"])
    assert there["resume_command"].endswith("--executor ray --resume")
    ended = [real_training.ended(place) for place in (local, ray)]
    assert len(ended[0]) == real_training.TRIALS
    assert ended[0] == ended[1]
    assert [trial.result["model_sha256"] is not None for trial in read_study(ray)[1]] == [True, True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--address", "auto"], "--address: only a sweep with --executor ray takes that"),
        (["--executor", "ray", "--plan"], "--plan measures this machine"),
        (["--executor", "ray", "--num-gpus", "2"], "2.0 is not in the range"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(tmp_path: Path, options: list[str], said: str) -> None:
    real_training.RealPlace(tmp_path, name=real_training.NAME).rewrite()
    command = [sys.executable, "-m", "podium.cli", "sweep", "sweep.yaml", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr
