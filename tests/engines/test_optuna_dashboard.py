"""Optuna's own dashboard reads what both engines leave."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from toy_sweeps import SPACE, play, toy_engine, toy_sweep

METHODS = {
    "optuna": {"name": "optuna", "sampler": "tpe", "pruner": "successive_halving", "seed": 1},
    "hyperband": {"name": "keras_tuner", "oracle": "hyperband", "seed": 1},
}
TRIALS = 8
START_SECONDS = 60.0


@contextmanager
def dashboard(store: str, folder: Path) -> Iterator[str]:
    """The address of a dashboard on a study store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from optuna_dashboard._cli import main; main()", store]
    with (folder / "dashboard.log").open("w") as log:
        server = subprocess.Popen([*command, "--port", str(port), "--quiet"], stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + START_SECONDS
            while True:
                try:
                    _get(f"{address}/api/studies")
                    break
                except urllib.error.URLError:
                    assert server.poll() is None, (folder / "dashboard.log").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            yield address
        finally:
            server.terminate()
            server.wait()


def _get(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_optunas_dashboard_shows_studies_with_their_curves(url: str, tmp_path: Path) -> None:
    epochs = {}
    for name, method in METHODS.items():
        engine = toy_engine(toy_sweep(tmp_path, method), name=name, url=url)
        play(engine, TRIALS)
        epochs[name] = sum(len(trial.curve) for trial in engine.trials())
        engine.close()
    with dashboard(url, tmp_path) as address:
        studies = _get(f"{address}/api/studies")["study_summaries"]
        assert {study["study_name"] for study in studies} == set(METHODS)
        for study in studies:
            shown = _get(f"{address}/api/studies/{study['study_id']}")
            assert len(shown["trials"]) == TRIALS
            values = sum(len(trial["intermediate_values"]) for trial in shown["trials"])
            assert values == epochs[study["study_name"]]
            assert {each["name"] for trial in shown["trials"] for each in trial["params"]} <= set(SPACE)
            assert all(trial["params"] for trial in shown["trials"])
