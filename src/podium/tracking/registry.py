"""Owns the model registry: versions, and the aliases champion and challenger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from podium.errors import PodiumError, Refused
from podium.stores import Stores
from podium.tracking.store import first_line, is_server, open_client

CHAMPION = "champion"
CHALLENGER = "challenger"
MODEL_ID_TAG = "podium.model_id"
SHA256_TAG = "podium.model_sha256"
PROMOTED_TAG = "podium.promoted_at"
# Of a model: the swap that a rollback is about to make, so that one that was killed half-way can go on.
ROLLBACK_TAG = "podium.rollback"
# MLflow's own limit on a description is 5,000 characters.
LONGEST_DESCRIPTION = 4_500


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One version of a registered model. `source` is where its files are; `tags` hold its evidence."""

    model: str
    version: int
    run_id: str | None
    model_id: str | None
    source: str
    tags: Mapping[str, str]


def champion(stores: Stores, model: str) -> ModelVersion | None:
    """The version in use, None if there is none."""
    return _by_alias(open_client(stores), model, CHAMPION)


def challenger(stores: Stores, model: str) -> ModelVersion | None:
    """The version that the champion replaced, None if there is none."""
    return _by_alias(open_client(stores), model, CHALLENGER)


def champions(stores: Stores) -> list[str]:
    """Names of the registered models that have a champion."""
    return sorted(
        model.name for model in open_client(stores).search_registered_models() if CHAMPION in model.aliases
    )


def create_version(
    stores: Stores, *, model: str, model_id: str, run_id: str, tags: Mapping[str, str], description: str
) -> int:
    """Register a logged model as the next version of `model` and return its number. No alias moves.

    Raises: PodiumError if MLflow refuses, or the description is above 4,500 characters.
    """
    if len(description) > LONGEST_DESCRIPTION:
        raise PodiumError(
            f"a version's description has {len(description)} characters; allowed: {LONGEST_DESCRIPTION}."
        )
    client = open_client(stores)
    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise PodiumError(f"model '{model}' cannot be registered: {first_line(error)}") from error
    try:
        location = client.get_logged_model(model_id).artifact_location
        version = client.create_model_version(
            model,
            # MLflow looks up a models:/ source in its global store, not in this client's; a server
            # does so in its own, and takes nothing else.
            source=f"models:/{model_id}" if is_server(stores) else location,
            run_id=run_id,
            model_id=model_id,
            # MLflow's SQL registry keeps no model id.
            tags={**tags, MODEL_ID_TAG: model_id},
            description=description,
        )
    except MlflowException as error:
        raise PodiumError(f"a version of '{model}' cannot be created: {first_line(error)}") from error
    return int(version.version)


def find_version(stores: Stores, *, model: str, run_id: str, model_sha256: str) -> int | None:
    """The latest promoted version of `model` that is this run's model file, None if there is none.

    A promoted version is created whole, with its evidence; so one that is there has passed every step before. An
    ensemble's first version has passed none, and has no `podium.promoted_at`.
    """
    found = [
        int(version.version)
        for version in open_client(stores).search_model_versions(f'name = "{model}"')
        if version.run_id == run_id
        and version.tags.get(SHA256_TAG) == model_sha256
        and PROMOTED_TAG in version.tags
    ]
    return max(found, default=None)


def read_version(stores: Stores, model: str, version: int) -> ModelVersion:
    """A version by its number."""
    return _version(open_client(stores).get_model_version(model, str(version)))


def tag_version(stores: Stores, model: str, version: int, tags: Mapping[str, str]) -> None:
    """Add evidence to a version."""
    client = open_client(stores)
    for name, value in tags.items():
        client.set_model_version_tag(model, str(version), name, value)


def set_champion(stores: Stores, model: str, version: int) -> int | None:
    """Make `version` the champion and the former champion the challenger; answers the former one.

    Raises: PodiumError if MLflow refuses; the aliases are then where they were.
    """
    client = open_client(stores)
    former = _by_alias(client, model, CHAMPION)
    if former is not None and former.version == version:
        return former.version
    _move(client, model, champion_to=version, challenger_to=former.version if former else None)
    if ROLLBACK_TAG in client.get_registered_model(model).tags:  # it was killed, and is overtaken
        client.delete_registered_model_tag(model, ROLLBACK_TAG)
    return former.version if former else None


def rollback(stores: Stores, model: str) -> tuple[int, int]:
    """Swap champion and challenger; answers the champion's number now and before. One that was killed goes on.

    Raises: Refused if there is nothing to go back to; PodiumError if MLflow refuses the swap.
    """
    client = open_client(stores)
    now, before = _by_alias(client, model, CHAMPION), _by_alias(client, model, CHALLENGER)
    if now is None:
        raise Refused(f"model '{model}' has no champion.", remedy="Promote one: podium promote")
    begun = client.get_registered_model(model).tags.get(ROLLBACK_TAG)
    if begun is not None:
        to, back = map(int, begun.split())
    elif before is None or before.version == now.version:
        raise Refused(f"model '{model}' has no version before its champion, version {now.version}.")
    else:
        to, back = before.version, now.version
        client.set_registered_model_tag(model, ROLLBACK_TAG, f"{to} {back}")
    _move(client, model, champion_to=to, challenger_to=back)
    client.delete_registered_model_tag(model, ROLLBACK_TAG)
    return to, back


def _by_alias(client: MlflowClient, model: str, alias: str) -> ModelVersion | None:
    try:
        found = client.get_model_version_by_alias(model, alias)
    except MlflowException as error:
        # MLflow says INVALID_PARAMETER_VALUE for an alias that is not set, and this for a model.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return _version(found)


def _version(found: Any) -> ModelVersion:
    return ModelVersion(
        model=str(found.name),
        version=int(found.version),
        run_id=found.run_id or None,
        model_id=found.tags.get(MODEL_ID_TAG),
        source=str(found.source),
        tags=dict(found.tags),
    )


def _move(client: MlflowClient, model: str, *, champion_to: int, challenger_to: int | None) -> None:
    """Move both aliases, the champion last: it resolves at any moment, and a failure moves none."""
    former = _by_alias(client, model, CHALLENGER)
    try:
        if challenger_to is not None:
            client.set_registered_model_alias(model, CHALLENGER, str(challenger_to))
        client.set_registered_model_alias(model, CHAMPION, str(champion_to))
    except MlflowException as error:
        if challenger_to is not None:
            _put_back(client, model, former)
        raise PodiumError(f"the champion of '{model}' cannot be set: {first_line(error)}") from error


def _put_back(client: MlflowClient, model: str, former: ModelVersion | None) -> None:
    if former is None:
        client.delete_registered_model_alias(model, CHALLENGER)
    else:
        client.set_registered_model_alias(model, CHALLENGER, str(former.version))
