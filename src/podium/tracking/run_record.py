"""Owns what of a run is needed to repeat it: keeping code, diff and packages; reading recipe, facts and curve."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from podium.errors import InvalidInput, Refused
from podium.recipe import Recipe
from podium.result import Goal
from podium.stores import Stores
from podium.tracking import provenance, query
from podium.tracking.artifacts import fetch
from podium.tracking.store import open_client, says_if_away
from podium.yaml_file import read_document, validated

CODE_FILE, DIFF_FILE, PACKAGES_FILE = "code.zip", "working.diff", "packages.txt"
RECIPE_FILE = "recipe.yaml"
PARENT_TAG = "mlflow.parentRunId"
CURVE_METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a training is made of besides its recipe and data, as it was when the training began."""

    code: bytes | None
    diff: str
    packages: str


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run as MLflow has it. `curve`: epoch (from 1) to metrics. `tags` hold where the run comes from.

    `epochs_planned` is how far the training was to go, `epochs` how far it went; both None without a result.
    """

    run_id: str
    experiment: str
    status: str
    tags: Mapping[str, str]
    metric: str
    goal: Goal
    epochs: int | None
    epochs_planned: int | None
    curve: Mapping[int, Mapping[str, float]]

    @property
    def kind(self) -> str:
        """What made the run: trial, train, confirm_seed, rerun, sweep or confirm."""
        return self.tags.get("podium.kind", "run")

    @property
    def state(self) -> str:
        """complete, pruned, failed, running or interrupted."""
        return self.tags.get("podium.state", "unknown")


def capture_source(code: Path | None) -> Source:
    """Snapshot of a user's code folder, what differs from the git commit, and every installed package."""
    content: bytes | None = None
    if code is not None:
        with tempfile.TemporaryDirectory(prefix="podium-") as folder:
            content = provenance.snapshot_code(code, Path(folder) / CODE_FILE).read_bytes()
    packages = {f"{each.metadata['Name']}=={each.version}" for each in importlib.metadata.distributions()}
    return Source(
        code=content, diff=provenance.working_diff(code), packages="\n".join(sorted(packages)) + "\n"
    )


@says_if_away
def keep_source(stores: Stores, run_id: str, source: Source) -> None:
    """Log a source as artifacts of a run; a sweep's trials find it on their parent run."""
    client = open_client(stores)
    client.log_text(run_id, source.packages, PACKAGES_FILE)
    if source.diff:
        client.log_text(run_id, source.diff, DIFF_FILE)
    if source.code is not None:
        with tempfile.TemporaryDirectory(prefix="podium-") as folder:
            file = Path(folder) / CODE_FILE
            file.write_bytes(source.code)
            client.log_artifact(run_id, str(file))


@says_if_away
def read_run(stores: Stores, run_id: str) -> RunRecord:
    """A run and its curve. Raises: InvalidInput if there is none of that id."""
    client = open_client(stores)
    run = _run(client, run_id)
    tags = dict(run.data.tags)
    parent = _run(client, tags[PARENT_TAG]).data.tags if PARENT_TAG in tags else {}
    metrics = run.data.metrics
    frame = query.history(stores, run_id)
    curve = {
        int(row["epoch"]): {name: float(row[name]) for name in CURVE_METRICS if row[name] == row[name]}
        for row in frame.to_dict("records")
    }
    return RunRecord(
        run_id=run_id,
        experiment=client.get_experiment(run.info.experiment_id).name,
        status=run.info.status,
        tags=tags,
        metric=tags.get("podium.metric") or parent.get("podium.metric") or "val_accuracy",
        goal=cast(Goal, tags.get("podium.goal") or parent.get("podium.goal") or "maximize"),
        epochs=_count(metrics.get("epochs")),
        epochs_planned=_count(metrics.get("epochs_planned")),
        curve=curve,
    )


def read_recipe(stores: Stores, record: RunRecord) -> Recipe:
    """The recipe that a run was trained by. `code` still names the folder of its own machine.

    Raises: Refused if it is not on record.
    """
    path = fetch(stores, record.run_id, RECIPE_FILE)
    if path is None:
        raise Refused(
            f"run {record.run_id} cannot be repeated: its artifact {RECIPE_FILE} is not there.",
            remedy="The run was not packaged: its sweep's run says why (tag podium.packaging_failures).",
        )
    document = read_document(path)
    shutil.rmtree(path.parent, ignore_errors=True)
    return validated(Recipe, document)


@says_if_away
def recorded_code(stores: Stores, record: RunRecord, folder: Path) -> Path | None:
    """The user's code of a run, unpacked into `folder`; None if it was trained without any.

    The snapshot is the run's own or that of the run above it. Raises: Refused if it is not there, or is
    not the code that the run names.
    """
    expected = record.tags.get("podium.code_digest")
    if expected is None:
        return None
    client = open_client(stores)
    holder: str | None = record.run_id
    while holder is not None:
        archive = fetch(stores, holder, CODE_FILE)
        if archive is not None:
            break
        holder = _run(client, holder).data.tags.get(PARENT_TAG)
    else:
        raise Refused(f"run {record.run_id} cannot be repeated: no snapshot of its code is on record.")
    try:
        provenance.unpack_code(archive, folder)
    except ValueError as error:
        raise Refused(
            f"run {record.run_id} cannot be repeated: the snapshot of its code (on run {holder}) is not what "
            f"Podium keeps: {error}."
        ) from error
    finally:
        shutil.rmtree(archive.parent, ignore_errors=True)
    actual = provenance.code_digest(folder)
    if actual != expected:
        raise Refused(
            f"run {record.run_id} cannot be repeated: the snapshot of its code (on run {holder}) has the digest "
            f"{actual}, and the run was trained with {expected}."
        )
    return folder


def _run(client: MlflowClient, run_id: str) -> Run:
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise InvalidInput(f"no run {run_id} is on record.", remedy="Look it up: podium compare") from error


def _count(value: float | None) -> int | None:
    return None if value is None else int(value)
