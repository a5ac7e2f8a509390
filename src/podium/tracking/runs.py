"""Owns recording runs: what the coordinator calls; each call becomes a record for the writer."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from podium.errors import PodiumError
from podium.result import EpochEvent
from podium.stores import Stores
from podium.tracking.delivery import Delivery
from podium.tracking.store import is_away, prepare_store, unreachable
from podium.tracking.writer import Writer

__all__ = ["DataInput", "Recorder", "RunStatus", "prepare_store"]

RunStatus = Literal["FINISHED", "KILLED", "FAILED"]
OPEN_TRIES = 4
OPEN_PAUSE_SECONDS = 0.5
STATES = {"FINISHED": "complete", "KILLED": "pruned", "FAILED": "failed"}


@dataclass(frozen=True, kw_only=True)
class DataInput:
    """The data of a run as MLflow shows it. Digests are SHA-256 in hexadecimal."""

    name: str
    reference: str
    train_digest: str
    split_digest: str
    test_digest: str | None = None
    source_digest: str | None = None
    train_count: int | None = None
    test_count: int | None = None
    context: str = "training"


class Recorder:
    """Records a sweep's runs in MLflow. Every method but `open_parent` returns at once.

    Records wait in a spool and one thread writes them, a run's epochs of two seconds in one batch.
    While the store is away the thread tries again; with a `spool_folder`, another Recorder on the same
    folder delivers what was left. Above `limit` waiting records, epochs are left out and counted in the
    tag `podium.epochs_not_recorded`; nothing else ever is.
    """

    def __init__(
        self, stores: Stores, *, experiment: str, spool_folder: Path | None = None, limit: int = 100_000
    ) -> None:
        self._stores = stores
        self._experiment = experiment
        self._limit = limit
        self._delivery = Delivery(stores, experiment)
        self._writer = Writer(self._delivery, spool_folder)
        self._parent: str | None = None
        # Without a parent run, what tells this recorder's trials from another's.
        self._prefix = uuid.uuid4().hex
        self._left_out: dict[str, int] = {}

    @property
    def waiting(self) -> int:
        """How many records are not yet in MLflow."""
        return self._writer.waiting

    @property
    def last_error(self) -> str | None:
        """Why the store cannot be written at the moment, None if it can."""
        return self._writer.last_error

    @property
    def problems(self) -> list[str]:
        """What MLflow refused for good, or the disk could not keep; empty if all is on record."""
        disk = self._writer.disk_error
        return [*self._delivery.problems, *([f"the spool cannot be written: {disk}"] if disk else [])]

    def open_parent(self, *, name: str, parameters: Mapping[str, object], tags: Mapping[str, str]) -> str:
        """Make the parent run and return its id. Raises: PodiumError if the store cannot be used.

        A tag `podium.key` of the caller's makes the call repeatable: the same key is the same run.
        """
        content = {
            "key": tags.get("podium.key") or uuid.uuid4().hex,
            "name": name,
            "parent": tags.get("mlflow.parentRunId"),
            "tags": {"podium.kind": "sweep", **tags},
            "time": _now(),
        }
        # Not the writer's: this call is synchronous, and nothing of this sweep waits before it.
        delivery = Delivery(self._stores, self._experiment)
        for attempt in range(OPEN_TRIES):
            try:
                # An answer may have been lost: from the second time on, the run may be there.
                run_id, _ = delivery.open_run(content, look="podium.key" in tags or attempt > 0)
                delivery.log_parameters(run_id, parameters)
                break
            except Exception as error:
                if not is_away(error):
                    raise
                if attempt == OPEN_TRIES - 1:
                    raise unreachable(self._stores, error) from error
                time.sleep(OPEN_PAUSE_SECONDS)
        self._delivery.problems += delivery.problems
        self._parent = run_id
        return run_id

    def reopen_parent(self, run_id: str) -> None:
        """Go on under a parent run of an earlier process, which becomes RUNNING again."""
        self._parent = run_id
        self._writer.add({"kind": "reopen", "run_id": run_id})

    def start_run(
        self,
        trial: int | str,
        *,
        name: str,
        parameters: Mapping[str, object],
        tags: Mapping[str, str],
        inputs: Sequence[DataInput],
    ) -> None:
        """Record that a trial starts. A trial that has a run already goes on in it."""
        digests = {
            f"podium.{digest}": value
            for each in inputs
            for digest, value in asdict(each).items()
            if digest.endswith("_digest") and value is not None
        }
        own = {"podium.kind": "trial", "podium.trial": str(trial), "podium.state": "running"}
        self._writer.add(
            {
                "kind": "start",
                "key": self._key(trial),
                "parent": self._parent or tags.get("mlflow.parentRunId"),
                "name": name,
                "parameters": {key: _plain(value) for key, value in parameters.items()},
                "tags": {**own, **digests, **tags},
                "inputs": [asdict(each) for each in inputs],
                "time": _now(),
            }
        )

    def epoch(self, trial: int | str, event: EpochEvent) -> None:
        """Record an epoch: its metrics, seconds and images a second, at step `event.epoch`."""
        key = self._key(trial)
        if self._writer.waiting >= self._limit:
            self._left_out[key] = self._left_out.get(key, 0) + 1
            return
        rate = event.images / event.seconds if event.seconds > 0 else 0.0
        metrics = {**event.metrics, "epoch_seconds": event.seconds, "images_per_second": rate}
        self._writer.add(
            {"kind": "epoch", "key": key, "epoch": event.epoch, "metrics": metrics, "time": _now()}
        )

    def end_run(
        self,
        trial: int | str,
        *,
        status: RunStatus,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        text_artifacts: Mapping[str, str] = {},
    ) -> None:
        """Record how a trial ended. `metrics` are those of the run, not of an epoch: they are at step 0."""
        key = self._key(trial)
        own = {"podium.state": STATES[status]}
        if key in self._left_out:
            own["podium.epochs_not_recorded"] = str(self._left_out.pop(key))
        self._writer.add(self._ending(status, metrics, {**own, **tags}, text_artifacts) | {"key": key})

    def annotate(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags on any run."""
        self._writer.add({"kind": "annotate", "run_id": run_id, "tags": dict(tags)})

    def end_parent(self, *, status: RunStatus, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Record how the sweep ended."""
        if self._parent is None:
            raise PodiumError("there is no parent run to end: open_parent or reopen_parent comes first.")
        self._writer.add(self._ending(status, metrics, tags, {}) | {"run_id": self._parent})

    def run_id(self, trial: int | str) -> str | None:
        """The trial's run id, None until the run is there."""
        return self._delivery.run_ids.get(self._key(trial))

    def wait_for_run_id(self, trial: int | str, timeout_seconds: float) -> str:
        """The trial's run id. Raises: PodiumError if it is not there in time."""
        key, run_ids = self._key(trial), self._delivery.run_ids
        if self._writer.wait_for(lambda: key in run_ids, timeout_seconds):
            return run_ids[key]
        reason = self.last_error or "; ".join(self.problems[-3:]) or "it was never started"
        raise PodiumError(f"trial {trial} has no run in MLflow yet: {reason}")

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until everything is in MLflow; False if that took too long (see `last_error`)."""
        return self._writer.flush(timeout_seconds)

    def close(self, timeout_seconds: float | None = None) -> None:
        """Deliver what can be delivered in time (by default half a minute), keep the rest in the spool folder."""
        self._writer.close(timeout_seconds)

    def _key(self, trial: int | str) -> str:
        return f"{self._parent or self._prefix}/{trial}"

    @staticmethod
    def _ending(
        status: RunStatus, metrics: Mapping[str, float], tags: Mapping[str, str], texts: Mapping[str, str]
    ) -> dict[str, Any]:
        values = {name: float(value) for name, value in metrics.items()}
        ending = {"kind": "end", "status": status, "metrics": values, "tags": dict(tags)}
        return {**ending, "texts": dict(texts), "time": _now()}


def _now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int | float | str | None) else str(value)
