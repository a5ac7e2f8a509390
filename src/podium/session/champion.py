"""Owns what a command is told of the model in use: which version, its file, its classes, its data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from podium.datasets.prepare import Dataset, prepare
from podium.datasets.splits import split
from podium.errors import InvalidInput, PodiumError
from podium.result import TrainingArrays
from podium.session.candidate import sweep_name
from podium.session.publication import CLASS_NAMES_TAG
from podium.stores import Stores, dataset_cache
from podium.tracking import registry
from podium.tracking.artifacts import fetch_model
from podium.tracking.registry import ModelVersion
from podium.tracking.run_record import read_recipe, read_run
from podium.yaml_file import nearest


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """A version's data as it is now, checked to be what its run was trained on."""

    dataset: Dataset
    arrays: TrainingArrays


def find_champion(stores: Stores, model: str | None) -> ModelVersion:
    """The champion of `model` (default: of the latest sweep's). Raises: InvalidInput if there is none."""
    known = registry.champions(stores)
    name = model or _latest(stores, known)
    version = registry.champion(stores, name)
    if version is None:
        raise InvalidInput(
            f"model '{name}' has no champion.{nearest(name, known)}",
            remedy=f"Promote one: podium promote. Models with a champion: {', '.join(known) or 'none'}.",
        )
    return version


def fetch_champion(stores: Stores, version: ModelVersion, folder: Path) -> tuple[Path, str]:
    """A copy of a version's package, and the SHA-256 that its model file has on record.

    Raises: PodiumError if Podium did not promote it, or it cannot be fetched.
    """
    sha256 = version.tags.get(registry.SHA256_TAG)
    if sha256 is None or version.model_id is None:
        raise PodiumError(
            f"version {version.version} of '{version.model}' was not promoted by Podium: its file has no hash on "
            "record."
        )
    return fetch_model(stores, version.model_id, folder), sha256


def class_names(stores: Stores, version: ModelVersion, classes: int) -> tuple[str, ...] | None:
    """The names of a version's classes, by label: of its record, else of the data that it was trained on.

    None where neither has them.
    """
    text = version.tags.get(CLASS_NAMES_TAG)
    if text is not None:
        return tuple(json.loads(text))
    try:
        names = trained_on(stores, version).dataset.class_names
    except PodiumError:
        return None  # the data is away, or another; the caller says that there are no names
    return names if len(names) == classes else None


def trained_on(stores: Stores, version: ModelVersion) -> TrainedOn:
    """The images and the split that a version was trained on.

    Raises: PodiumError if they cannot be read, or are not what its run recorded.
    """
    if version.run_id is None:
        raise PodiumError(f"version {version.version} of '{version.model}' names no run that it comes from.")
    return data_of_run(stores, version.run_id, f"version {version.version} of '{version.model}'")


def data_of_run(stores: Stores, run_id: str, what: str) -> TrainedOn:
    """The images and the split that a run was trained on; `what` names in errors what was trained.

    Raises: PodiumError if they cannot be read, or are not what the run recorded.
    """
    record = read_run(stores, run_id)
    settings = read_recipe(stores, record).data
    dataset = prepare(settings, cache=dataset_cache())
    arrays = split(dataset, settings, cache=dataset_cache())
    now = {"train_digest": dataset.train_digest, "split_digest": arrays.split_digest}
    for name, actual in now.items():
        recorded = record.tags.get(f"podium.{name}")
        if recorded != actual:
            raise PodiumError(
                f"the data '{dataset.reference}' is not what {what} was trained on: its "
                f"{name.replace('_', ' ')} is {actual[:12]}, on record is {str(recorded)[:12]}.",
                remedy="Put the recorded data back in its place.",
            )
    return TrainedOn(dataset=dataset, arrays=arrays)


def _latest(stores: Stores, known: list[str]) -> str:
    try:
        return sweep_name(stores, None)
    except InvalidInput as error:
        remedy = f"Name one of the models with a champion: {', '.join(known)}." if known else error.remedy
        raise InvalidInput(error.message, remedy=remedy) from error
