"""Owns reading a recorded sweep for people: MLflow's runs and the study, as the frames that reports take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from podium.errors import InvalidInput
from podium.reporting import ranking
from podium.reporting.sweep_record import HISTORY_COLUMNS, TRIAL_COLUMNS, SweepRecord
from podium.result import Goal
from podium.search_space import CategoricalParameter, Parameter, Space, is_active, ordered
from podium.session.study_evidence import StudyEvidence, study_evidence
from podium.session.training_checks import recorded_checks
from podium.stores import Stores
from podium.tracking import query
from podium.yaml_file import parse_value

LEADERS = 5


def sweep_record(stores: Stores, parent_id: str) -> SweepRecord:
    """All that is on record of one sweep. Raises: InvalidInput if the id is no sweep's parent run."""
    [parent] = _records(query.run_frame(stores, [parent_id]))
    space = _space(parent)
    metric = str(parent.get("tags.podium.metric") or "val_accuracy")
    goal: Goal = "minimize" if parent.get("tags.podium.goal") == "minimize" else "maximize"
    children = query.children(stores, parent_id)
    children = children[children["tags.podium.kind"] == "trial"] if len(children) else children
    study = str(parent.get("tags.podium.study") or "")
    evidence = study_evidence(stores, study)
    trials = trials_frame(children, metric, space, evidence)
    name = str(parent.get("tags.podium.sweep") or parent_id)
    return SweepRecord(
        name=name,
        question=_text(parent.get("tags.mlflow.note.content")),
        metric=metric,
        goal=goal,
        trials=trials,
        histories=query.histories(stores, [str(run_id) for run_id in children["run_id"]])[
            list(HISTORY_COLUMNS)
        ],
        importances=_importances(evidence),
        importance_evaluator=evidence.importance_evaluator,
        commands=_commands(parent, name),
        compare_url=query.compare_url(stores, parent_id, _leaders(trials, goal)),
        parent_run_id=parent_id,
        log_parameters=frozenset(key for key, value in space.items() if getattr(value, "scale", "") == "log"),
        facts=_facts(parent, study, evidence),
        objectives=evidence.objectives,
        limits=evidence.limits,
    )


def runs_record(stores: Stores, run_ids: Sequence[str]) -> SweepRecord:
    """Some runs side by side, wherever they come from; the parameters are those in which they differ."""
    runs = query.run_frame(stores, run_ids)
    trials = trials_frame(runs, "val_accuracy", {}, StudyEvidence())
    trials["trial"] = range(len(trials))
    trials["continues"] = float("nan")  # its numbers are those of a sweep
    for column in map(str, runs.columns):
        if column.startswith("params.") and runs[column].nunique(dropna=False) > 1:
            trials[column] = runs[column].map(_plain)
    experiment_parent = str(run_ids[0])
    return SweepRecord(
        name=f"{len(run_ids)} runs",
        metric="val_accuracy",
        goal="maximize",
        trials=trials,
        histories=query.histories(stores, run_ids)[list(HISTORY_COLUMNS)],
        importances=None,
        importance_evaluator="not computed: these runs are no sweep",
        commands=[f"podium compare {' '.join(run_ids)}"],
        compare_url=query.compare_url(stores, experiment_parent, run_ids),
    )


def trials_frame(
    children: pd.DataFrame, metric: str, space: Mapping[str, Parameter], evidence: StudyEvidence
) -> pd.DataFrame:
    """MLflow's child runs, and what the study alone knows of them, as the report's trials frame (see SweepRecord)."""
    rows = []
    originals = _originals(children)
    for child in _records(children):
        begun = _text(child.get("tags.podium.continues_trial"))
        row = {
            "trial": child["trial"],
            "run_id": child["run_id"],
            "state": child["state"],
            "value": _number(child.get(f"metrics.best_{metric}")),
            "seconds": _number(child.get("metrics.seconds")),
            "epochs": _number(child.get("metrics.epochs")),
            "epochs_planned": _number(child.get("metrics.epochs_planned")),
            "cause": _text(child.get("tags.podium.cause")),
            "message": _text(child.get("tags.podium.reason")),
            "continues": originals.get(begun, begun),
            "diagnosis": _text(child.get("tags.podium.diagnosis")),
            "finding": _text(child.get("tags.podium.finding")),
            "remedy": _text(child.get("tags.podium.remedy")),
            **_checked(child),
            **_judged(child["trial"], evidence),
        }
        values = _active_values(child, space)
        rows.append({**row, **{f"params.{key}": values.get(key) for key in space}})
    columns = [*TRIAL_COLUMNS, "continues", *_judged(-1, evidence)]
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)
    numbers = ["value", "seconds", "epochs", "epochs_planned", "continues"]
    frame[numbers] = frame[numbers].astype(float)
    return frame


