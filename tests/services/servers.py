"""Owns the servers of tests: a PostgreSQL cluster of its own and an MLflow server, both on loopback."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

DEBIAN = Path("/usr/lib/postgresql")
USER, SERVER_USER = "podium", "postgres"
SECONDS = 200.0
# `-m immediate` ends processes, not the machine: what was written is in the kernel's hands, flushing adds nothing.
SETTINGS = "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\nmax_connections = 60\n"


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A cluster in `folder`, which belongs to the user `postgres` where root calls: the server refuses root."""

    folder: Path
    port: int
    password: str

    @staticmethod
    def make(folder: Path) -> Postgres:
        """A new cluster, not started. Raises: SystemExit if PostgreSQL is not installed."""
        cluster = Postgres(folder=folder, port=free_port(), password=secrets.token_hex(16))
        folder.mkdir(parents=True)
        _give_away(folder)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(cluster.password)
            file.flush()
            _give_away(Path(file.name))
            words = ["--pgdata", str(cluster.data), "--username", USER, "--pwfile", file.name]
            words += ["--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"]
            cluster._call("initdb", *words)
        with (cluster.data / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS)
        return cluster

    @property
    def data(self) -> Path:
        """The cluster's own folder."""
        return self.folder / "data"

    def start(self) -> None:
        """Start it, and recover what a stop cut off; returns when it answers."""
        log = self.folder / "log.txt"
        self._call(
            "pg_ctl", "start", "--pgdata", str(self.data), "-w", "--log", str(log), "-o", f"-p {self.port}"
        )

    def stop(self, mode: str = "fast") -> None:
        """End it: 'fast', or 'immediate' as a crash does."""
        self._call("pg_ctl", "stop", "--pgdata", str(self.data), "-w", "--mode", mode)

    def copy(self, folder: Path) -> Postgres:
        """A cluster like this one, which must not run, on another port."""
        folder.mkdir()
        shutil.copytree(self.data, folder / "data", symlinks=True)
        (folder / "data").chmod(0o700)
        if os.geteuid() == 0:
            _give_away(folder)
            for path in folder.rglob("*"):
                _give_away(path)
        return Postgres(folder=folder, port=free_port(), password=self.password)

    def url(self, database: str) -> str:
        """The address of one of its databases."""
        return f"postgresql+psycopg://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def _call(self, program: str, *words: str) -> None:
        user = SERVER_USER if os.geteuid() == 0 else None
        # A file, not a pipe: the server that is left behind would hold it open.
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                [str(_binaries() / program), *words],
                cwd=self.folder,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                check=False,
            )
            said.seek(0)
            text = said.read().decode()
        if done.returncode != 0:
            log = self.folder / "log.txt"
            tail = log.read_text()[-2000:] if log.exists() else ""
            raise RuntimeError(f"{program} failed: {text}\n{tail}")


def make_database(url: str, name: str, template: str | None = None) -> str:
    """A new database beside that of `url`, empty or like another one; answers its address."""
    copied = f' TEMPLATE "{template}"' if template else ""
    _execute(url, f'CREATE DATABASE "{name}"{copied}')
    return f"{url.rpartition('/')[0]}/{name}"


def drop_database(url: str, name: str) -> None:
    """Remove a database, whoever uses it."""
    _execute(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def plain(url: str) -> str:
    """An SQLAlchemy address as psycopg takes it."""
    return url.replace("+psycopg", "", 1)


def _execute(url: str, text: str) -> None:
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute(text.encode())


@dataclass(kw_only=True)
class MlflowServer:
    """`mlflow server` with its records in a database and its artifacts in `folder`."""

    folder: Path
    backend: str
    port: int
    process: int = 0

    @property
    def uri(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--serve-artifacts"]
        command += ["--artifacts-destination", (self.folder / "artifacts").as_uri()]
        environment = {
            **os.environ,
            # Not a word of the command line: it holds a password.
            "MLFLOW_BACKEND_STORE_URI": self.backend,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        with (self.folder / "server.log").open("a") as log:
            server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self.process = server.pid
        deadline = time.monotonic() + SECONDS
        while not self.answers():
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"the MLflow server does not answer: {(self.folder / 'server.log').read_text()[-3000:]}"
                )
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return True
        except OSError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it and its workers: asked, or killed with SIGKILL."""
        try:
            server = psutil.Process(self.process)
            if str(self.port) not in server.cmdline():
                return  # it has ended, and its number is another process's
            processes = [server, *server.children(recursive=True)]
            os.killpg(self.process, number)
        except (psutil.NoSuchProcess, ProcessLookupError):
            return
        _, left = psutil.wait_procs(processes, timeout=30)
        for each in left:
            each.kill()


def _binaries() -> Path:
    """Where PostgreSQL's programs are; Debian keeps them off the PATH."""
    versions = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parents[1].name))
    found = str(versions[-1]) if versions else shutil.which("initdb")
    if found is None:
        sys.exit("PostgreSQL is not installed. Debian and Ubuntu: apt-get install -y postgresql")
    return Path(found).parent


def _give_away(path: Path) -> None:
    if os.geteuid() == 0:
        entry = pwd.getpwnam(SERVER_USER)
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
