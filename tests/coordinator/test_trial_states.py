"""The table of trial states in docs/reference.md says what the stores hold."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import optuna
import pytest
from optuna.trial import FrozenTrial
from sweep_world import EPOCHS, STUDY, World, new_stores

from podium.coordinator.bookkeeping import Bookkeeper
from podium.coordinator.outcomes import of_twin
from podium.engines.base import Engine, Outcome, Proposal
from podium.engines.keras_tuner import STATE, KerasTunerEngine
from podium.engines.storage import opened
from podium.result import FailureCause
from podium.stores import Stores
from podium.sweep_file import ConstraintSettings, KerasTunerSettings, LimitSettings
from podium.tracking import query

pytestmark = pytest.mark.slow
REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"
HEADING = "## What becomes of a trial"
LIMIT = 1000
SMALL, LARGE = {"parameters": 500.0, "seconds": 1.0}, {"parameters": 2000.0, "seconds": 1.0}


def failed(cause: Any) -> Outcome:
    return Outcome(state="failed", cause=cause, message=f"it failed by {cause}")


OUTCOMES: dict[str, Outcome | None] = {
    "trained to its end": Outcome(state="complete", value=0.7, measures=SMALL),
    "trained to its end, beyond a limit of `constraints`": Outcome(
        state="complete", value=0.9, measures=LARGE
    ),
    "stopped by the pruner": Outcome(
        state="pruned", value=0.4, measures=SMALL, message="stopped by the pruner"
    ),
    "stopped by the budget": Outcome(
        state="pruned", value=0.4, measures=SMALL, message="stopped by the budget's hours"
    ),
    "failed: memory": failed("memory"),
    "failed: nan": failed("nan"),
    "failed: error": failed("error"),
    "failed: lost": failed("lost"),
    "equal to a finished trial": None,  # its outcome is that trial's
    "interrupted": None,
    "in training": None,
}
CONTINUED = "continued by Hyperband"


@dataclass(frozen=True)
class Seen:
    """What the stores say of a trial."""

    podium: str
    library: str
    mlflow: str
    tags: Mapping[str, str]


def documented() -> dict[str, list[str]]:
    """The table's rows: cells by what happened."""
    _, _, after = REFERENCE.read_text().partition(HEADING)
    lines = [line for line in after.split("\n## ")[0].splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in rows[1:]}


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def play(world: World, engine: Engine) -> dict[int, str]:
    """One trial of each kind after the baseline; answers what became of them."""
    recorder = world.recorder()
    world.open_parent(engine, recorder)
    book = Bookkeeper(recorder, world.plan())
    events: dict[int, str] = {}
    for event in ["trained to its end", *OUTCOMES]:
        proposal = engine.ask()
        assert isinstance(proposal, Proposal), event
        events[proposal.number] = event
        book.start(proposal, world.plan().recipe.with_values(proposal.parameters), 1)
        if event == "interrupted":
            book.close(proposal.number)
        elif event != "in training":
            outcome = OUTCOMES[event] or of_twin(engine.trials()[0])
            engine.tell(proposal.number, outcome)
            if proposal.number == 0:
                assert recorder.wait_for_run_id(0, 30)
            book.end(engine.trials()[proposal.number])
    assert recorder.flush(60)
    recorder.close()
    return events


def kept(stores: Stores) -> tuple[list[FrozenTrial], dict[str, Any]]:
    """The study's trials and its system attributes as Optuna has them."""
    with opened(stores.study_url) as storage:
        study = optuna.load_study(study_name=STUDY, storage=storage)
        return study.trials, storage.get_study_system_attrs(study._study_id)


def seen(world: World, engine: Engine, library: Mapping[int, str]) -> dict[int, Seen]:
    records = {record.number: record for record in engine.trials()}
    return {
        int(run["trial"]): Seen(
            podium=records[int(run["trial"])].state,
            library=library[int(run["trial"])],
            mlflow=str(run["status"]),
            tags={
                str(name).removeprefix("tags."): str(value)
                for name, value in run.items()
                if str(name).startswith("tags.") and isinstance(value, str)
            },
        )
        for _, run in world.runs().iterrows()
    }


@pytest.fixture(scope="module")
def by_optuna(
    tmp_path_factory: pytest.TempPathFactory, empty_stores: Stores
) -> tuple[World, dict[str, Seen]]:
    world = new_world(tmp_path_factory, empty_stores)
    world.constraints = ConstraintSettings(parameters=LimitSettings(at_most=LIMIT))
    engine = world.engine()
    events = play(world, engine)
    states = {trial.number: trial.state.name for trial in kept(world.stores)[0]}
    found = seen(world, engine, states)
    engine.close()
    return world, {event: found[number] for number, event in events.items()}


@pytest.fixture(scope="module")
def by_keras_tuner(tmp_path_factory: pytest.TempPathFactory, empty_stores: Stores) -> dict[str, Seen]:
    world = new_world(tmp_path_factory, empty_stores)
    engine = oracle(world, "random")
    events = play(world, engine)
    statuses = {number: trial["status"] for number, trial in oracle_trials(world).items()}
    found = seen(world, engine, statuses)
    engine.close()
    return {event: found[number] for number, event in events.items()}


