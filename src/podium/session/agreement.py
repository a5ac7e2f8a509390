"""Owns the look at MLflow before a loop goes on: what it lacks of earlier starts is written from the study."""

from __future__ import annotations

from collections.abc import Callable

from podium.coordinator.attempts import attempts
from podium.coordinator.reconciliation import RecordedRun, reconcile
from podium.coordinator.trial import Observer, Plan
from podium.engines.base import Engine
from podium.errors import PodiumError
from podium.packager.packager import Packager, PackageRequest, is_packaged
from podium.stores import Stores
from podium.tracking import query
from podium.tracking.runs import Recorder

RECONCILE_SECONDS = 20.0
PARENT_RUN = "parent_run_id"
HISTORY_FILE = "history.json"


def make_agree(
    stores: Stores, engine: Engine, recorder: Recorder, packager: Packager, plan: Plan, observer: Observer
) -> bool:
    """Make MLflow agree with what the study says, pictures included; False if MLflow is away.

    A study that remembers no parent run (a single training's) has nothing to agree with.
    """
    parent = engine.recall(PARENT_RUN)
    ended = [record for record in engine.trials() if record.state != "running"]
    if parent is None or not ended:
        return True
    try:
        if not recorder.flush(RECONCILE_SECONDS):
            observer.message(f"MLflow cannot be written now ({recorder.last_error}); training goes on")
            return False
        runs = _recorded_runs(stores, str(parent))
    except PodiumError as error:
        observer.message(f"{error.message} Training goes on.")
        return False
    again = reconcile(engine.trials(), {n: run for n, (_, run) in runs.items()}, recorder, plan)
    if again:
        observer.message(f"trials written again from the study: {', '.join(map(str, again))}")
    package_again(engine, packager, plan, lambda number: runs[number][0] if number in runs else None)
    return True


def package_again(
    engine: Engine, packager: Packager, plan: Plan, run_id_of: Callable[[int], str | None]
) -> None:
    """Hand over what ended trials left and the packager has not put into MLflow."""
    for record in engine.trials():
        folder = plan.attempt_folder(record.number, attempts(record))
        left = record.state != "running" and (folder / HISTORY_FILE).is_file() and not is_packaged(folder)
        run_id = run_id_of(record.number) if left else None
        if run_id is not None:
            packager.submit(PackageRequest(run_id=run_id, folder=folder))


def _recorded_runs(stores: Stores, parent: str) -> dict[int, tuple[str, RecordedRun]]:
    frame = query.children(stores, parent)
    curves = query.histories(stores, list(frame["run_id"]))
    epochs = curves.groupby("run_id")["epoch"].agg(frozenset).to_dict()
    return {
        int(row.trial): (
            str(row.run_id),
            RecordedRun(
                status=str(row.status), state=str(row.state), epochs=epochs.get(row.run_id, frozenset())
            ),
        )
        for row in frame.itertuples()
        if isinstance(row.trial, int)
    }
