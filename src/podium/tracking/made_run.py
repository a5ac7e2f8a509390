"""Owns the run of what a command makes of other runs' models: opened and ended with a block, written directly."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mlflow.entities import Metric, Param, RunTag

from podium.stores import Stores, redacted
from podium.tracking.store import experiment_id, open_client

LONGEST_TAG = 4000


@contextmanager
def made_run(
    stores: Stores,
    *,
    experiment: str,
    name: str,
    tags: Mapping[str, str],
    parameters: Mapping[str, object],
) -> Iterator[str]:
    """A new run's id; it ends FINISHED with the block, FAILED with an error in it, KILLED when interrupted."""
    client = open_client(stores)
    place = experiment_id(client, stores, experiment)
    run_id = str(
        client.create_run(place, run_name=name, tags={**tags, "podium.state": "running"}).info.run_id
    )
    try:
        client.log_batch(run_id, params=[Param(key, str(value)) for key, value in parameters.items()])
        yield run_id
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        client.set_tag(run_id, "podium.state", "interrupted" if stopped else "failed")
        client.set_tag(run_id, "podium.reason", redacted(str(error))[:LONGEST_TAG])
        client.set_terminated(run_id, "KILLED" if stopped else "FAILED")
        raise
    client.set_tag(run_id, "podium.state", "complete")
    client.set_terminated(run_id, "FINISHED")


def log_results(
    stores: Stores, run_id: str, *, metrics: Mapping[str, float], tags: Mapping[str, str] = {}
) -> None:
    """Put numbers, which are the run's own and of no epoch, and tags on a run."""
    now = int(time.time() * 1000)
    open_client(stores).log_batch(
        run_id,
        metrics=[Metric(name, value, now, 0) for name, value in metrics.items()],
        tags=[RunTag(name, value) for name, value in tags.items()],
    )
