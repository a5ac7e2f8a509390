"""Owns reading runs back: parents, children and curves as pandas frames, and MLflow's comparison address."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pandas as pd
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from podium.errors import InvalidInput
from podium.stores import Stores
from podium.tracking.database import child_rows, metric_rows
from podium.tracking.store import is_server, open_client, says_if_away
from podium.yaml_file import nearest

INFEASIBLE = "tags.podium.infeasible"
RUNS_A_PAGE = 1_000
REQUESTS_AT_ONCE = 8
READ_TRIES = 3
READ_PAUSE_SECONDS = 0.2
RUN_ID_LENGTH, SHOWN_LETTERS = 32, 8
UI = "http://127.0.0.1:5000"
# What `Recorder.epoch` writes beside the recipe's own metrics; their step 0 is the whole run's value.
EPOCH_METRICS = (
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "learning_rate",
    "epoch_seconds",
    "images_per_second",
)


@says_if_away
def find_parent(stores: Stores, sweep: str | None) -> str:
    """The parent run of a sweep's name (its latest), of a run id, or of the latest sweep of all.

    Raises: InvalidInput if there is none; PodiumError if the store cannot be used.
    """
    client = open_client(stores)
    if sweep is not None and _is_run_id(sweep):
        run = _run(client, sweep)
        if run.data.tags.get("podium.kind") != "sweep":
            raise InvalidInput(
                f"run {sweep} is not a sweep's parent run.",
                remedy="Give the sweep's name or its parent run's id.",
            )
        return sweep
    experiments = {each.name: each.experiment_id for each in client.search_experiments()}
    if sweep is not None and sweep not in experiments:
        known = ", ".join(sorted(set(experiments) - {"Default"})) or "none"
        raise InvalidInput(
            f"no sweep named '{sweep}' is on record.{nearest(sweep, experiments)}", remedy=f"Known: {known}."
        )
    places = [experiments[sweep]] if sweep is not None else list(experiments.values())
    runs = client.search_runs(
        places, "tags.`podium.kind` = 'sweep'", max_results=1, order_by=["attributes.start_time DESC"]
    )
    if not runs:
        what = f"experiment '{sweep}' holds no sweep" if sweep is not None else "no sweep is on record"
        raise InvalidInput(f"{what}.", remedy="Start one with: make sweep")
    return str(runs[0].info.run_id)


@says_if_away
def status_of_study(stores: Stores, study: str) -> str | None:
    """The status of the run that a study's trials are under, None if no run is of that study.

    Raises: PodiumError if the store cannot be used.
    """
    client = open_client(stores)
    experiments = [each.experiment_id for each in client.search_experiments()]
    chosen = f"tags.`podium.study` = '{study}'"
    for kind in ("sweep", "confirm"):
        runs = client.search_runs(experiments, f"{chosen} and tags.`podium.kind` = '{kind}'", max_results=1)
        if runs:
            return str(runs[0].info.status)
    return None


@says_if_away
def whole_run_id(stores: Stores, text: str) -> str:
    """The run id that begins with `text`, as tables show it; any other text, and a sweep's name, as it is.

    Raises: InvalidInput if several runs' ids begin so, or none does.
    """
    if not SHOWN_LETTERS <= len(text) < RUN_ID_LENGTH or not _is_hex(text):
        return text
    client = open_client(stores)
    experiments = {each.name: each.experiment_id for each in client.search_experiments()}
    if text in experiments:
        return text
    found = client.search_runs(list(experiments.values()), f"attributes.run_id LIKE '{text}%'", max_results=2)
    if len(found) != 1:
        how_many = "several runs' ids begin" if found else "no run's id begins"
        raise InvalidInput(
            f"{how_many} with {text}.", remedy="Look it up: podium compare --json has whole ids."
        )
    return str(found[0].info.run_id)


@says_if_away
def is_single_run(stores: Stores, name: str) -> bool:
    """Whether a name is the id of a run that is no sweep. Raises: InvalidInput for an unknown id."""
    return _is_run_id(name) and _run(open_client(stores), name).data.tags.get("podium.kind") != "sweep"


@says_if_away
def experiment_name(stores: Stores, run_id: str) -> str:
    """The name of the experiment that a run belongs to. Raises: InvalidInput for an unknown id."""
    client = open_client(stores)
    return str(client.get_experiment(_run(client, run_id).info.experiment_id).name)


@says_if_away
def run_frame(stores: Stores, run_ids: Sequence[str]) -> pd.DataFrame:
    """Some runs, one a row, with the columns of `children`. Raises: InvalidInput for an unknown id."""
    client = open_client(stores)
    return _frame([_row(_run(client, run_id)) for run_id in run_ids])


@says_if_away
def children(stores: Stores, parent_id: str) -> pd.DataFrame:
    """The child runs of a parent, one a row, by trial number.

    Columns: run_id, trial (int), state, status, name, start_time and end_time (ms), params.* (text),
    metrics.* (the last value), tags.*. What a run does not have is missing (NaN or None).
    """
    client = open_client(stores)
    experiment = _run(client, parent_id).info.experiment_id
    if not is_server(stores):
        return _frame(child_rows(stores, parent_id))
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment],
            f"tags.`mlflow.parentRunId` = '{parent_id}'",
            max_results=RUNS_A_PAGE,
            page_token=token,
        )
        runs += page
        token = page.token
        if not token:
            return _frame([_row(run) for run in runs])


@says_if_away
def history(stores: Stores, run_id: str) -> pd.DataFrame:
    """A run's curves: one row an epoch, with `epoch` (from 1) and a column for each metric."""
    frame = histories(stores, [run_id])
    return frame.drop(columns="run_id")


