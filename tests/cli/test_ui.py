"""`podium ui` serves MLflow to this machine, to others with a password alone, and takes its server with it."""

from __future__ import annotations

import base64
import os
import pty
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

START_SECONDS = 120
CREATE = "/api/2.0/mlflow/experiments/create"
READ = "/api/2.0/mlflow/experiments/get?experiment_id=0"
PLANTED = "planted-in-the-environment"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Ui:
    """A `podium ui` that runs, on a terminal if it has one."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]
    terminal: bytearray = field(default_factory=bytearray)

    def ask(self, path: str, body: str | None = None, **headers: str) -> int:
        """The status of a request: a GET, or a POST of JSON if there is a body."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=None if body is None else body.encode(),
            headers={"Content-Type": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            with error:
                return int(error.code)

    def is_up(self) -> bool:
        try:
            return self.ask("/health") == 200
        except OSError:
            return False

    def processes(self) -> list[psutil.Process]:
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]


def _command(port: int, *words: str) -> list[str]:
    return [sys.executable, "-m", "podium.cli", "ui", "--port", str(port), *words]


@contextmanager
def running(folder: Path, *words: str, on_terminal: bool = False, **environment: str) -> Iterator[Ui]:
    port = free_port()
    log = folder / "ui.log"
    master, slave = pty.openpty() if on_terminal else (-1, os.open(log, os.O_WRONLY | os.O_CREAT, 0o600))
    try:
        process = subprocess.Popen(
            _command(port, *words),
            cwd=folder,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=slave,
        )
    finally:
        os.close(slave)
    ui = Ui(port=port, folder=folder, process=process)
    reader = threading.Thread(target=_read, args=(master, ui.terminal), daemon=True)
    if on_terminal:
        reader.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ui.is_up():
            assert process.poll() is None, log.read_text() if log.exists() else bytes(ui.terminal)
            assert time.monotonic() < deadline
            time.sleep(0.3)
        yield ui
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        if on_terminal:
            reader.join(10)
            os.close(master)


def _read(master: int, into: bytearray) -> None:
    while True:
        try:
            part = os.read(master, 65_536)
        except OSError:  # how Linux says that the other end is closed
            return
        into += part


@pytest.mark.slow
def test_ui_serves_this_machine_alone_and_ends_with_its_server(tmp_path: Path) -> None:
    # What a person has set for other servers does not open this one.
    others = {"MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true", "MLFLOW_SERVER_ALLOWED_HOSTS": "*"}
    others["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] = "*"
    with running(tmp_path, **others) as ui:
        listening = {
            connection.laddr.ip
            for process in ui.processes()
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        assert ui.ask("/") == 200
        assert ui.ask(READ, Host=f"localhost:{ui.port + 1}") == 200  # through a tunnel
        for foreign in (
            "evil.example",
            f"evil.example:{ui.port}",
            "10.evil.example",
            "127.0.0.1.evil.example",
        ):
            assert ui.ask("/", Host=foreign) == 403
            assert ui.ask(READ, Host=foreign) == 403
        for number, origin in enumerate(("http://evil.example", "https://127.0.0.1.evil.example", "null")):
            body = f'{{"name": "foreign {number}"}}'
            assert ui.ask(CREATE, body, Origin=origin) == 403
            assert ui.ask(CREATE.replace("/api", "/ajax-api"), body, Origin=origin) == 403
            # Elsewhere MLflow answers what a page of another origin may not ask: only JSON, which it may not send.
            assert ui.ask("/graphql", "{}", Origin=origin, **{"Content-Type": "text/plain"}) == 400
        assert ui.ask(CREATE, '{"name": "own"}', Origin=f"http://127.0.0.1:{ui.port}") == 200
    assert ui.process.returncode == 0
    assert not ui.is_up()


@pytest.mark.slow
def test_with_a_password_other_machines_are_served_by_name(tmp_path: Path) -> None:
    words = ("--host", "0.0.0.0", "--auth", "--allowed-hosts", "podium.example, proxy.example:8443")
    with running(tmp_path, *words, on_terminal=True) as ui:
        file = tmp_path / "mlruns" / "ui-auth" / "login.ini"
        lines = dict(line.split(" = ") for line in file.read_text().splitlines() if " = " in line)
        password = lines["admin_password"]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert bytes(ui.terminal).count(password.encode()) == 1
        for process in ui.processes():
            assert password not in " ".join(process.cmdline())
            assert lines["secret_key"] not in " ".join(process.cmdline())
        login = {"Authorization": "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()}
        wrong = {"Authorization": "Basic " + base64.b64encode(b"admin:password1234").decode()}
        assert ui.ask("/") == ui.ask(READ) == ui.ask(READ, **wrong) == 401
        assert ui.ask(READ, **login) == 200
        for name in ("podium.example", f"podium.example:{ui.port}", "proxy.example:8443"):
            assert ui.ask(READ, Host=name, **login) == 200
        for name in ("evil.example", "10.0.0.1", "podium.example.evil.example", "proxy.example"):
            assert ui.ask(READ, Host=name, **login) == 403
        assert ui.ask(CREATE, '{"name": "a"}', Origin="http://evil.example", **login) == 403
        own = {"Host": "proxy.example:8443", "Origin": "https://proxy.example:8443"}
        assert ui.ask(CREATE, '{"name": "b"}', **own, **login) == 200
    assert password not in (tmp_path / "mlruns" / "mlflow.db").read_bytes().decode("latin-1")


UNPROTECTED = {
    "nothing": ((), {"--auth", "--allowed-hosts"}),
    "no names": (("--auth",), {"--allowed-hosts"}),
    "no password": (("--allowed-hosts", "podium.example"), {"--auth"}),
    "any name": (("--auth", "--allowed-hosts", "*"), {"--allowed-hosts"}),
    "a pattern": (("--auth", "--allowed-hosts", "podium.example,*.example"), {"--allowed-hosts"}),
    "an address for a name": (("--auth", "--allowed-hosts", "http://podium.example"), {"--allowed-hosts"}),
}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "podium.example", ""])
@pytest.mark.parametrize("case", UNPROTECTED, ids=list(UNPROTECTED))
def test_an_address_that_others_reach_is_refused_unprotected(host: str, case: str) -> None:
    words, missing = UNPROTECTED[case]
    code, answer = refusal(5000, "--host", host, *words)
    assert code == 2
    assert {fault["key"] for fault in answer["error"]["faults"]} == missing
    assert "--auth --allowed-hosts" in answer["error"]["remedy"]


def test_a_taken_port_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, answer = refusal(taken.getsockname()[1])
    assert code == 2
    assert "is in use" in answer["error"]["message"]


def refusal(port: int, *words: Sequence[str] | str) -> tuple[int, dict[str, dict[str, object]]]:
    """Exit code and JSON of a call that ends before anything is served."""
    import json

    from click.testing import CliRunner

    from podium.cli import cli

    ended = CliRunner().invoke(cli, ["ui", "--port", str(port), "--json", *map(str, words)])
    return ended.exit_code, json.loads(ended.stdout)
