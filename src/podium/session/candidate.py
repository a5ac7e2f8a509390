"""Owns what is to be promoted: the run that a sweep's name or a run's id stands for, and what confirms it."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from podium.errors import InvalidInput
from podium.result import Goal
from podium.selection.confirm import median_seed_run
from podium.selection.gate import Standing
from podium.stores import Stores
from podium.sweep_file import read_sweep
from podium.tracking import query
from podium.tracking.artifacts import read_text

METRIC = "val_accuracy"
RESULT_FILE = "confirmation.json"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One run with everything that its promotion rests on.

    `sweep` is the name under which looks at the test set count: the sweep's, a single training's experiment.
    `values`: of `metric`, of all finished seed runs of its configuration, or its own alone; empty without any.
    `confirmation`: the confirm run's result as on record, None for what is not of a confirmation.
    """

    run_id: str
    sweep: str
    status: str
    metric: str
    goal: Goal
    standing: Standing
    values: tuple[float, ...]
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    confirmation: Mapping[str, Any] | None = None

    @property
    def mean(self) -> float | None:
        """Mean of `values`."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Standard deviation of `values` over seeds, None with fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


def sweep_name(stores: Stores, what: str | None) -> str:
    """The name of the sweep (or single training) that a SWEEP or RUN_ID argument stands for."""
    what = None if what is None else query.whole_run_id(stores, what)
    run_id = what if what is not None and query.is_single_run(stores, what) else _parent(stores, what)
    return _sweep_of(_run(stores, run_id), stores)


def find_candidate(stores: Stores, what: str | None) -> Candidate:
    """The run to promote: of a run's id, that run; of a sweep (default: the latest), the median seed run of its
    confirmed winner, or its best trial if it was not confirmed.

    Raises: InvalidInput if there is no such run, or no trial of the sweep is complete.
    """
    what = None if what is None else query.whole_run_id(stores, what)
    if what is not None and query.is_single_run(stores, what):
        run = _run(stores, what)
        kind = run["tags.podium.kind"]
        if kind == "confirm":
            return _of_confirmation(stores, what)
        return _of_run(stores, run)
    parent = _parent(stores, what)
    confirm_id = _latest_confirmation(stores, parent)
    if confirm_id is not None:
        return _of_confirmation(stores, confirm_id)
    leaders = query.leaders(stores, parent, 1)
    if not leaders:
        raise InvalidInput(
            f"sweep {what or parent} has no complete trial.", remedy="Look at it: podium compare"
        )
    return _of_run(stores, _run(stores, leaders[0]))


def _parent(stores: Stores, what: str | None) -> str:
    if what is not None and what.endswith((".yaml", ".yml")):
        what = read_sweep(Path(what)).file.name
    return query.find_parent(stores, what)


def _latest_confirmation(stores: Stores, parent: str) -> str | None:
    found = [
        row
        for row in _rows(query.children(stores, parent))
        if row.get("tags.podium.kind") == "confirm" and row["state"] == "finished"
    ]
    return str(max(found, key=lambda row: row["start_time"])["run_id"]) if found else None


def _of_confirmation(stores: Stores, confirm_id: str) -> Candidate:
    """The median seed run of a confirmation's winner."""
    confirm = _run(stores, confirm_id)
    if confirm["state"] != "finished":
        raise InvalidInput(
            f"confirmation {confirm_id} is not finished.",
            remedy=f"Go on with: podium confirm {_sweep_of(confirm, stores)}",
        )
    metric, goal = _objective(stores, confirm)
    winners = _winners(stores, confirm, metric)
    run_id = median_seed_run(list(winners.values()), list(winners), goal)
    return _candidate(
        stores, _run(stores, run_id), Standing.MEDIAN_SEED, metric, goal, list(winners.values()), confirm_id
    )


def _of_run(stores: Stores, run: Mapping[str, Any]) -> Candidate:
    kind = run["tags.podium.kind"]
    parent_id = run.get("tags.mlflow.parentRunId")
    if kind == "confirm_seed" and isinstance(parent_id, str):
        return _of_seed_run(stores, run, _run(stores, parent_id))
    if kind == "trial" and isinstance(parent_id, str):
        parent = _run(stores, parent_id)
        metric, goal = _objective(stores, parent)
        confirmed = _latest_confirmation(stores, parent_id) is not None
        standing = Standing.TRIAL if confirmed else Standing.UNCONFIRMED
        return _candidate(stores, run, standing, metric, goal, [_value(run, metric)], None)
    if kind == "ensemble":
        metric, goal = _objective(stores, run)
        return _candidate(stores, run, Standing.ENSEMBLE, metric, goal, [_value(run, metric)], None)
    return _candidate(stores, run, Standing.SINGLE, METRIC, "maximize", [_value(run, METRIC)], None)


