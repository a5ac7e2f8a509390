"""Owns the servers that stay while a person works: `run_services.py start | stop | during COMMAND ...`.

`start` prints the two variables to export. `during` gives a command a PostgreSQL server that ends with it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
from servers import SERVER_USER, MlflowServer, Postgres, free_port, make_database

HOME = Path(__file__).parents[2] / "build" / "services"
STATE = HOME / "services.json"
STUDIES, RUNS = "studies", "mlflow"
SHARED_MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 * 2**30


def main(words: list[str]) -> int:
    # So that what was started ends with this, too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    match words:
        case ["start"]:
            return start()
        case ["stop"]:
            return stop()
        case ["during", *command] if command:
            return during(command)
        case _:
            print(__doc__, file=sys.stderr)
            return 2


def start() -> int:
    """Start both, unless they run; what they kept before is gone."""
    postgres, mlflow = _running()
    if postgres is None or mlflow is None:
        stop()
        HOME.mkdir(parents=True)
        postgres = Postgres.make(_reachable(HOME) / "postgres")
        postgres.start()
        studies = make_database(postgres.url("postgres"), STUDIES)
        backend = make_database(studies, RUNS)
        mlflow = MlflowServer(folder=HOME / "mlflow", backend=backend, port=free_port())
        _keep(postgres, mlflow)
        mlflow.start()
        _keep(postgres, mlflow)
    print(f"export PODIUM_STUDY_URL={postgres.url(STUDIES)}")
    print(f"export MLFLOW_TRACKING_URI={mlflow.uri}")
    return 0


def stop() -> int:
    """Stop both and remove what they kept."""
    if STATE.exists():
        postgres, mlflow = _read()
        if mlflow.process:
            mlflow.stop()
        if (postgres.data / "postmaster.pid").exists():
            postgres.stop()
        shutil.rmtree(postgres.folder, ignore_errors=True)
    shutil.rmtree(HOME, ignore_errors=True)
    return 0


def during(command: list[str]) -> int:
    """Run a command with PODIUM_TEST_STUDY_URL set; answers its exit code."""
    roomy = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > ROOM_BYTES
    with tempfile.TemporaryDirectory(
        prefix="podium-postgres-", dir=SHARED_MEMORY if roomy else None
    ) as place:
        Path(place).chmod(0o755)
        postgres = Postgres.make(Path(place) / "postgres")
        postgres.start()
        try:
            environment = {**os.environ, "PODIUM_TEST_STUDY_URL": postgres.url("postgres")}
            return subprocess.run(command, env=environment, check=False).returncode
        finally:
            postgres.stop("immediate")


def _running() -> tuple[Postgres | None, MlflowServer | None]:
    if not STATE.exists():
        return None, None
    postgres, mlflow = _read()
    up = (
        (postgres.data / "postmaster.pid").exists() and psutil.pid_exists(mlflow.process) and mlflow.answers()
    )
    return (postgres, mlflow) if up else (None, None)


def _keep(postgres: Postgres, mlflow: MlflowServer) -> None:
    content = {
        "postgres": {"folder": str(postgres.folder), "port": postgres.port, "password": postgres.password},
        "mlflow": {
            "folder": str(mlflow.folder),
            "backend": mlflow.backend,
            "port": mlflow.port,
            "process": mlflow.process,
        },
    }
    STATE.touch(0o600)
    STATE.write_text(json.dumps(content))


def _read() -> tuple[Postgres, MlflowServer]:
    content = json.loads(STATE.read_text())
    for each in content.values():
        each["folder"] = Path(each["folder"])
    return Postgres(**content["postgres"]), MlflowServer(**content["mlflow"])


def _reachable(folder: Path) -> Path:
    """`folder`, or one elsewhere where the server's user may not come here, as into root's home."""
    if os.geteuid() != 0:
        return folder
    seen = subprocess.run(["ls", str(folder)], user=SERVER_USER, capture_output=True, check=False)
    if seen.returncode == 0:
        return folder
    elsewhere = Path(tempfile.mkdtemp(prefix="podium-postgres-"))
    elsewhere.chmod(0o755)
    return elsewhere


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
