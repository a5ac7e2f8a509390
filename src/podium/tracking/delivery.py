"""Owns writing records into MLflow so that writing one again changes nothing."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from podium.stores import Stores, redacted
from podium.tracking.spool import Record
from podium.tracking.store import experiment_id, first_line, is_away, open_client

Item = TypeVar("Item")
KEY_TAG = "podium.key"
PARENT_TAG = "mlflow.parentRunId"
# MLflow's own limits; what is longer is cut here, visibly.
LONGEST_PARAMETER = 6_000
LONGEST_TAG = 8_000
PARAMETERS_A_BATCH = 100
METRICS_A_BATCH = 900  # with tags in the same call: MLflow takes 1,000 of all kinds
DIGEST_LENGTH = 36
# The metric by which epochs that are on record already are known: every epoch has it, and it is finite.
EPOCH_MARK = "epoch_seconds"


@dataclass(frozen=True, kw_only=True)
class Step:
    """Records that are written together: one record, or several epochs of one run, with its end as the last one."""

    records: list[Record]

    @property
    def kind(self) -> str:
        """That of its last record."""
        return str(self.records[-1].content["kind"])

    @property
    def first(self) -> int:
        """The sequence number of its first record."""
        return self.records[0].sequence


def plan(records: Iterable[Record]) -> list[Step]:
    """Steps in order, with the epochs of a run that no other record of the run separates in one step.

    An end that follows them takes them into its own.
    """
    steps: list[Step] = []
    epochs: dict[str, Step] = {}
    for record in records:
        kind, key = record.content["kind"], record.content.get("key", "")
        if kind == "epoch" and key in epochs:
            epochs[key].records.append(record)
            continue
        step = Step(records=[record])
        steps.append(step)
        if kind == "epoch":
            epochs[key] = step
        elif (before := epochs.pop(key, None)) is not None and kind == "end":
            step.records[:0] = before.records
            before.records.clear()
    return [step for step in steps if step.records]


class Delivery:
    """Writes steps. `run_ids` maps a run's key to its id; `problems` says what MLflow refused.

    Raises what MLflow raises while the store is away; the same step is then given again.
    """

    def __init__(self, stores: Stores, experiment: str) -> None:
        self.run_ids: dict[str, str] = {}
        self.problems: list[str] = []
        self._stores = stores
        self.experiment = experiment
        self._client: MlflowClient | None = None
        self._experiment_id: str | None = None
        self._uncertain: set[str] = set()
        self._epochs: dict[str, set[int]] = {}
        self._not_finite: dict[str, list[str]] = {}

    def apply(self, step: Step) -> None:
        """Write a step. What MLflow refuses for good is left out and kept in `problems`."""
        record = step.records[0]
        if step.kind == "start":
            self._start(record)
        elif step.kind == "epoch":
            self._write_epochs(step.records)
        elif step.kind == "end":
            self._end(step.records)
        elif step.kind == "reopen":
            self._try("reopening the parent run", partial(self.reopen, record.content["run_id"]))
        elif step.kind == "annotate":
            run_id, tags = record.content["run_id"], record.content["tags"]
            self._try(f"tags of run {run_id}", partial(self._log, run_id, tags=tags))
        else:
            raise AssertionError(f"unknown kind of record: {step.kind}")

    def open_run(self, content: Mapping[str, Any], *, look: bool) -> tuple[str, bool]:
        """The run of a key, and whether it is new. `look`: it may be there already."""
        key = content["key"]
        client, experiment = self._open()
        found = self._find(key) if look or key in self._uncertain else None
        if found is not None:
            self._epochs.pop(key, None)
            return found, False
        tags = {**content["tags"], KEY_TAG: key}
        if content["parent"] is not None:
            tags[PARENT_TAG] = content["parent"]
        # Until an answer has arrived, the run may or may not be there.
        self._uncertain.add(key)
        run = client.create_run(
            experiment, start_time=content["time"], tags=_fitting(tags, LONGEST_TAG), run_name=content["name"]
        )
        self._uncertain.discard(key)
        self._epochs[key] = set()
        return str(run.info.run_id), True

    def log_parameters(self, run_id: str, parameters: Mapping[str, Any]) -> None:
        """Log parameters; those that are too long are cut, marked and named in a tag."""
        texts = {name: str(value) for name, value in parameters.items()}
        cut = [name for name, text in texts.items() if len(text) > LONGEST_PARAMETER]
        client, _ = self._open()
        items = [Param(name, text) for name, text in _fitting(texts, LONGEST_PARAMETER).items()]
        for part in _parts(items, PARAMETERS_A_BATCH):
            try:
                client.log_batch(run_id, params=part)
            except MlflowException as error:
                if is_away(error):
                    raise
                for item in part:  # one that MLflow refuses must not take the others with it
                    what = f"parameter {item.key} of run {run_id}"
                    self._try(what, partial(client.log_batch, run_id, params=[item]))
        if cut:
            self._log(run_id, tags={"podium.cut_parameters": ", ".join(sorted(cut))})

    def reopen(self, run_id: str) -> None:
        """Make a parent run RUNNING again and learn the ids of its children."""
        client, experiment = self._open()
        client.update_run(run_id, status="RUNNING")
        token: str | None = None
        while True:
            page = client.search_runs([experiment], f"tags.`{PARENT_TAG}` = '{run_id}'", page_token=token)
            for run in page:
                if KEY_TAG in run.data.tags:
                    self.run_ids.setdefault(run.data.tags[KEY_TAG], run.info.run_id)
            token = page.token
            if not token:
                return

    def _start(self, record: Record) -> None:
        content, key = record.content, record.content["key"]
        client, _ = self._open()
        new = False
        if key not in self.run_ids:
            opened = self._try(f"run {key}", partial(self.open_run, content, look=record.left_over))
            if opened is None:
                return
            self.run_ids[key], new = opened
        run_id = self.run_ids[key]
        if not new:
            # Another attempt, or this record again after the store was away.
            self._try(f"run {key}", partial(client.update_run, run_id, status="RUNNING"))
            self._try(f"tags of run {run_id}", partial(self._log, run_id, tags=content["tags"]))
        self.log_parameters(run_id, content["parameters"])
        if content["inputs"]:
            datasets = [_dataset_input(each) for each in content["inputs"]]
            self._try(f"data of run {run_id}", partial(client.log_inputs, run_id, datasets=datasets))

    def _write_epochs(self, records: Sequence[Record]) -> None:
        key = records[0].content["key"]
        run_id = self._known_run(key)
        if run_id is None:
            return
        new = self._new_epochs(key, run_id, records)
        self._try(f"epochs of run {run_id}", partial(self._log_epochs, key, run_id, new))

    def _new_epochs(self, key: str, run_id: str, records: Sequence[Record]) -> dict[int, list[Metric]]:
        """The metrics of those epochs that are not on record, by epoch, in order."""
        done = self._epochs_on_record(key, run_id) if records else set()
        new = {r.content["epoch"]: r.content for r in reversed(records) if r.content["epoch"] not in done}
        return {
            epoch: [
                Metric(name, value, content["time"], epoch)
                for name, value in self._finite(key, content["metrics"], f"@{epoch}").items()
            ]
            for epoch, content in sorted(new.items())
        }

    def _log_epochs(
        self,
        key: str,
        run_id: str,
        new: Mapping[int, Sequence[Metric]],
        *,
        metrics: Sequence[Metric] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log epochs, each as a whole; metrics and tags of the run go with the last of them."""
        batch: list[Metric] = []
        for more in [*new.values(), metrics]:
            if len(batch) + len(more) > METRICS_A_BATCH:
                self._log(run_id, metrics=batch)
                batch = []
            batch += more
        self._log(run_id, metrics=batch, tags=tags)
        if new:
            self._epochs[key].update(new)

    def _end(self, records: Sequence[Record]) -> None:
        *epochs, record = records
        content = record.content
        run_id = content.get("run_id") or self._known_run(content["key"])
        if run_id is None:
            return
        key, time = content.get("key", run_id), content["time"]
        client, _ = self._open()
        new = self._new_epochs(key, run_id, epochs)
        metrics = [Metric(k, v, time, 0) for k, v in self._finite(key, content["metrics"], "").items()]
        tags = dict(content["tags"])
        if key in self._not_finite:
            tags["podium.not_finite"] = ", ".join(self._not_finite[key])
        try:
            self._log_epochs(key, run_id, new, metrics=metrics, tags=tags)
        except Exception as error:
            if is_away(error):
                raise
            # What is refused of the one must not take the other with it.
            self._try(f"epochs of run {run_id}", partial(self._log_epochs, key, run_id, new))
            self._try(f"end of run {run_id}", partial(self._log, run_id, metrics=metrics, tags=tags))
        for name, text in content["texts"].items():
            self._try(f"{name} of run {run_id}", partial(client.log_text, run_id, text, name))
        self._try(f"end of run {run_id}", partial(client.set_terminated, run_id, content["status"], time))
        self._epochs.pop(key, None)  # read again should it be taken up once more

    def _log(
        self, run_id: str, *, metrics: Sequence[Metric] = (), tags: Mapping[str, str] | None = None
    ) -> None:
        client, _ = self._open()
        items = [RunTag(name, value) for name, value in _fitting(tags or {}, LONGEST_TAG).items()]
        parts = list(_parts(items, PARAMETERS_A_BATCH)) or [[]]
        for index, part in enumerate(parts):
            client.log_batch(run_id, metrics=list(metrics) if index == 0 else [], tags=part)

    def _try(self, what: str, write: Callable[[], Item]) -> Item | None:
        """Write, or note that MLflow refuses. Raises: what says that the store is away."""
        try:
            return write()
        except Exception as error:
            if is_away(error):
                raise
            self.problems.append(f"{what}: {first_line(error)}")
            return None

    def _open(self) -> tuple[MlflowClient, str]:
        if self._client is None:
            self._client = open_client(self._stores)
        if self._experiment_id is None:
            self._experiment_id = experiment_id(self._client, self._stores, self.experiment)
        return self._client, self._experiment_id

    def _find(self, key: str) -> str | None:
        client, experiment = self._open()
        runs = client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def _known_run(self, key: str) -> str | None:
        if key not in self.run_ids:
            found = self._find(key)
            if found is None:
                self.problems.append(f"run {key}: has no start on record, so its records are left out")
                return None
            self.run_ids[key] = found
        return self.run_ids[key]

    def _epochs_on_record(self, key: str, run_id: str) -> set[int]:
        if key not in self._epochs:
            client, _ = self._open()
            self._epochs[key] = {int(each.step) for each in client.get_metric_history(run_id, EPOCH_MARK)}
        return self._epochs[key]

    def _finite(self, key: str, metrics: Mapping[str, float], place: str) -> dict[str, float]:
        lost = [f"{name}{place}" for name, value in metrics.items() if not math.isfinite(value)]
        if lost:
            known = self._not_finite.setdefault(key, [])
            known += [name for name in lost if name not in known]
        return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _fitting(texts: Mapping[str, str], longest: int) -> dict[str, str]:
    """Values without secrets, cut to MLflow's limit with a mark that says so."""
    fitting: dict[str, str] = {}
    for name, value in texts.items():
        text = redacted(str(value))
        if len(text) > longest:
            mark = f"... [cut: {len(text)} characters]"
            text = text[: longest - len(mark)] + mark
        fitting[name] = text
    return fitting


def _parts(items: Sequence[Item], size: int) -> Iterable[list[Item]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _dataset_input(content: Mapping[str, Any]) -> DatasetInput:
    """MLflow's view of a dataset. Its digest has room for 36 characters: some of the training
    images' digest, then some of a digest over all digests; the profile holds them in full."""
    digests = {name: value for name, value in content.items() if name.endswith("_digest")}
    combined = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    dataset = Dataset(
        name=content["name"],
        digest=f"{content['train_digest'][:18]}-{combined}"[:DIGEST_LENGTH],
        source_type="podium",
        source=json.dumps({"reference": redacted(content["reference"])}),
        profile=json.dumps({name: value for name, value in content.items() if name != "context"}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", content["context"])])
