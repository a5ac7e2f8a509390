"""Workers on a Ray cluster: what they see, what reaches them, and what happens when nodes come and go."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loopback_nodes import LoopbackNodes
from toy_trainers import FOLDER, TOY, toy_job

from podium.datasets.prepare import prepare
from podium.datasets.splits import split
from podium.errors import InvalidInput, SweepError
from podium.executors.base import Attempt, Ended, EpochDone, Event, Executor, Notice
from podium.executors.local import LocalExecutor
from podium.recipe import Recipe
from podium.recipe_sections import DataSettings, ModelSettings, TrainingSettings
from podium.result import Failure, TrainingArrays, TrainingJob, TrainingResult, Verdict

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]
PATIENCE_SECONDS = 90.0
GROWTH_SECONDS = 10.0
BUILDER = """
import keras

def build(image_shape, classes):
    assert "py_modules_files" in __file__, __file__
    layers = [keras.layers.Flatten(), keras.layers.Dense(classes, activation="softmax")]
    return keras.Sequential([keras.Input(image_shape), *layers])
"""
Make = Callable[..., Executor]


@pytest.fixture(scope="module")
def node_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node") / "cache"


@pytest.fixture(scope="module")
def cluster(node_cache: Path) -> Iterator[LoopbackNodes]:
    secret = {"AWS_SECRET_ACCESS_KEY": "s3cret", "PODIUM_CACHE": str(node_cache)}
    with LoopbackNodes(environment=secret) as nodes:
        yield nodes


@pytest.fixture
def make(cluster: LoopbackNodes, tmp_path: Path) -> Iterator[Make]:
    from podium.executors import ray_cluster

    ray_cluster.prepare(cluster.address)
    from podium.executors.ray import RayExecutor

    made: list[Executor] = []

    def build(**settings: Any) -> Executor:
        settings = {"cpus": 1, "log_folder": tmp_path / "logs", **settings}
        made.append(RayExecutor(address=cluster.address, **settings))
        return made[-1]

    yield build
    for executor in made:
        executor.close()


def until(executor: Executor, happened: Callable[[list[Event]], bool]) -> list[Event]:
    """All events up to a condition; every epoch goes on."""
    events: list[Event] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened(events):
        assert time.monotonic() < deadline, events
        for event in executor.events(0.5):
            events.append(event)
            if isinstance(event, EpochDone):
                executor.answer(event.key, Verdict.CONTINUE)
    return events


def outcome(executor: Executor, attempt: Attempt) -> TrainingResult | Failure:
    until(executor, lambda _: executor.free > 0)
    executor.submit(attempt)
    events = until(executor, lambda events: any(isinstance(event, Ended) for event in events))
    return next(event.outcome for event in events if isinstance(event, Ended))


def facts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "facts.json").read_text())
    return found


def test_a_worker_sees_the_gpu_it_was_given_and_no_other_and_no_credentials(
    cluster: LoopbackNodes, make: Make, tmp_path: Path
) -> None:
    node = cluster.add(cpus=1, gpus=1)
    try:
        for gpus, visible in ((0, "-1"), (1, "0")):
            executor = make(trainer=TOY, paths=[FOLDER], gpus=gpus)
            folder = tmp_path / f"attempt-{gpus}"
            assert isinstance(outcome(executor, Attempt(key="0.1", job=toy_job(folder))), TrainingResult)
            seen = facts(folder)  # it came home from the worker's own folder
            assert seen["environment"]["CUDA_VISIBLE_DEVICES"] == visible
            assert not [name for name in seen["environment"] if "TOKEN" in name or "SECRET" in name]
            assert not {"mlflow", "optuna", "keras"} & set(seen["modules"])
            executor.close()
    finally:
        cluster.kill(node)


def test_a_sweep_follows_its_nodes_down_to_none_and_up_again(
    cluster: LoopbackNodes, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import podium.executors.ray

    first = cluster.add(cpus=1)
    executor = make(trainer=TOY, paths=[FOLDER], gpus=0)
    until(executor, lambda _: executor.free == 1)
    executor.submit(Attempt(key="0.1", job=toy_job(tmp_path / "a", epochs=50, seconds=0.2)))
    until(executor, lambda events: sum(isinstance(event, EpochDone) for event in events) >= 2)
    monkeypatch.setattr(podium.executors.ray, "NOTICE_SECONDS", 2.0)
    cluster.kill(first)
    events = until(executor, lambda events: any(isinstance(event, Notice) for event in events))
    [lost] = [event.outcome for event in events if isinstance(event, Ended)]
    assert isinstance(lost, Failure)
    assert (lost.cause, executor.free) == ("lost", 0)
    assert "attempt 0.1" in lost.message
    [notice] = [event for event in events if isinstance(event, Notice)]
    assert notice.text == "waiting for the cluster: no node has 1 CPU for a worker"
    second = cluster.add(cpus=1)
    grown_at = time.monotonic()
    try:
        until(executor, lambda _: executor.free == 1)
        assert time.monotonic() - grown_at < GROWTH_SECONDS
        assert isinstance(outcome(executor, Attempt(key="0.2", job=toy_job(tmp_path / "b"))), TrainingResult)
        executor.close()
        with pytest.raises(SweepError, match="No module named 'no_such_module'"):
            until(make(trainer="no_such_module:train", gpus=0), lambda _: False)
    finally:
        cluster.kill(second)


def test_training_on_another_node_is_the_same_to_the_bit(
    cluster: LoopbackNodes, make: Make, tmp_path: Path, node_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data that the node has not are brought there, the user's code too; best.keras comes home."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_model.py").write_text(BUILDER)
    (tmp_path / "code" / ".gitignore").write_text("*\n")
    monkeypatch.chdir(tmp_path)
    data = DataSettings(train_limit=100)
    arrays = split(prepare(data, cache=tmp_path / "here"), data, cache=tmp_path / "here")
    recipe = Recipe(
        data=data,
        model=ModelSettings(depth=1, filters=4, dense_units=8),
        training=TrainingSettings(epochs=2, batch_size=20),
    )
    job = TrainingJob(recipe=recipe, arrays=arrays, folder=tmp_path / "local", epochs=2)
    local = LocalExecutor(workers=1, threads=1, log_folder=tmp_path / "logs")
    try:
        expected = outcome(local, Attempt(key="0.1", job=job))
    finally:
        local.close()
    node = cluster.add(cpus=1)
    try:
        executor = make(code=tmp_path / "code")
        far = replace(job, arrays=only_for_this_process(arrays), folder=tmp_path / "trial-0000" / "attempt-1")
        result = outcome(executor, Attempt(key="0.1", job=far))
        assert isinstance(expected, TrainingResult)
        assert isinstance(result, TrainingResult)
        assert result.final_weights_sha256 == expected.final_weights_sha256
        assert result.weights_sha256 == expected.weights_sha256
        assert result.model_file == far.folder / "best.keras"
        assert hashlib.sha256(result.model_file.read_bytes()).hexdigest() == result.model_sha256
        assert (far.folder / "checkpoint-0002" / "manifest.json").is_file()
        assert (node_cache / "train" / arrays.train_digest / "images.npy").is_file()
        own = recipe.with_values({"model.builder": "my_model:build"})
        built = replace(far, recipe=own, code=tmp_path / "code", folder=tmp_path / "trial-0001" / "attempt-1")
        assert isinstance(outcome(executor, Attempt(key="1.1", job=built)), TrainingResult)
        executor.close()
        # Other data under the same name: the node is refused, and there is no other one.
        (node_cache / "splits" / arrays.split.name).write_bytes(other_split(tmp_path, arrays))
        executor = make()
        until(executor, lambda _: executor.free == 1)
        executor.submit(Attempt(key="2.1", job=replace(far, folder=tmp_path / "trial-0002" / "attempt-1")))
        events = until(executor, lambda events: any(isinstance(event, Notice) for event in events))
        assert not [event for event in events if isinstance(event, Ended)], "the trial has lost nothing"
        [notice] = [event.text for event in events if isinstance(event, Notice)]
        assert arrays.split_digest in notice
        assert "is refused" in notice
        with pytest.raises(
            SweepError, match="every node of the cluster with room for a worker has other data"
        ):
            until(executor, lambda _: False)
    finally:
        cluster.kill(node)


def only_for_this_process(arrays: TrainingArrays) -> TrainingArrays:
    """The same files by names that mean something else in every other process, as on another machine."""
    here = Path("/proc/self/cwd")
    cwd = Path.cwd()
    return replace(
        arrays,
        images=here / arrays.images.relative_to(cwd),
        labels=here / arrays.labels.relative_to(cwd),
        split=here / arrays.split.relative_to(cwd),
    )


def other_split(folder: Path, arrays: TrainingArrays) -> bytes:
    import numpy as np

    with np.load(arrays.split) as stored:
        train, validation = stored["train"], stored["validation"]
    np.savez(folder / "other.npz", train=train[1:], validation=validation)
    return (folder / "other.npz").read_bytes()


def test_a_cluster_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    from podium.executors import ray_cluster

    began = time.monotonic()
    with pytest.raises(InvalidInput, match=r"got '127\.0\.0\.1:1', and nothing answers there"):
        ray_cluster.connect("127.0.0.1:1", code=None, folder=tmp_path)
    assert time.monotonic() - began < 5


def test_memory_is_told_from_other_losses() -> None:
    from ray.exceptions import ActorDiedError, OutOfMemoryError

    from podium.executors.ray_slot import loss

    attempt = Attempt(key="3.1", job=toy_job(Path("x")))
    causes = [loss(error, attempt, "there").cause for error in (OutOfMemoryError("full"), ActorDiedError())]
    assert causes == ["memory", "lost"]
