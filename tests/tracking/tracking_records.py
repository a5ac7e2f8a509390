from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from podium.result import EpochEvent
from podium.stores import Stores
from podium.tracking.runs import DataInput, Recorder


def stores_in(root: Path) -> Stores:
    root.mkdir(parents=True, exist_ok=True)
    return Stores(
        root=root,
        tracking_uri=f"sqlite:///{root / 'mlflow.db'}",
        artifact_uri=(root / "artifacts").as_uri(),
        study_url=f"sqlite:///{root / 'studies.db'}",
    )


DATA = DataInput(
    name="digits", reference="digits", train_digest="a" * 64, split_digest="b" * 64, test_digest="c" * 64
)


def epoch(number: int, val_loss: float | None = None) -> EpochEvent:
    metrics = {
        "loss": 2.0 / number,
        "accuracy": 0.1 * number,
        "val_loss": 3.0 / number if val_loss is None else val_loss,
        "val_accuracy": 0.09 * number,
        "learning_rate": 1e-3,
    }
    return EpochEvent(epoch=number, metrics=metrics, seconds=2.0, images=200)


def record_trial(recorder: Recorder, trial: int | str, *, epochs: int = 3, **start: object) -> None:
    begin(recorder, trial, **start)
    for number in range(1, epochs + 1):
        recorder.epoch(trial, epoch(number))
    recorder.end_run(trial, status="FINISHED", metrics={"best_val_accuracy": 0.09 * epochs}, tags={})


def begin(
    recorder: Recorder,
    trial: int | str,
    *,
    parameters: dict[str, object] | None = None,
    tags: dict[str, str] | None = None,
) -> None:
    recorder.start_run(
        trial, name=f"trial {trial}", parameters=parameters or {"a.b": 1}, tags=tags or {}, inputs=[DATA]
    )


def rows(stores: Stores, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(stores.root / "mlflow.db")) as database:
        return database.execute(query).fetchall()
