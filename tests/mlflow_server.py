"""A real MLflow server over HTTP that asks for a user and a password, for tests of several rooms."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from podium.stores import Stores

USER = "anna"
# In an address the @ has to be written as %40.
PASSWORD, PASSWORD_IN_ADDRESS = "geheim@planted-7f3a", "geheim%40planted-7f3a"
START_SECONDS = 200


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server. `root` holds its database (mlflow.db), artifacts and users (users.db)."""

    port: int
    root: Path

    def stores(self, port: int | None = None) -> Stores:
        """The server as Podium's tracking store; its database can be looked into under `root`."""
        return Stores(
            root=self.root,
            tracking_uri=self.uri(port),
            artifact_uri=None,
            study_url=f"sqlite:///{self.root / 'studies.db'}",
        )

    def uri(self, port: int | None = None) -> str:
        """Its address with user and password."""
        return f"http://{USER}:{PASSWORD_IN_ADDRESS}@127.0.0.1:{port or self.port}"

    def empty(self) -> None:
        """Forget all runs, models and experiments, as if it were new."""
        with closing(sqlite3.connect(self.root / "mlflow.db", timeout=30)) as records, records:
            for name in _tables(records):
                if name == "experiments":
                    records.execute("delete from experiments where experiment_id != 0")
                elif name not in ("alembic_version", "workspaces"):
                    records.execute(f"delete from {name}")
        with closing(sqlite3.connect(self.root / "users.db", timeout=30)) as users, users:
            for name in _tables(users):
                if "permission" in name:
                    users.execute(f"delete from {name}")
        shutil.rmtree(self.root / "artifacts", ignore_errors=True)


def _tables(database: sqlite3.Connection) -> list[str]:
    rows = database.execute("select name from sqlite_master where type = 'table'").fetchall()
    return [str(name) for (name,) in rows if not name.startswith("sqlite_")]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def nobody_there(root: Path) -> Iterator[Stores]:
    """Stores whose server is away: its port is held, and nobody listens on it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        yield Stores(root=root, tracking_uri=address, artifact_uri=None, study_url="sqlite://")


@contextmanager
def serving(root: Path) -> Iterator[Server]:
    """Serve the database that lies in `root` until the block ends."""
    port = free_port()
    settings = root / "basic_auth.ini"
    settings.write_text(
        f"[mlflow]\nadmin_username = {USER}\nadmin_password = {PASSWORD}\ndefault_permission = READ\n"
        f"database_uri = sqlite:///{root / 'users.db'}\n"
        # Checking a password takes a tenth of a second.
        "auth_cache_ttl_seconds = 600\n"
    )
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--app-name", "basic-auth"]
    command += ["--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}"]
    command += ["--artifacts-destination", (root / "artifacts").as_uri(), "--serve-artifacts"]
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-tests",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with (root / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        _wait_until_up(port, process, root / "server.log")
        yield Server(port=port, root=root)
    finally:
        process.terminate()
        process.wait(60)


def _wait_until_up(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    # Seconds on an idle machine; the limit is for one that is busy.
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the MLflow server does not answer")
