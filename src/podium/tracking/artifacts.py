"""Owns files of runs: putting a text there, and fetching a file back."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import mlflow.artifacts
from mlflow.exceptions import MlflowException

from podium.errors import PodiumError
from podium.stores import Stores
from podium.tracking.store import open_client, says_if_away


@says_if_away
def log_text(stores: Stores, run_id: str, text: str, name: str) -> None:
    """Keep a text as an artifact of a run, in place of an earlier one of that name."""
    open_client(stores).log_text(run_id, text, name)


@says_if_away
def log_files(stores: Stores, run_id: str, files: Sequence[Path], folder: str) -> None:
    """Keep files, or folders with all that they hold, as artifacts of a run, in a folder of them."""
    client = open_client(stores)
    for file in files:
        client.log_artifact(run_id, str(file), folder)


def read_text(stores: Stores, run_id: str, name: str) -> str | None:
    """A text that is an artifact of a run, None if the run has none of that name."""
    with tempfile.TemporaryDirectory(prefix="podium-") as folder:
        file = fetch(stores, run_id, name, Path(folder))
        return file.read_text(encoding="utf-8") if file is not None else None


@says_if_away
def fetch_model(stores: Stores, model_id: str, folder: Path) -> Path:
    """A copy of a logged model's files, in `folder`."""
    location = open_client(stores).get_logged_model(model_id).artifact_location
    try:
        return Path(
            mlflow.artifacts.download_artifacts(
                artifact_uri=location, dst_path=str(folder), tracking_uri=stores.tracking_uri
            )
        )
    except (MlflowException, OSError) as error:
        raise PodiumError(f"cannot fetch model {model_id}: {error}") from error


@says_if_away
def fetch(stores: Stores, run_id: str, name: str, folder: Path | None = None) -> Path | None:
    """A copy of a run's artifact in `folder` (default: a new temporary one), None if the run has none of that name."""
    client = open_client(stores)
    if name not in {item.path for item in client.list_artifacts(run_id)}:
        return None
    try:
        return Path(
            client.download_artifacts(run_id, name, str(folder or tempfile.mkdtemp(prefix="podium-")))
        )
    except (MlflowException, OSError) as error:
        raise PodiumError(f"cannot fetch {name} of run {run_id}: {error}") from error