def _of_seed_run(stores: Stores, run: Mapping[str, Any], confirm: Mapping[str, Any]) -> Candidate:
    metric, goal = _objective(stores, confirm)
    mine = str(run.get("tags.podium.confirm_candidate"))
    seeds = {
        str(row["run_id"]): _value(row, metric)
        for row in _rows(query.children(stores, str(confirm["run_id"])))
        if row.get("tags.podium.confirm_candidate") == mine
    }
    standing = Standing.UNCONFIRMED
    if confirm["state"] == "finished":
        winners = _winners(stores, confirm, metric)
        median = median_seed_run(list(winners.values()), list(winners), goal)
        standing = Standing.OTHER_SEED if run["run_id"] in winners else Standing.NOT_WINNER
        standing = Standing.MEDIAN_SEED if run["run_id"] == median else standing
        seeds = winners if run["run_id"] in winners else seeds
    confirm_id = str(confirm["run_id"]) if confirm["state"] == "finished" else None
    return _candidate(stores, run, standing, metric, goal, list(seeds.values()), confirm_id)


def _winners(stores: Stores, confirm: Mapping[str, Any], metric: str) -> dict[str, float | None]:
    """The winner's seed runs with their values, as the runs themselves have them. A failed one has none."""
    text = confirm.get("tags.podium.winner_run_ids")
    run_ids = [str(each) for each in json.loads(text) if each] if isinstance(text, str) else []
    rows = {str(row["run_id"]): row for row in _rows(query.children(stores, str(confirm["run_id"])))}
    found = {run_id: _value(rows[run_id], metric) for run_id in run_ids if run_id in rows}
    if not any(value is not None for value in found.values()):
        raise InvalidInput(
            f"confirmation {confirm['run_id']} names no finished seed run of its winner.",
            remedy=f"Confirm again: podium confirm {_sweep_of(confirm, stores)}",
        )
    return found


def _candidate(
    stores: Stores,
    run: Mapping[str, Any],
    standing: Standing,
    metric: str,
    goal: Goal,
    values: Sequence[float | None],
    confirm_id: str | None,
) -> Candidate:
    tags = _part(run, "tags.", str)
    if "podium.train_digest" not in tags:
        raise InvalidInput(
            f"run {run['run_id']} is no training that Podium recorded.", remedy="Look one up: podium compare"
        )
    text = read_text(stores, confirm_id, RESULT_FILE) if confirm_id is not None else None
    return Candidate(
        run_id=str(run["run_id"]),
        sweep=_sweep_of(run, stores),
        status=str(run["status"]),
        metric=metric,
        goal=goal,
        standing=standing,
        values=tuple(value for value in values if value is not None),
        metrics={name: _unlimited(value) for name, value in _part(run, "metrics.", (int, float)).items()},
        params=_part(run, "params.", str),
        tags=tags,
        confirmation=json.loads(text) if text is not None else None,
    )


def _objective(stores: Stores, run: Mapping[str, Any]) -> tuple[str, Goal]:
    """Metric and goal of a sweep's parent run, or of the sweep that a confirmation is of."""
    parent = run.get("tags.mlflow.parentRunId")
    if not isinstance(run.get("tags.podium.metric"), str) and isinstance(parent, str):
        run = _run(stores, parent)
    metric = str(run.get("tags.podium.metric") or METRIC)
    return metric, "minimize" if run.get("tags.podium.goal") == "minimize" else "maximize"


def _sweep_of(run: Mapping[str, Any], stores: Stores) -> str:
    name = run.get("tags.podium.sweep")
    return name if isinstance(name, str) else query.experiment_name(stores, str(run["run_id"]))


def _value(row: Mapping[str, Any], metric: str) -> float | None:
    """A finished run's value; None of one that failed or has none."""
    value = row.get(f"metrics.best_{metric}")
    finite = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if finite and row["status"] == "FINISHED" and value is not None else None


def _run(stores: Stores, run_id: str) -> dict[str, Any]:
    row = _rows(query.run_frame(stores, [run_id]))[0]
    return {"tags.podium.kind": None, **row}


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _unlimited(value: float) -> float:
    """MLflow's SQL store keeps an infinite metric as the largest float."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else float(value)


def _part(run: Mapping[str, Any], prefix: str, kind: type | tuple[type, ...]) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): value
        for name, value in run.items()
        if name.startswith(prefix) and isinstance(value, kind)
    }
