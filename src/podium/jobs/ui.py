"""Owns `podium ui`: MLflow's own server over the local stores."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from podium.answer import Answer
from podium.errors import InvalidInput, PodiumError
from podium.stores import redacted, stores_here
from podium.tracking import query
from podium.tracking.runs import prepare_store
from podium.tracking.store import is_server

SERVER_PROCESSES = 2


def ui(port: int) -> Answer:
    """Serve until interrupted. Raises: InvalidInput if the port is taken."""
    stores = stores_here()
    if is_server(stores):
        address = redacted(stores.tracking_uri)
        return Answer(
            values={"url": address}, shown=[f"the runs are on the MLflow server {address}: open it there"]
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InvalidInput(f"port {port} is in use.", remedy="Choose another with --port.") from error
    stores.prepare()
    prepare_store(stores)
    base = f"http://127.0.0.1:{port}"
    print(f"MLflow UI: {base} (Ctrl-C ends it)", file=sys.stderr)
    try:
        parent = query.find_parent(stores, None)
        leaders = query.leaders(stores, parent)
        print(
            f"Compare the latest sweep's best runs: {query.compare_url(stores, parent, leaders, base=base)}",
            file=sys.stderr,
        )
    except PodiumError as error:
        print(f"No comparison page yet: {error.message}", file=sys.stderr)
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", str(SERVER_PROCESSES), "--backend-store-uri", stores.tracking_uri,
    ]  # fmt: skip
    if stores.artifact_uri is not None:
        command += ["--artifacts-destination", stores.artifact_uri, "--serve-artifacts"]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    # Whoever ends this command ends the server with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = subprocess.Popen(command, env=environment, stdout=sys.stderr)
    try:
        code = server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait()
        code = 0
    if code not in (0, -15):
        raise PodiumError(f"the MLflow server ended with exit code {code}.")
    return Answer(values={"url": base})
