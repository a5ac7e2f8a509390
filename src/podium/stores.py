"""Owns where things are kept: the tracking store, the study store, checkpoints, the dataset cache."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from podium.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Stores:
    """Addresses of everything that Podium writes.

    `root` is the `mlruns` folder; `tracking_uri` MLflow's store; `artifact_uri` where a new experiment
    keeps its artifacts (None leaves it to the MLflow server); `study_url` an SQLAlchemy URL; `checkpoint_root`
    a folder for checkpoints that machines share, None for one under `root`.
    """

    root: Path
    tracking_uri: str
    artifact_uri: str | None
    study_url: str
    checkpoint_root: Path | None = None

    @property
    def tracking_file(self) -> Path | None:
        """The file of a SQLite tracking store, None for any other store."""
        address = self.tracking_uri.partition("?")[0]
        return Path(address.removeprefix("sqlite:///")) if address.startswith("sqlite:///") else None

    @property
    def checkpoints(self) -> Path:
        """Folders of attempts, one a study and trial, until they are packaged."""
        return self.checkpoint_root or self.root / "checkpoints"

    @property
    def sweeps(self) -> Path:
        """Each sweep's lock, live status and worker logs."""
        return self.root / "sweeps"

    def prepare(self) -> None:
        """Make the folders. Raises: InvalidInput if they cannot be written."""
        try:
            for folder in (self.root, self.checkpoints, self.sweeps):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".write-probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InvalidInput(
                f"cannot write to {self.root}: {error.strerror}",
                remedy="Make the folder writable, or run Podium from a folder of your own.",
            ) from error


def stores_here(root: Path | None = None) -> Stores:
    """Stores under `root` (default: ./mlruns), unless MLFLOW_TRACKING_URI, PODIUM_STUDY_URL or
    PODIUM_CHECKPOINTS say otherwise.

    A server's user and password move from its address to variables of this process and its children.
    """
    root = (root or Path("mlruns")).resolve()
    _take_credentials_out()
    server = os.environ.get("MLFLOW_TRACKING_URI")
    checkpoints = os.environ.get("PODIUM_CHECKPOINTS")
    return Stores(
        root=root,
        tracking_uri=server or f"sqlite:///{root / 'mlflow.db'}",
        artifact_uri=None if server else (root / "artifacts").as_uri(),
        study_url=os.environ.get("PODIUM_STUDY_URL") or f"sqlite:///{root / 'studies.db'}",
        checkpoint_root=Path(checkpoints).expanduser().resolve() if checkpoints else None,
    )


def _take_credentials_out() -> None:
    """Have MLflow find the server's user and password where no library puts them into a message."""
    try:
        address = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    except ValueError as error:
        raise InvalidInput(f"MLFLOW_TRACKING_URI is no address: {error}.") from error
    user, _, host = address.netloc.rpartition("@")
    name, _, password = user.partition(":")
    if address.scheme in ("http", "https") and name and password:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(name)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(password)
        os.environ["MLFLOW_TRACKING_URI"] = address._replace(netloc=host).geturl()


def dataset_cache() -> Path:
    """The folder of decoded datasets: PODIUM_CACHE, else XDG_CACHE_HOME/podium, else ~/.cache/podium."""
    chosen = os.environ.get("PODIUM_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "podium"


MLFLOW_SETTINGS = {
    # Nothing is sent to anyone.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Podium's models are .keras files; nothing is ever unpickled.
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # A request that was answered late must not be sent again blindly: Podium retries, and looks first.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    # Podium shows its own progress; bars of single files would bury it.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow would print the address of each run, credentials included, on standard output.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def restrain_mlflow() -> None:
    """Set MLFLOW_SETTINGS for this process and those it starts. MLflow reads some when it is imported."""
    os.environ.update(MLFLOW_SETTINGS)


_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_ADDRESSES = ("MLFLOW_TRACKING_URI", "PODIUM_STUDY_URL")
_SECRET_ARGUMENT = re.compile(r"(?i)([?&;][\w-]*(?:password|passwd|token|secret|key)=)[^&;\s'\"]+")
# What is shorter is too likely to be a part of another word.
_SHORTEST_SECRET = 4


def redacted(text: str) -> str:
    """`text` without user names, passwords and tokens of the addresses in it, and without this process's own."""
    for secret in _own_secrets(*(os.environ.get(name, "") for name in (*_SECRETS, *_ADDRESSES))):
        text = text.replace(secret, "***")
    text = re.sub(r"://[^/\s?#'\"]*@", "://***@", text)
    return _SECRET_ARGUMENT.sub(r"\1***", text)


@lru_cache(maxsize=8)
def _own_secrets(*values: str) -> tuple[str, ...]:
    """Secrets of this process's settings, as they are written and as they are sent; the longest first."""
    found = set(values[: len(_SECRETS)])
    for address in values[len(_SECRETS) :]:
        # A password may hold what ends it elsewhere, such as a slash: the last @ decides.
        user, at, _ = address.partition(":")[2].lstrip("/").rpartition("@")
        found.add(user.partition(":")[2] if at else "")
        found |= {match[0].removeprefix(match[1]) for match in _SECRET_ARGUMENT.finditer(address)}
    found |= {unquote(secret) for secret in found}
    return tuple(
        sorted((secret for secret in found if len(secret) >= _SHORTEST_SECRET), key=len, reverse=True)
    )