def new_world(factory: pytest.TempPathFactory, empty: Stores) -> World:
    return World(new_stores(factory.mktemp("states") / "mlruns", empty.root), sampler="tpe")


def oracle(world: World, name: Any, **options: Any) -> KerasTunerEngine:
    return KerasTunerEngine(
        KerasTunerSettings(name="keras_tuner", oracle=name, oracle_options=options),
        world.space,
        given=world.given,
        goal="maximize",
        epochs=EPOCHS,
        study_name=STUDY,
        study_url=world.stores.study_url,
        create=True,
    )


def oracle_trials(world: World) -> dict[int, dict[str, Any]]:
    """The Oracle's own trials as they are kept, by the study's numbers."""
    state = json.loads(kept(world.stores)[1][STATE])
    trials = {trial["trial_id"]: trial for trial in state["oracle"]["trials"]}
    return {int(number): trials[trial_id] for number, trial_id in state["ids"].items()}


def test_the_table_has_a_row_for_everything_that_becomes_of_a_trial() -> None:
    assert sorted(documented()) == sorted([*OUTCOMES, CONTINUED])
    assert {f"failed: {cause}" for cause in get_args(FailureCause)} <= documented().keys()


@pytest.mark.parametrize("event", OUTCOMES)
def test_optuna_and_mlflow_hold_what_the_table_says(
    by_optuna: tuple[World, dict[str, Seen]], event: str
) -> None:
    podium, library, _, mlflow, tags = documented()[event]
    found = by_optuna[1][event]
    assert found.podium == words(podium)[0]
    assert found.library == words(library)[0]
    assert found.mlflow == words(mlflow)[0]
    expected = dict(each.partition("=")[::2] for each in words(tags))
    assert set(expected) <= set(found.tags)
    assert {name: value for name, value in expected.items() if value} == {
        name: found.tags[name] for name, value in expected.items() if value
    }


@pytest.mark.parametrize(
    "event", [event for event in OUTCOMES if "limit" not in event and "pruner" not in event]
)
def test_an_oracle_holds_what_the_table_says(by_keras_tuner: dict[str, Seen], event: str) -> None:
    podium, _, library, mlflow, _ = documented()[event]
    found = by_keras_tuner[event]
    assert found.podium == words(podium)[0]
    assert found.library == words(library)[0]
    assert found.mlflow == words(mlflow)[0]


def test_beyond_a_limit_and_out_of_memory_are_infeasible_to_optuna(
    by_optuna: tuple[World, dict[str, Seen]],
) -> None:
    world, _ = by_optuna
    trials, _ = kept(world.stores)
    beyond = {
        event: name
        for trial, event in zip(trials, ["trained to its end", *OUTCOMES], strict=True)
        for name, excess in trial.constraints.items()
        if excess > 0
    }
    assert beyond == {
        "trained to its end, beyond a limit of `constraints`": "parameters",
        "failed: memory": "memory",
    }
    assert all(words(documented()[event][1])[1] == name for event, name in beyond.items())


def test_out_of_memory_is_the_worst_score_to_the_bayesian_oracle(
    tmp_path_factory: pytest.TempPathFactory, empty_stores: Stores
) -> None:
    world = new_world(tmp_path_factory, empty_stores)
    engine = oracle(world, "bayesian", num_initial_points=9)
    for outcome in (
        Outcome(state="complete", value=0.7),
        Outcome(state="complete", value=0.2),
        failed("memory"),
    ):
        proposal = engine.ask()
        assert isinstance(proposal, Proposal)
        engine.tell(proposal.number, outcome)
    engine.close()
    told = oracle_trials(world)[2]
    assert (told["status"], told["score"]) == ("COMPLETED", 0.2)
    assert words(documented()["failed: memory"][2])[1:] == ["bayesian", "COMPLETED"]


def test_what_hyperband_continues_is_a_trial_of_its_own_that_names_its_parent(
    tmp_path_factory: pytest.TempPathFactory, empty_stores: Stores
) -> None:
    world = new_world(tmp_path_factory, empty_stores)
    engine = oracle(world, "hyperband", factor=2)
    recorder = world.recorder()
    world.open_parent(engine, recorder)
    while True:
        proposal = engine.ask()
        assert isinstance(proposal, Proposal)
        if proposal.parent is not None:
            break
        engine.tell(proposal.number, Outcome(state="complete", value=0.1 * proposal.number))
    Bookkeeper(recorder, world.plan()).start(proposal, world.plan().recipe, 1)
    assert recorder.flush(60)
    recorder.close()
    _, _, library, _, tags = documented()[CONTINUED]
    held = oracle_trials(world)
    assert held[proposal.number]["values"][words(library)[0]] == held[proposal.parent]["trial_id"]
    assert held[proposal.parent]["status"] == "COMPLETED"
    assert engine.trials()[proposal.parent].state == "complete"
    assert world.run(proposal.number)["tags." + words(tags)[0]] == str(proposal.parent)
    assert query.children(world.stores, str(engine.recall("parent_run_id")))["trial"].tolist() == [
        proposal.number
    ]
    engine.close()
