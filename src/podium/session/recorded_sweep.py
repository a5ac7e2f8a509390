"""Owns reading a recorded sweep for another training: its file as it was resolved, its trials, its code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.engines.base import TrialRecord
from podium.engines.listed import ListedEngine
from podium.engines.study import study_exists
from podium.errors import InvalidInput
from podium.recipe import Recipe
from podium.session.pace import PACE, resolved
from podium.stores import Stores
from podium.sweep_file import SweepFile
from podium.tracking import query
from podium.tracking.run_record import RunRecord, read_run
from podium.yaml_file import Document, read_document, validated


@dataclass(frozen=True, kw_only=True)
class RecordedSweep:
    """A sweep as its study and parent run have it. `file.recipe` is where the recipe was, not read again."""

    file: SweepFile
    recipe: Recipe
    study: str
    parent: RunRecord
    trials: Sequence[TrialRecord]


def read_recorded_sweep(stores: Stores, sweep: str | None) -> RecordedSweep:
    """The sweep of a sweep file, a sweep's name or a parent run's id; None is the latest of all.

    Raises: InvalidInput if there is none, or its study is not in the study store.
    """
    parent = read_run(stores, query.find_parent(stores, sweep_name(sweep)))
    study = parent.tags.get("podium.study", "")
    if not study_exists(stores.study_url, study):
        raise InvalidInput(
            f"the study '{study}' of sweep run {parent.run_id} is not in the study store.",
            remedy="Set PODIUM_STUDY_URL to the store that the sweep ran with.",
        )
    engine = ListedEngine([], study_name=study, study_url=stores.study_url, read_only=True)
    try:
        document = json.loads(str(engine.recall("document") or "null"))
        settings = json.loads(str(engine.recall("settings") or "null"))
        checks = json.loads(str(engine.recall("checks") or "null"))
        pace = engine.recall(PACE)
        trials = engine.trials()
    finally:
        engine.close()
    if document is None or settings is None:
        raise InvalidInput(
            f"the study '{study}' was recorded by an earlier version of Podium and lacks its settings.",
            remedy="Call the same `podium sweep` again: it adds them and trains nothing.",
        )
    recipe, settings = resolved(document["recipe"], settings, pace)
    content = {**document["sweep"], **settings, "recipe": "recorded"}
    return RecordedSweep(
        file=SweepFile.model_validate_json(json.dumps(content)),
        recipe=validated(Recipe, Document(content={**recipe, "checks": checks})),
        study=study,
        parent=parent,
        trials=trials,
    )


def sweep_name(sweep: str | None) -> str | None:
    """The name of a sweep file's sweep; anything else as it is."""
    if sweep is None or Path(sweep).suffix not in (".yaml", ".yml"):
        return sweep
    name: Any = read_document(Path(sweep)).content.get("name")
    if not isinstance(name, str):
        raise InvalidInput(f"{sweep} is no sweep file: it has no name.")
    return name
