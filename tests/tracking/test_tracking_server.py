from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow_server import Server
from tracking_records import record_trial, rows, stores_in

from podium.tracking import query
from podium.tracking.runs import Recorder

pytestmark = pytest.mark.slow


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


def test_answers_lost_on_the_way_make_nothing_twice(server: Server, tmp_path: Path) -> None:
    behind = stores_in(server.root)
    seen: set[bytes] = set()

    def first_of_each(request: bytes) -> bool:
        """Drop the first answer to each kind of writing request, and to each creation of another run."""
        line = request.splitlines()[0]
        what = request if b"runs/create" in line else line
        again = what in seen
        seen.add(what)
        return line.startswith(b"POST") and b"search" not in line and not again

    proxy = DroppingProxy(server.port, first_of_each)
    stores = server.stores(port=proxy.port)
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
    assert "127.0.0.1" in str(recorder.last_error)
    proxy.refuse = False
    assert recorder.flush(60), recorder.last_error
    assert query.children(behind, parent)["status"].tolist() == ["FINISHED"] * 4
    recorder.close()
    proxy.close()
