from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tracking_records import record_trial, rows, stores_in

from podium.stores import Stores
from podium.tracking import query
from podium.tracking.runs import Recorder

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class DroppingProxy:
    """Passes requests on to a server, and answers on to the client but for those that `drops` chooses.

    A dropped answer is that of a request which the server has carried out. `refuse` closes at once.
    """

    def __init__(self, server_port: int, drops: Callable[[bytes], bool]) -> None:
        self.drops = drops
        self.dropped = 0
        self.refuse = False
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._server_port)) as server:
            while not self.refuse and (request := _message(client)):
                server.sendall(request)
                answer = _message(server)
                if self.drops(request):
                    self.dropped += 1
                    return
                client.sendall(answer)


def _message(source: socket.socket) -> bytes:
    """One HTTP message with a Content-Length, or none."""
    content = b""
    while b"\r\n\r\n" not in content:
        part = source.recv(65_536)
        if not part:
            return b""
        content += part
    head, _, body = content.partition(b"\r\n\r\n")
    lengths = [
        line.split(b":")[1] for line in head.lower().splitlines() if line.startswith(b"content-length:")
    ]
    missing = int(lengths[0]) - len(body) if lengths else 0
    while missing > 0:
        part = source.recv(65_536)
        content += part
        missing -= len(part)
    return content


@pytest.fixture
def server_store(tmp_path: Path, empty_store: Path) -> Iterator[tuple[Stores, int]]:
    """A real MLflow server: the stores behind it, and its port."""
    behind = stores_in(tmp_path / "server")
    shutil.copyfile(empty_store, behind.root / "mlflow.db")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", behind.tracking_uri]
    command += ["--artifacts-destination", str(behind.artifact_uri), "--serve-artifacts"]
    with (tmp_path / "server.log").open("w") as log:
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        _wait_until_up(port, server)
        yield behind, port
    finally:
        server.terminate()
        server.wait(60)


def _wait_until_up(port: int, server: subprocess.Popen[bytes]) -> None:
    # Seconds on an idle machine; the limit is for one that is busy.
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        assert server.poll() is None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the MLflow server does not answer")


def test_answers_lost_on_the_way_make_nothing_twice(server_store: tuple[Stores, int], tmp_path: Path) -> None:
    behind, port = server_store
    seen: set[bytes] = set()

    def first_of_each(request: bytes) -> bool:
        """Drop the first answer to each kind of writing request, and to each creation of another run."""
        line = request.splitlines()[0]
        what = request if b"runs/create" in line else line
        again = what in seen
        seen.add(what)
        return line.startswith(b"POST") and b"search" not in line and not again

    proxy = DroppingProxy(port, first_of_each)
    stores = replace(stores_in(tmp_path / "here"), tracking_uri=f"http://anna:geheim@127.0.0.1:{proxy.port}")
    stores = replace(stores, artifact_uri=None)
    recorder = Recorder(stores, experiment="digits", spool_folder=tmp_path / "spool")
    parent = recorder.open_parent(name="digits-1", parameters={"engine.name": "optuna"}, tags={})
    for trial in range(3):
        record_trial(recorder, trial)
    assert recorder.flush(60), recorder.last_error
    assert proxy.dropped >= 5
    assert recorder.problems == []
    assert rows(behind, "select count(*) from runs") == [(4,)]
    assert rows(
        behind, "select count(*), count(distinct run_uuid || '/' || step) from metrics where key='loss'"
    ) == [(9, 9)]
    assert query.children(stores, parent)["status"].tolist() == ["FINISHED"] * 3
    direct = query.histories(behind, query.children(behind, parent)["run_id"].tolist())
    assert query.histories(stores, query.children(stores, parent)["run_id"].tolist()).equals(direct)

    # The server is away: records wait, the reason is told without the password, and all arrives later.
    proxy.refuse = True
    record_trial(recorder, 3)
    assert not recorder.flush(1.5)
    assert "geheim" not in str(recorder.last_error)
    proxy.refuse = False
    assert recorder.flush(60), recorder.last_error
    assert query.children(behind, parent)["status"].tolist() == ["FINISHED"] * 4
    recorder.close()
    proxy.close()
