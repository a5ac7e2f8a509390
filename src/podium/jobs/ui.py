"""Owns `podium ui`: MLflow's own server over the local stores, for this machine unless told otherwise."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

from podium.answer import Answer
from podium.errors import InvalidInput, PodiumError
from podium.session.ui_access import USER, Access, Login, check_access, login_in, without_foreign_settings
from podium.stores import MLFLOW_SETTINGS, Stores, redacted, stores_here
from podium.tracking import query
from podium.tracking.runs import prepare_store
from podium.tracking.store import is_server

SERVER_PROCESSES = 2
LOGIN_FOLDER = "ui-auth"


def ui(
    port: int, *, host: str = "127.0.0.1", auth: bool = False, allowed_hosts: Sequence[str] = ()
) -> Answer:
    """Serve until interrupted.

    Raises: InvalidInput if the address is taken, or others reach it and it is not protected.
    """
    access = check_access(host, port, auth=auth, allowed_hosts=allowed_hosts)
    stores = stores_here()
    if is_server(stores):
        address = redacted(stores.tracking_uri)
        return Answer(
            values={"url": address}, shown=[f"the runs are on the MLflow server {address}: open it there"]
        )
    _probe(access)
    stores.prepare()
    prepare_store(stores)
    login = login_in(stores.root / LOGIN_FOLDER) if auth else None
    _announce(access, stores, login)
    # Whoever ends this command ends the server with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = subprocess.Popen(
        _command(access, auth=auth), env=_environment(stores, access, login), stdout=sys.stderr
    )
    try:
        code = server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait()
        code = 0
    if code not in (0, -15):
        raise PodiumError(f"the MLflow server ended with exit code {code}.")
    return Answer(values={"url": access.url})


def _probe(access: Access) -> None:
    family = socket.AF_INET6 if ":" in access.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((access.host, access.port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message, remedy = f"port {access.port} is in use.", "Choose another with --port."
        else:
            message, remedy = f"cannot listen on {access.host}, port {access.port}: {error}.", None
        raise InvalidInput(message, remedy=remedy) from error


def _announce(access: Access, stores: Stores, login: Login | None) -> None:
    print(f"MLflow UI: {access.url} (Ctrl-C ends it)", file=sys.stderr)
    if login is not None:
        # What is not a terminal may be a log, and a password has no place in one.
        shown = login.new and sys.stderr.isatty()
        password = f"the password, shown this once, is {login.password}" if shown else "the password"
        print(f"Log in as {USER}; {password} (kept in {login.file}).", file=sys.stderr)
    try:
        parent = query.find_parent(stores, None)
        leaders = query.leaders(stores, parent)
        page = query.compare_url(stores, parent, leaders, base=access.url)
        print(f"Compare the latest sweep's best runs: {page}", file=sys.stderr)
    except PodiumError as error:
        print(f"No comparison page yet: {error.message}", file=sys.stderr)


def _command(access: Access, *, auth: bool) -> list[str]:
    """The server's command line, which everyone on the machine can read: addresses of stores are not in it."""
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", access.host, "--port", str(access.port),
        "--workers", str(SERVER_PROCESSES), "--allowed-hosts", ",".join(access.hosts),
    ]  # fmt: skip
    if access.origins:
        command += ["--cors-allowed-origins", ",".join(access.origins)]
    return [*command, "--app-name", "basic-auth"] if auth else command


def _environment(stores: Stores, access: Access, login: Login | None) -> dict[str, str]:
    environment = {
        **without_foreign_settings(os.environ),
        **MLFLOW_SETTINGS,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_BACKEND_STORE_URI": stores.tracking_uri,
        "MLFLOW_SERVE_ARTIFACTS": "true",
    }
    if stores.artifact_uri is not None:
        environment["MLFLOW_ARTIFACTS_DESTINATION"] = stores.artifact_uri
    return environment | (dict(login.environment()) if login is not None else {})
