"""Owns what is done to stores and disks: a proxy before a real MLflow server, a held lock, a small disk, damage."""

from __future__ import annotations

import http.client
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import sweep_start
from servers import MlflowServer, Postgres, free_port, make_database, plain

SERVER_SECONDS = 200.0
SLOW_SECONDS = 0.15
MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")


@contextmanager
def mlflow_server(folder: Path, template: Path) -> Iterator[int]:
    """A real MLflow server on loopback, its stores in `folder`; answers its port."""
    folder.mkdir()
    shutil.copyfile(template / "mlflow.db", folder / "mlflow.db")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", (folder / "artifacts").as_uri(), "--serve-artifacts"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        if not sweep_start.until(lambda: _is_up(port), SERVER_SECONDS):
            raise RuntimeError(f"the MLflow server does not answer: {(folder / 'server.log').read_text()}")
        yield port
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except OSError:
        return False


@contextmanager
def proxy(server_port: int, mode: Path, seed: str) -> Iterator[int]:
    """A process before the server that does what the file `mode` says: pass, down, slow, error, drop.

    'drop' passes on every second request or so and never its answer, 'error' answers 500 in its place.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    child = os.fork()
    if child == 0:
        _serve(listener, server_port, mode, seed)
    port = int(listener.getsockname()[1])
    listener.close()
    try:
        yield port
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _serve(listener: socket.socket, server_port: int, mode: Path, seed: str) -> None:
    chance = random.Random(seed)

    class Passing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            doing = mode.read_text() if mode.exists() else "pass"
            hit = doing in ("down", "slow") or (self.command != "GET" and chance.random() < 0.5)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if doing == "down":
                self.close_connection = True
                return
            if doing == "slow":
                time.sleep(SLOW_SECONDS)
            if doing == "error" and hit:
                self._answer(500, b'{"error_code": "INTERNAL_ERROR", "message": "by order"}')
                return
            connection = http.client.HTTPConnection("127.0.0.1", server_port, timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            if doing == "drop" and hit:
                self.close_connection = True
                return
            self._answer(answer.status, content)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

        def _answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(listener.getsockname()[:2], Passing, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    try:
        server.serve_forever()
    finally:
        os._exit(1)


@contextmanager
def locked(file: Path, seconds: float) -> Iterator[None]:
    """Another process holds an SQLite file's write lock for so long, beginning now."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as database:
            database.execute("begin exclusive")
            os.write(tell, b"locked")
            time.sleep(seconds)
        os._exit(0)
    os.close(tell)
    os.read(ready, 6)
    os.close(ready)
    try:
        yield
    finally:
        os.waitpid(child, 0)


@contextmanager
def tables_locked(url: str | None, seconds: float) -> Iterator[None]:
    """Another process holds the study's tables on a server for so long, beginning now."""
    assert url is not None
    with psycopg.connect(plain(url)) as connection:
        connection.execute("LOCK TABLE studies, trials IN ACCESS EXCLUSIVE MODE")
        ending = threading.Timer(seconds, connection.close)
        ending.start()
        try:
            yield
        finally:
            ending.join()


def stopped_cluster(folder: Path) -> Postgres:
    """A cluster with the databases `studies` and `mlflow`, their tables made, to be copied."""
    postgres = Postgres.make(folder)
    postgres.start()
    try:
        studies = make_database(postgres.url("postgres"), "studies")
        mlflow = make_database(studies, "mlflow")
        child = os.fork()
        if child == 0:
            # In a fork: what MLflow holds open must not be shared.
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            from podium.engines.study import prepare_storage

            prepare_storage(studies)
            SqlAlchemyStore(mlflow, (folder / "artifacts").as_uri())  # type: ignore[no-untyped-call]
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            raise RuntimeError("the databases of a new cluster cannot be prepared")
    finally:
        postgres.stop()
    return postgres


@contextmanager
def servers_of_its_own(
    place: sweep_start.Place, cluster: Postgres, *, with_mlflow: bool
) -> Iterator[tuple[Postgres, MlflowServer]]:
    """A copy of a stopped cluster that keeps the place's study and, with a server, its runs. Epochs take longer."""
    postgres = cluster.copy(place.root / "postgres")
    mlflow = MlflowServer(folder=place.root / "mlflow", backend=postgres.url("mlflow"), port=free_port())
    postgres.start()
    try:
        place.keep_study_in(postgres.url("studies"))
        if with_mlflow:
            mlflow.start()
            place.environment["MLFLOW_TRACKING_URI"] = mlflow.uri
            place.mlflow_database = mlflow.backend
        place.order({}, seconds=0.15)
        yield postgres, mlflow
    finally:
        mlflow.stop()
        postgres.stop("immediate")


@contextmanager
def small_disk(folder: Path, *, kilobytes: int) -> Iterator[None]:
    """`folder` on a file system of its own, what was in it included. Raises: OSError if mounting is not allowed."""
    content = folder.with_name(f"{folder.name}-before")
    folder.rename(content)
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        folder.rmdir()
        content.rename(folder)
        raise PermissionError("a file system cannot be mounted here")
    try:
        shutil.copytree(content, folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, *, leave_kilobytes: int) -> Path:
    """A file that takes all of a disk but so much; others write there at the same time."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while shutil.disk_usage(folder).free > 1024 * leave_kilobytes:
            file.write(bytes(4096))
    return ballast


@contextmanager
def memory_group(name: str, *, megabytes: int) -> Iterator[Path]:
    """A control group whose processes the kernel kills above so much. Raises: OSError if not allowed."""
    group = MEMORY_GROUPS / name
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(megabytes * 2**20))
        yield group
    finally:
        sweep_start.until(lambda: not (group / "cgroup.procs").read_text(), 10)
        group.rmdir()


def damage(checkpoint: Path, chance: random.Random) -> str:
    """Cut a file of a checkpoint short, or change a bit of it."""
    file = chance.choice(sorted(checkpoint.iterdir()))
    content = bytearray(file.read_bytes())
    place = chance.randrange(len(content))
    if chance.random() < 0.5:
        file.write_bytes(content[:place])
        return f"{file.name} cut to {place} bytes"
    content[place] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    return f"a bit of byte {place} of {file.name}"


def tell(mode: Path, doing: str) -> None:
    """Change what a proxy does."""
    temporary = mode.with_suffix(".new")
    temporary.write_text(doing)
    temporary.replace(mode)
