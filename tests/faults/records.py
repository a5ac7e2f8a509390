"""Owns reading both databases as they are, with nothing of Podium's in between."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep_start import Place

Execute = Callable[..., Any]


@dataclass
class Trial:
    """A trial as the study has it. `state` is Optuna's; `outcome` what the coordinator told."""

    number: int
    state: str
    facts: dict[str, Any] = field(default_factory=dict)
    curve: dict[int, float] = field(default_factory=dict)
    value: float | None = None

    @property
    def outcome(self) -> dict[str, Any]:
        return dict(self.facts.get("podium.outcome", {}))

    @property
    def ended(self) -> bool:
        return self.state not in ("RUNNING", "WAITING")

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.facts.get("podium.proposal", {}).get("parameters", {}))

    @property
    def losses(self) -> dict[str, str]:
        return dict(json.loads(self.facts.get("losses") or "{}"))

    @property
    def result(self) -> dict[str, Any]:
        told = self.facts.get("podium.outcome") or {}
        return dict(json.loads(told.get("attributes", {}).get("result") or "{}"))


@dataclass
class Run:
    """A run as MLflow has it. `points` are all values of metrics, those that are there twice included."""

    id: str
    status: str
    tags: dict[str, str] = field(default_factory=dict)
    points: list[tuple[str, int, float]] = field(default_factory=list)

    def curve(self, metric: str) -> dict[int, float]:
        return {step: value for name, step, value in self.points if name == metric and step > 0}

    def last(self, metric: str) -> float | None:
        return next((value for name, step, value in self.points if name == metric and step == 0), None)


def read_study(place: Place) -> tuple[dict[str, Any], list[Trial]]:
    """What the study remembers, and its trials in order."""
    with _opened(place.study_url, place.root / "mlruns" / "studies.db") as execute:
        facts = dict(execute("select key, value_json from study_user_attributes"))
        trials = {
            trial_id: Trial(number=number, state=state)
            for trial_id, number, state in execute("select trial_id, number, state from trials")
        }
        for trial_id, key, text in execute("select trial_id, key, value_json from trial_user_attributes"):
            trials[trial_id].facts[key] = json.loads(text)
        for trial_id, step, value in execute(
            "select trial_id, step, intermediate_value from trial_intermediate_values"
        ):
            trials[trial_id].curve[step] = value
        for trial_id, value in execute("select trial_id, value from trial_values"):
            trials[trial_id].value = value
    known = {key: json.loads(text) for key, text in facts.items()}
    return known, sorted(trials.values(), key=lambda trial: trial.number)


def read_runs(place: Place) -> tuple[list[Run], list[Run]]:
    """The sweep's parent runs, of which there should be one, and all their children."""
    file = place.mlflow_file or place.root / "mlruns" / "mlflow.db"
    with _opened(place.mlflow_database, file) as execute:
        mark = "?" if place.mlflow_database is None else "%s"
        chosen = f"select run_uuid from runs join experiments using (experiment_id) where experiments.name = {mark}"
        runs = {
            run_id: Run(id=run_id, status=status)
            for run_id, status in execute(
                f"select run_uuid, status from runs where run_uuid in ({chosen})", (place.name,)
            )
        }
        for run_id, key, value in execute(
            f"select run_uuid, key, value from tags where run_uuid in ({chosen})", (place.name,)
        ):
            runs[run_id].tags[key] = value
        for run_id, key, step, value in execute(
            f"select run_uuid, key, step, value from metrics where run_uuid in ({chosen})", (place.name,)
        ):
            runs[run_id].points.append((key, step, value))
    parents = [run for run in runs.values() if run.tags.get("podium.kind") == "sweep"]
    return parents, [run for run in runs.values() if "mlflow.parentRunId" in run.tags]


@contextmanager
def _opened(url: str | None, file: Path) -> Iterator[Execute]:
    """A database on a server, or an SQLite file."""
    if url is None:
        with closing(sqlite3.connect(file, timeout=60)) as database:
            yield database.execute
    else:
        import psycopg
        from servers import plain

        with psycopg.connect(plain(url)) as connection:
            yield connection.execute


def whole(file: Path) -> bool:
    """Whether an SQLite file passes its own check."""
    with closing(sqlite3.connect(file, timeout=60)) as database:
        return bool(database.execute("pragma integrity_check").fetchone() == ("ok",))


def by_trial(runs: list[Run]) -> dict[int, list[Run]]:
    """Children by the number of their trial."""
    found: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        found[int(run.tags.get("podium.trial", "-1"))].append(run)
    return dict(found)