@says_if_away
def histories(stores: Stores, run_ids: Sequence[str]) -> pd.DataFrame:
    """Curves of many runs: columns run_id, epoch and the metrics; rows by run, then epoch."""
    if is_server(stores):
        rows = _history_from_server(open_client(stores), run_ids)
    else:
        rows = pd.DataFrame(metric_rows(stores, run_ids, EPOCH_METRICS))
    if rows.empty:
        return pd.DataFrame(columns=["run_id", "epoch", *EPOCH_METRICS])
    # A store may hold one epoch twice only if two recorders wrote it; the first one counts, as everywhere.
    table = rows.sort_values("time", kind="stable").pivot_table(
        index=["run_id", "epoch"], columns="metric", values="value", aggfunc="first"
    )
    order = {run_id: place for place, run_id in enumerate(run_ids)}
    frame = table.reset_index().rename_axis(columns=None)
    frame = frame.reindex(columns=["run_id", "epoch", *EPOCH_METRICS])
    frame["epoch"] = frame["epoch"].astype(int)
    return frame.sort_values(
        ["run_id", "epoch"], key=lambda c: c.map(order) if c.name == "run_id" else c
    ).reset_index(drop=True)


@says_if_away
def leaders(stores: Stores, parent_id: str, limit: int = 5) -> list[str]:
    """Run ids of the best complete, feasible children, best first, by the parent's `podium.metric` and `podium.goal`."""
    tags = _run(open_client(stores), parent_id).data.tags
    column = f"metrics.best_{tags.get('podium.metric', 'val_accuracy')}"
    frame = children(stores, parent_id)
    if column not in frame:
        return []
    complete = frame["state"] == "complete"
    if INFEASIBLE in frame:
        complete &= frame[INFEASIBLE].isna()
    ranked = frame[complete].dropna(subset=[column])
    ranked = ranked.sort_values(column, ascending=tags.get("podium.goal") == "minimize", kind="stable")
    return [str(run_id) for run_id in ranked["run_id"].head(limit)]


@says_if_away
def compare_url(stores: Stores, parent_id: str, run_ids: Sequence[str], base: str | None = None) -> str:
    """The address of MLflow's page that compares runs of a parent's experiment.

    `base` is the server's; default: the one that holds the runs, or `make ui` where they lie in a file.
    """
    if base is None:
        base = stores.tracking_uri if is_server(stores) else UI
    experiment = _run(open_client(stores), parent_id).info.experiment_id
    runs, experiments = (
        quote(json.dumps(list(each), separators=(",", ":")), safe="") for each in (run_ids, [experiment])
    )
    return f"{base.rstrip('/')}/#/compare-runs?runs={runs}&experiments={experiments}"


def side_by_side(url: str) -> str:
    """The line of an answer that names the comparison page."""
    return f"curves side by side{' (after `make ui`)' if url.startswith(UI) else ''}: {url}"


def _run(client: MlflowClient, run_id: str) -> Run:
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise InvalidInput(f"no run {run_id} is on record.", remedy="Look it up: podium compare") from error


def _is_run_id(text: str) -> bool:
    return len(text) == RUN_ID_LENGTH and _is_hex(text)


def _is_hex(text: str) -> bool:
    return all(letter in "0123456789abcdef" for letter in text)


def _row(run: Run) -> dict[str, Any]:
    row: dict[str, Any] = {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "start_time": run.info.start_time,
        "end_time": run.info.end_time,
    }
    row |= {f"params.{name}": value for name, value in run.data.params.items()}
    row |= {f"metrics.{name}": value for name, value in run.data.metrics.items()}
    return row | {f"tags.{name}": value for name, value in run.data.tags.items()}


def _frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows by trial number; trials that have a name instead come last."""
    first = ["run_id", "trial", "state", "status", "name", "start_time", "end_time"]
    whole = []
    for row in rows:
        trial = row.get("tags.podium.trial", "")
        number = int(trial) if trial.isdigit() else trial
        whole.append({**dict.fromkeys(first), **row, "trial": number, "state": row.get("tags.podium.state")})
    whole.sort(key=lambda row: (isinstance(row["trial"], str), row["trial"]))
    return pd.DataFrame(whole) if whole else pd.DataFrame(columns=first)


def _metric_history(client: MlflowClient, run_id: str, metric: str) -> list[Metric]:
    """Asked again if the connection breaks: a server may close an idle one just then, and asking changes nothing."""
    for _ in range(READ_TRIES - 1):
        try:
            return list(client.get_metric_history(run_id, metric))
        except MlflowException as error:
            if error.error_code != "INTERNAL_ERROR":
                raise
            time.sleep(READ_PAUSE_SECONDS)
    return list(client.get_metric_history(run_id, metric))


def _history_from_server(client: MlflowClient, run_ids: Sequence[str]) -> pd.DataFrame:
    wanted = [(run_id, metric) for run_id in run_ids for metric in EPOCH_METRICS]
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        answers = list(pool.map(lambda each: _metric_history(client, *each), wanted))
    rows = [
        {"run_id": run_id, "epoch": m.step, "metric": metric, "value": m.value, "time": m.timestamp}
        for (run_id, metric), answer in zip(wanted, answers, strict=True)
        for m in answer
        if m.step > 0
    ]
    return pd.DataFrame(rows)
