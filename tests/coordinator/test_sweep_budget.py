"""Budgets, duplicates and resuming with eight workers on two cores."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from sweep_world import EPOCHS, Watcher, World

from podium.coordinator.loop import Coordinator
from podium.coordinator.trial import LiveTrial
from podium.engines.base import Outcome
from podium.executors.local import LocalExecutor
from podium.result import EpochEvent
from podium.search_space import CategoricalParameter

pytestmark = pytest.mark.slow
WORKERS = 8


@pytest.fixture(scope="module")
def eight_workers(tmp_path_factory: pytest.TempPathFactory) -> LocalExecutor:
    from sweep_world import local_executor

    executor = local_executor(tmp_path_factory.mktemp("logs"), WORKERS)
    yield executor
    executor.close()


def interrupt_after(epochs: int) -> Callable[[Coordinator, Watcher], None]:
    """Ctrl-C when so many epochs of all trials together are over."""

    def watch(coordinator: Coordinator, watcher: Watcher) -> None:
        seen: list[EpochEvent] = []

        def act(trial: LiveTrial, event: EpochEvent) -> None:
            seen.append(event)
            if len(seen) == epochs:
                coordinator.interrupt()

        watcher.on_epoch = act

    return watch


def epochs_on_record(world: World) -> int:
    return sum(len(record.curve) for record in world.records())


@pytest.mark.parametrize("budget", [1, 21])
def test_a_budget_of_epochs_is_spent_to_the_last_and_not_overshot(
    budget: int, world: World, eight_workers: LocalExecutor
) -> None:
    world.order({"all": {"seconds": 0.01}})
    conclusion = world.start(eight_workers, trials=None, epochs=budget)
    assert conclusion.reason == "the budget's epochs are used"
    assert epochs_on_record(world) == budget == len(world.trained())
    cut_short = [record for record in world.records() if record.state == "pruned"]
    assert {record.message for record in cut_short} <= {"stopped by the budget's epochs"}
    assert all(len(record.curve) < EPOCHS for record in cut_short)
    assert world.disagreements() == []


def test_a_budget_of_epochs_holds_over_restarts(world: World, eight_workers: LocalExecutor) -> None:
    world.order({"all": {"seconds": 0.01}})
    chance = random.Random(0)
    for _ in range(3):
        world.start(eight_workers, trials=None, epochs=40, watch=interrupt_after(chance.randint(3, 8)))
    world.start(eight_workers, trials=None, epochs=40)
    assert epochs_on_record(world) == 40 == len(world.trained())
    world.start(eight_workers, trials=None, epochs=40)
    assert epochs_on_record(world) == 40 == len(world.trained())
    assert world.disagreements() == []


def test_a_larger_budget_of_epochs_goes_on(world: World, eight_workers: LocalExecutor) -> None:
    world.start(eight_workers, trials=None, epochs=20)
    world.start(eight_workers, trials=None, epochs=33)
    assert epochs_on_record(world) == 33 == len(world.trained())


def test_epochs_of_duplicates_cost_nothing(
    make_world: Callable[..., World], eight_workers: LocalExecutor
) -> None:
    world = make_world()
    world.space = {"model.dropout": CategoricalParameter(type="categorical", choices=[0.25, 0.5])}
    world.order({"all": {"seconds": 0.01}})
    # The first eight start side by side, and a few more before each of the two values has a finished trial.
    most = 2 * WORKERS
    world.start(eight_workers, trials=30, epochs=most * EPOCHS)
    records = world.records()
    assert len(records) == 30
    copies = [record for record in records if "duplicate_of" in record.attributes]
    assert len(copies) >= 30 - most
    assert len(world.trained()) == EPOCHS * (30 - len(copies))
    assert len(world.trained()) == epochs_on_record(world)
    assert world.disagreements() == []


def test_a_space_that_is_used_up_ends_a_sweep_that_counts_epochs(
    make_world: Callable[..., World], eight_workers: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podium.coordinator.loop.MOST_TWINS", 15)  # a hundred take long on disk
    world = make_world()
    world.space = {"model.dropout": CategoricalParameter(type="categorical", choices=[0.25, 0.5])}
    conclusion = world.start(eight_workers, trials=None, epochs=1_000)
    assert conclusion.reason == "the last 15 proposals had all been trained before"
    assert epochs_on_record(world) <= 2 * WORKERS * EPOCHS
    # And a person may end it in the midst of them.
    seen: list[LiveTrial] = []

    def watch(coordinator: Coordinator, watcher: Watcher) -> None:
        def act(trial: LiveTrial, outcome: Outcome) -> None:
            seen.append(trial)
            if len(seen) == 5:
                coordinator.interrupt()

        watcher.on_end = act

    assert world.start(eight_workers, trials=None, epochs=1_000, watch=watch).interrupted
    assert len(seen) == 5
    assert world.disagreements() == []


def test_a_sweep_without_a_new_best_ends_before_its_budget(
    make_world: Callable[..., World], eight_workers: LocalExecutor
) -> None:
    world = make_world()
    world.given = [{"model.dropout": 0.3}]  # nothing is better
    conclusion = world.start(eight_workers, trials=500, no_improvement=8)
    assert conclusion.reason == "no new best in 8 trials"
    records = world.records()
    assert 9 <= len(records) <= 9 + WORKERS
    world.start(eight_workers, trials=500, no_improvement=8)
    assert len(world.records()) == len(records)
    world.start(eight_workers, trials=500, no_improvement=len(records) + 5)
    assert len(world.records()) > len(records)


def test_a_new_best_begins_the_count_anew(
    make_world: Callable[..., World], make_executor: Callable[..., LocalExecutor]
) -> None:
    world = make_world()
    world.given = [{"model.dropout": each} for each in (0.5, 0.45, 0.55, 0.4, 0.6, 0.3)]
    world.start(make_executor(1), trials=500, no_improvement=3)
    # The best by number: 0, then 1, 3 and 5; two without a new best never ended it.
    assert len(world.records()) == 5 + 1 + 3