def _originals(children: pd.DataFrame) -> dict[str | None, str]:
    """Of each duplicate the trial that was trained, both as tags have them."""
    tags = ("tags.podium.trial", "tags.podium.duplicate_of")
    pairs = [[_text(child.get(tag)) for tag in tags] for child in _records(children)]
    return {trial: original for trial, original in pairs if original is not None}


def _checked(child: Mapping[str, Any]) -> dict[str, object]:
    """The checks of a trial's recipe, of those that have any."""
    found = recorded_checks(child.get("tags.podium.check_results"))
    return {"checks": found} if found else {}


def _judged(trial: int, evidence: StudyEvidence) -> dict[str, object]:
    """What a limit and several objectives say of a trial."""
    judged: dict[str, object] = {"feasible": evidence.is_feasible(trial)}
    if len(evidence.objectives) > 1:
        judged["front"] = trial in evidence.front
        for objective in evidence.objectives:
            judged[f"objective.{objective.metric}"] = _number(evidence.measure(trial, objective.metric))
    return judged


def _importances(evidence: StudyEvidence) -> pd.DataFrame | None:
    found = evidence.importances
    if not found:
        return None
    return pd.DataFrame({"parameter": list(found), "importance": list(found.values())})


def _leaders(trials: pd.DataFrame, goal: Goal) -> list[str]:
    """Run ids of the best: of the Pareto front where there is one, else by rank."""
    ranked = ranking.ranked_table(trials, goal=goal)
    ranked = ranked[ranked["front"] if "front" in ranked else ranked["rank"].notna()]
    return [str(run_id) for run_id in ranked["run_id"].head(LEADERS)]


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _space(parent: Mapping[str, Any]) -> Space:
    texts = {
        key.removeprefix("params.space."): value
        for key, value in parent.items()
        if key.startswith("params.space.") and isinstance(value, str)
    }
    try:
        return TypeAdapter(Space).validate_python({key: json.loads(text) for key, text in texts.items()})
    except (ValueError, ValidationError):
        return {}  # a record of another version: parameters are then not shown as columns


def _active_values(child: Mapping[str, Any], space: Mapping[str, Parameter]) -> dict[str, Any]:
    active: dict[str, Any] = {}
    for key in ordered(space):
        text = child.get(f"params.{key}")
        if isinstance(text, str) and is_active(space[key], active):
            active[key] = _typed(text, space[key])
    return active


def _typed(text: str, parameter: Parameter) -> Any:
    if isinstance(parameter, CategoricalParameter):
        return next((choice for choice in parameter.choices if str(choice) == text), text)
    try:
        return int(text) if parameter.type == "int" else float(text)
    except ValueError:
        return text


def _commands(parent: Mapping[str, Any], name: str) -> Sequence[str]:
    command = _text(parent.get("tags.podium.command"))
    return [
        *([command] if command else []),
        f"podium compare {name}",
        f"podium confirm {name}",
        f"podium promote {name}",
    ]


def _facts(parent: Mapping[str, Any], study: str, evidence: StudyEvidence) -> list[tuple[str, str]]:
    wanted = {
        "study": study,
        "data": _text(parent.get("tags.podium.data")),
        "training data digest": _text(parent.get("tags.podium.train_digest")),
        "git commit": _text(parent.get("tags.podium.git_commit")),
        "ended because": _text(parent.get("tags.podium.ended_because")),
        "further objectives and limits": f"not known, {evidence.missing}" if evidence.missing else None,
    }
    return [(name, value) for name, value in wanted.items() if value]


def _plain(text: object) -> object:
    """A parameter as it was before MLflow made it a text."""
    try:
        return parse_value(text) if isinstance(text, str) else None
    except InvalidInput:
        return text


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
