"""Owns reading what the study alone knows of a sweep: objectives, limits, what is feasible, the front, importances."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from podium.engines.base import TrialRecord
from podium.engines.importance import importances
from podium.engines.study import Record, study_exists
from podium.stores import Stores
from podium.sweep_file import ConstraintSettings, Objectives, ObjectiveSettings

NOT_THERE = "the study is not in the study store (PODIUM_STUDY_URL)"


@dataclass(frozen=True, kw_only=True)
class StudyEvidence:
    """`objectives` in the sweep file's order, empty where the study does not say; `trials` by number.

    `front`: numbers of the trials on the Pareto front of several objectives; a duplicate counts with its
    original. `limits`: what a feasible trial keeps within, by metric. `missing` says why there is nothing.
    `importances`: of each parameter, None where `importance_evaluator` says why there are none.
    """

    objectives: Sequence[ObjectiveSettings] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    trials: Mapping[int, TrialRecord] = field(default_factory=dict)
    front: frozenset[int] = frozenset()
    missing: str = ""
    importances: Mapping[str, float] | None = None
    importance_evaluator: str = ""

    def measure(self, trial: int, metric: str) -> float | None:
        """A trial's value of any metric at its best epoch, None where it was not measured."""
        record = self.trials.get(trial)
        return None if record is None else record.measures.get(metric)

    def is_feasible(self, trial: int) -> bool:
        """Whether a trial keeps within all limits, as far as they were measured."""
        return trial not in self.trials or self.trials[trial].feasible


def study_evidence(stores: Stores, study: str) -> StudyEvidence:
    """What the study has on record; `missing` where it is not in the study store, or cannot be read."""
    if not study or not study_exists(stores.study_url, study):
        return StudyEvidence(missing=NOT_THERE, importance_evaluator=f"not computed: {NOT_THERE}")
    found, evaluator = importances(stores.study_url, study)
    evidence = StudyEvidence(importances=found, importance_evaluator=evaluator)
    record = Record(study, stores.study_url, goals=["maximize"], create=False, read_only=True)
    try:
        content = json.loads(str(record.recall("document") or "null"))
        trials = {trial.number: trial for trial in record.trials()}
        best = record.best()
    finally:
        record.close()
    if content is None:
        return replace(evidence, missing="the study holds no sweep file")
    try:
        objectives = _objectives(content["sweep"]["objective"])
        constraints = ConstraintSettings.model_validate(content["sweep"]["constraints"])
    except (KeyError, ValidationError):
        return replace(evidence, missing="the study was recorded by another version of Podium")
    front = best if len(objectives) > 1 else []
    return replace(
        evidence,
        objectives=objectives,
        limits=constraints.limits,
        trials=trials,
        front=frozenset(number for number in front if "duplicate_of" not in trials[number].attributes),
    )


def _objectives(content: Any) -> list[ObjectiveSettings]:
    found: ObjectiveSettings | list[ObjectiveSettings] = TypeAdapter(Objectives).validate_python(content)
    return [found] if isinstance(found, ObjectiveSettings) else found
