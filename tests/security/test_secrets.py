"""A password in the address of a store reaches no output, no file, no record and no command line."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from mlflow_server import PASSWORD, PASSWORD_IN_ADDRESS, USER, Server, serving

from podium.cli import cli
from podium.stores import Stores, redacted, stores_here
from podium.tracking.runs import prepare_store

PLANTED = tuple(
    text.encode()
    for text in (
        PASSWORD,
        PASSWORD_IN_ADDRESS,
        base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(),
    )
)
RECIPE = """
data: {reference: digits, train_limit: 100, validation: {fraction: 0.2}}
model: {depth: 1, filters: 2, dense_units: 8}
augmentation: {strength: 0.0}
training: {epochs: 1, batch_size: 50}
"""
SWEEP = """
name: small
recipe: recipe.yaml
engine: {name: optuna, sampler: random, pruner: none, seed: 1}
budget: {trials: 1}
space:
  optimizer.learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, scale: log}
"""


def holds_a_planted_one(content: bytes) -> bool:
    return any(secret in content for secret in PLANTED)


@contextmanager
def watched_command_lines() -> Iterator[set[str]]:
    """The command lines of all processes that are started below this one meanwhile."""
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            for process in psutil.Process().children(recursive=True):
                try:
                    seen.add(" ".join(process.cmdline()))
                except psutil.Error:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("server")
    prepare_store(
        Stores(
            root=root, tracking_uri=f"sqlite:///{root}/mlflow.db", artifact_uri=None, study_url="sqlite://"
        )
    )
    with serving(root) as server:
        yield server


@pytest.mark.slow
def test_a_sweep_on_a_server_leaves_no_trace_of_its_password(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri())
    monkeypatch.setenv("PODIUM_CACHE", str(tmp_path / "cache"))
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # to be put back
    environment = dict(os.environ)
    outputs: dict[str, bytes] = {}

    def podium(*words: str) -> None:
        """In a process of its own, as a person calls it."""
        command = [sys.executable, "-m", "podium.cli", *words, "--json"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=300
        )
        assert done.returncode == 0, redacted(done.stderr.decode())
        assert done.stdout.count(b"\n") == 1
        outputs[words[0]] = done.stdout + done.stderr

    with watched_command_lines() as command_lines:
        podium("sweep", "sweep.yaml")
        podium("promote", "small", "--unconfirmed", "to look for a password")
    for words in (["compare", "small", "--report", "report.html"], ["ui"]):
        ended = CliRunner().invoke(cli, [*words, "--json"])
        assert ended.exit_code == 0, redacted(ended.output)
        outputs[words[0]] = (ended.output + caplog.text).encode()
    assert any("podium.packager" in line for line in command_lines)
    assert any("clean_program" in line for line in command_lines)
    assert not [line for line in command_lines if holds_a_planted_one(line.encode())]
    assert not [name for name, output in outputs.items() if holds_a_planted_one(output)]
    assert f"http://127.0.0.1:{server.port}".encode() in outputs["ui"]
    searched = [
        path
        for folder in (tmp_path, server.root)
        for path in folder.rglob("*")
        if path.is_file() and path.name != "basic_auth.ini"
    ]
    names = {path.name for path in searched}
    assert {
        "report.html",
        "mlflow.db",
        "studies.db",
        "model_card.md",
        "best.keras",
        "worker-0001.log",
    } <= names
    assert not [str(path) for path in searched if holds_a_planted_one(path.read_bytes())]


BAD_ADDRESSES = {
    "no driver": {"MLFLOW_TRACKING_URI": f"mysql://anna:{PASSWORD_IN_ADDRESS}@127.0.0.1:9/runs"},
    "nobody there": {"MLFLOW_TRACKING_URI": f"http://anna:{PASSWORD_IN_ADDRESS}@127.0.0.1:9"},
    "an unescaped password": {"MLFLOW_TRACKING_URI": f"http://anna:a/{PASSWORD}@127.0.0.1:9"},
    "no such kind": {"MLFLOW_TRACKING_URI": f"nonsense://anna:{PASSWORD}@127.0.0.1"},
    "a study's driver": {"PODIUM_STUDY_URL": f"postgresql://anna:a/{PASSWORD}@127.0.0.1:9/studies"},
    "a study's argument": {"PODIUM_STUDY_URL": f"postgresql://db/studies?password={PASSWORD}"},
    "a study's port": {"PODIUM_STUDY_URL": f"postgresql://db:{PASSWORD}/studies"},
    "no address": {"PODIUM_STUDY_URL": f"postgresql:/anna:{PASSWORD}@db/studies"},
}


@pytest.mark.parametrize("case", BAD_ADDRESSES, ids=list(BAD_ADDRESSES))
def test_an_error_about_an_address_does_not_tell_its_password(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PODIUM_CACHE", str(tmp_path / "cache"))
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # to be put back
    for name, value in BAD_ADDRESSES[case].items():
        monkeypatch.setenv(name, value)
    ended = CliRunner().invoke(cli, ["sweep", "sweep.yaml", "--json"])
    assert ended.exit_code in (1, 2)
    answer = json.loads(ended.stdout)
    assert answer["error"]["message"]
    assert "unforeseen" not in answer["error"]["message"]
    assert not holds_a_planted_one((ended.output + caplog.text).encode())
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and holds_a_planted_one(path.read_bytes())
    ]


def test_credentials_move_from_the_address_to_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "something")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{USER}:{PASSWORD_IN_ADDRESS}@host:5000/mlflow")
    assert stores_here(tmp_path).tracking_uri == "http://host:5000/mlflow"
    assert stores_here(tmp_path).tracking_uri == "http://host:5000/mlflow"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == USER
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == PASSWORD
    assert redacted(f"wrong password: {PASSWORD}") == "wrong password: ***"


@pytest.mark.parametrize(
    ("address", "password"),
    [
        (f"postgresql://anna:a/{PASSWORD}@db/studies", f"a/{PASSWORD}"),
        (f"postgresql://anna:{PASSWORD_IN_ADDRESS}@db/studies", PASSWORD),
        (f"postgresql://db/studies?user=anna&password={PASSWORD_IN_ADDRESS}", PASSWORD),
        (f"mysql+pymysql://anna:{PASSWORD}?x#@db/studies", f"{PASSWORD}?x#"),
        (f"mysql:/anna:{PASSWORD}@db/studies", PASSWORD),
    ],
)
def test_a_password_is_known_outside_of_its_address(
    monkeypatch: pytest.MonkeyPatch, address: str, password: str
) -> None:
    monkeypatch.setenv("PODIUM_STUDY_URL", address)
    for text in (address, f"({password})", f"cannot open '{address}': denied"):
        assert "geheim" not in redacted(text)
    assert redacted("sqlite:////srv/mlruns/mlflow.db") == "sqlite:////srv/mlruns/mlflow.db"


def test_an_error_that_no_command_explains_is_one_json_object_without_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError(f"no answer from http://{USER}:{PASSWORD_IN_ADDRESS}@host/api, token={PASSWORD}")

    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    monkeypatch.setattr("podium.jobs.schema.schema", broken)
    ended = CliRunner().invoke(cli, ["schema", "--json"])
    assert ended.exit_code == 1
    answer = json.loads(ended.stdout)
    assert answer["status"] == "failed"
    assert answer["error"]["message"].startswith(
        "unforeseen RuntimeError: no answer from http://***@host/api"
    )
    assert "Traceback" in ended.stderr
    assert not holds_a_planted_one(ended.output.encode())
