"""Optuna's pruners, objectives and constraints, and what a kill leaves of a proposal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from toy_sweeps import EPOCHS, FINITE_SPACE, SPACE, Played, play, toy_engine, toy_sweep

from podium.engines.base import Done, Engine, Outcome, Proposal
from podium.engines.make import option_faults
from podium.engines.study import VERDICT

TPE = {"name": "optuna", "sampler": "tpe", "pruner": "none", "seed": 1}
RANDOM = {**TPE, "sampler": "random"}
NUMBERS = {key: SPACE[key] for key in ("optimizer.learning_rate", "model.dropout", "model.depth")}


def played(folder: Path, trials: int, *, name: str = "toy", **engine: Any) -> tuple[Engine, Played]:
    running = toy_engine(toy_sweep(folder, {**RANDOM, **engine}), name=name)
    return running, play(running, trials)


def asked(engine: Engine) -> Proposal:
    proposal = engine.ask()
    assert isinstance(proposal, Proposal)
    return proposal


def test_hyperband_stops_at_rungs_of_1_3_and_9_epochs(tmp_path: Path) -> None:
    engine, result = played(tmp_path, 40, pruner="hyperband")
    assert set(result.epochs.values()) == {1, 3, EPOCHS}
    states = {result.epochs[trial.number]: trial.state for trial in engine.trials()}
    assert states[1] == states[3] == "pruned"
    assert sum(result.epochs.values()) < 40 * EPOCHS * 0.6


@pytest.mark.parametrize("pruner", ["hyperband", "patient"])
def test_brackets_do_not_depend_on_the_name_of_the_study(tmp_path: Path, pruner: str) -> None:
    options = {"wrapped_pruner": "hyperband", "patience": 0, "min_delta": 0.0} if pruner == "patient" else {}
    _, first = played(tmp_path, 25, name="toy-1a2b", sampler="tpe", pruner=pruner, pruner_options=options)
    _, second = played(
        tmp_path, 25, name="toy-1a2b-new-2", sampler="tpe", pruner=pruner, pruner_options=options
    )
    assert first == second


def test_another_seed_means_other_brackets(tmp_path: Path) -> None:
    epochs = []
    for seed in (1, 2):
        engine = toy_engine(toy_sweep(tmp_path, {**RANDOM, "pruner": "hyperband", "seed": seed}))
        for _ in range(20):
            asked(engine)
        epochs.append([engine.report(number, 1, 1.0 - number / 100) for number in range(20)])
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(
    ("pruner", "options"),
    [
        ("median", {}),
        ("percentile", {"percentile": 40}),
        ("successive_halving", {}),
        ("patient", {"patience": 0, "wrapped_pruner": "median", "wrapped_options": {"n_startup_trials": 2}}),
        ("none", {}),
    ],
)
def test_every_pruner_runs_and_saves_epochs_unless_it_is_none(
    tmp_path: Path, pruner: str, options: dict[str, Any]
) -> None:
    sweep = toy_sweep(tmp_path, {**RANDOM, "pruner": pruner, "pruner_options": options})
    assert option_faults(sweep.file) == []
    engine = toy_engine(sweep)
    epochs = []
    for _ in range(24):
        proposal = asked(engine)
        reached = 1.0 - abs(float(proposal.parameters["model.dropout"] or 0) - 0.3)
        epoch = 0
        for epoch in range(1, EPOCHS + 1):
            # Falls from the second epoch on, so that a patient pruner has its occasion.
            if engine.report(proposal.number, epoch, reached - 0.01 * epoch):
                break
        state: Any = "complete" if epoch == EPOCHS else "pruned"
        engine.tell(proposal.number, Outcome(state=state, value=reached))
        epochs.append(epoch)
    assert min(epochs) == {"none": EPOCHS, "patient": 2}.get(pruner, 1)
    assert max(epochs) == EPOCHS


def test_successive_halving_has_its_first_rung_after_one_epoch(tmp_path: Path) -> None:
    _, result = played(tmp_path, 20, pruner="successive_halving")
    assert 1 in result.epochs.values()


@pytest.mark.slow
def test_a_verdict_to_stop_stands_when_its_trial_is_resumed(url: str, tmp_path: Path) -> None:
    sweep = toy_sweep(tmp_path, {**RANDOM, "pruner": "successive_halving"})
    engine = toy_engine(sweep, url=url)
    first, second = asked(engine), asked(engine)
    assert engine.report(first.number, 1, 0.9) is False
    assert engine.report(second.number, 1, 0.1) is True
    engine.close()
    resumed = toy_engine(sweep, url=url, create=False)
    assert resumed.report(second.number, 1, 0.99) is True
    assert resumed.report(second.number, 2, 0.99) is True
    assert resumed.report(first.number, 1, 0.0) is False
    assert [trial.curve[1] for trial in resumed.trials()] == [0.9, 0.1]
    resumed.close()


class Killed(BaseException):
    """Stands for the end of the process at one moment."""


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "random", "qmc", "nsga2", "grid"])
def test_a_kill_in_the_middle_of_a_proposal_leaves_it_to_be_made_again(
    url: str, tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sampler == "gp":
        pytest.importorskip("torch")
    options: dict[str, Any] = {"n_startup_trials": 3} if sampler in ("tpe", "gp", "cmaes") else {}
    if sampler == "nsga2":
        options = {"population_size": 3}
    space = {"grid": FINITE_SPACE, "cmaes": NUMBERS}.get(sampler, SPACE)
    sweep = toy_sweep(tmp_path, {**TPE, "sampler": sampler, "sampler_options": options}, space=space)
    uninterrupted = play(toy_engine(sweep), 7).proposals
    engine: Any = toy_engine(sweep, url=url)
    play(engine, 5)
    storage = engine._record.storage
    before = everything_in(storage)

    def die(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(storage, "create_new_trial", die)
    with pytest.raises(Killed):
        engine.ask()
    assert everything_in(storage) == before
    engine.close()
    resumed = toy_engine(sweep, url=url, create=False)
    assert play(resumed, 2).proposals == uninterrupted[5:]
    resumed.close()


def everything_in(storage: Any) -> list[Any]:
    """What a store's only study holds, trial by trial."""
    [study] = storage.get_all_studies()
    return storage.get_all_trials(study._study_id, deepcopy=True)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["gp", "cmaes", "nsga2"])
def test_what_a_sampler_notes_on_a_trial_is_in_the_study(url: str, tmp_path: Path, sampler: str) -> None:
    if sampler == "gp":
        pytest.importorskip("torch")
    options = {"population_size": 3} if sampler == "nsga2" else {"n_startup_trials": 3}
    sweep = toy_sweep(tmp_path, {**TPE, "sampler": sampler, "sampler_options": options}, space=NUMBERS)
    engine: Any = toy_engine(sweep, url=url)
    play(engine, 8)
    trials = everything_in(engine._record.storage)
    assert [sorted(trial.system_attrs) != [] for trial in trials[4:]] == [True] * 4
    engine.close()


def test_several_objectives_give_a_pareto_front(tmp_path: Path) -> None:
    objectives = [
        {"metric": "val_accuracy", "goal": "maximize"},
        {"metric": "parameters", "goal": "minimize"},
    ]
    for sampler in ("tpe", "nsga2", "qmc", "random"):
        sweep = toy_sweep(tmp_path, {**TPE, "sampler": sampler}, objective=objectives)
        assert option_faults(sweep.file) == []
        engine = toy_engine(sweep)
        play(engine, 20)
        trials = {trial.number: trial for trial in engine.trials()}
        front = [trials[number].values for number in engine.best()]
        for accuracy, size in front:
            assert not any(
                other.values[0] >= accuracy and other.values[1] < size for other in trials.values()
            )
        assert all(trial.values[0] == trial.value for trial in trials.values())
        assert all(trial.values[1] == trial.measures["parameters"] for trial in trials.values())


def test_a_complete_trial_without_one_of_its_objectives_is_an_error(tmp_path: Path) -> None:
    objectives = [
        {"metric": "val_accuracy", "goal": "maximize"},
        {"metric": "seconds", "goal": "minimize"},
    ]
    engine = toy_engine(toy_sweep(tmp_path, TPE, objective=objectives))
    with pytest.raises(ValueError, match="its seconds is None"):
        engine.tell(asked(engine).number, Outcome(state="complete", value=0.5))


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_what_breaks_a_constraint_is_infeasible_and_proposed_less(tmp_path: Path, sampler: str) -> None:
    options = {"n_startup_trials": 10} if sampler == "tpe" else {"population_size": 10}
    wide = {"type": "int", "low": 8, "high": 64}
    others = {key: SPACE[key] for key in ("model.dropout", "model.depth", "optimizer.name")}
    sweep = toy_sweep(
        tmp_path,
        {**TPE, "sampler": sampler, "sampler_options": options},
        space={"model.filters": wide, **others},
        constraints={"parameters": {"at_most": 24_000}},
    )
    assert option_faults(sweep.file) == []
    engine = toy_engine(sweep)
    for _ in range(80):
        proposal = asked(engine)
        filters = float(proposal.parameters["model.filters"] or 0)
        # The more filters the better, were it not for the limit.
        measures = {"parameters": filters * 1000.0}
        engine.tell(proposal.number, Outcome(state="complete", value=filters, measures=measures))
    records = engine.trials()
    assert all(record.feasible == (record.measures["parameters"] <= 24_000) for record in records)
    best = records[engine.best()[0]]
    assert best.feasible
    assert best.value == max(record.value or 0 for record in records if record.feasible)
    late = [record.feasible for record in records[40:]]
    assert sum(late) > 0.5 * len(late)  # by chance 0.3


def _late_completions(folder: Path, cause: Any, seed: int) -> int:
    """How many of the last 25 of 50 trials end well, where two thirds of the space fail."""
    sweep = toy_sweep(
        folder,
        {**TPE, "sampler_options": {"n_startup_trials": 8}, "seed": seed},
        space={"model.dropout": {"type": "float", "low": 0.0, "high": 0.9}},
    )
    engine = toy_engine(sweep)
    for _ in range(50):
        proposal = asked(engine)
        dropout = float(proposal.parameters["model.dropout"] or 0.0)
        if dropout > 0.3:  # and better the nearer to it
            engine.tell(proposal.number, Outcome(state="failed", cause=cause, message="no"))
        else:
            engine.tell(proposal.number, Outcome(state="complete", value=0.5 + dropout))
    records = engine.trials()
    assert {(record.state, record.cause) for record in records} == {("failed", cause), ("complete", None)}
    failed = next(record for record in records if record.state == "failed")
    assert failed.message == "no"
    assert failed.feasible == (cause == "error")
    return sum(record.state == "complete" for record in records[25:])


def test_the_search_moves_away_from_what_ran_out_of_memory_and_not_from_other_failures(
    tmp_path: Path,
) -> None:
    memory = sum(_late_completions(tmp_path, "memory", seed) for seed in range(3))
    error = sum(_late_completions(tmp_path, "error", seed) for seed in range(3))
    assert memory > 1.3 * error


def test_a_trial_that_ends_well_after_a_torn_end_for_want_of_memory_is_feasible(tmp_path: Path) -> None:
    engine = toy_engine(toy_sweep(tmp_path, TPE))
    first, second = asked(engine).number, asked(engine).number
    for number in (first, second):
        engine._record.constrain(number, "memory", 1.0)  # and killed before the state
    engine.tell(first, Outcome(state="complete", value=0.5))
    engine.tell(second, Outcome(state="failed", cause="memory", message="no"))
    assert [record.feasible for record in engine.trials()] == [True, False]
    assert engine.best() == [first]


def test_a_verdict_to_stop_holds_from_its_epoch_on_alone(tmp_path: Path) -> None:
    engine = toy_engine(toy_sweep(tmp_path, {**TPE, "pruner": "successive_halving"}))
    engine.tell(asked(engine).number, Outcome(state="complete", value=0.9))
    number = asked(engine).number
    engine.report(number, 1, 0.5)
    engine._record.storage.set_trial_user_attr(engine._record.trial_id(number), VERDICT, 2)
    # Another attempt begins again before it.
    assert [engine.report(number, epoch, 0.5) for epoch in (1, 2, 3)] == [False, True, True]


@pytest.mark.slow
def test_warm_starts_follow_the_baseline_and_are_kept_with_the_study(url: str, tmp_path: Path) -> None:
    sweep = toy_sweep(tmp_path, TPE, space=FINITE_SPACE)
    warm = [
        {"model.depth": 2, "optimizer.name": "adam"},
        {"model.depth": 1, "optimizer.name": "sgd", "augmentation.strength": 0.5},
    ]
    engine = toy_engine(sweep, url=url, warm_start=warm)
    play(engine, 2)
    engine.close()
    resumed = toy_engine(sweep, url=url, create=False)
    proposals = play(resumed, 2).proposals
    assert dict(proposals[0].parameters) == warm[1]
    assert [dict(trial.parameters) for trial in resumed.trials()[1:3]] == warm
    resumed.close()


@pytest.mark.slow
def test_a_proposal_takes_milliseconds_in_a_study_of_100_trials(tmp_path: Path) -> None:
    engine = toy_engine(toy_sweep(tmp_path, {**TPE, "pruner": "hyperband"}))
    play(engine, 100)
    started = time.process_time()
    asked(engine)
    assert time.process_time() - started < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["hyperband", "median", "successive_halving"])
def test_a_resumed_sweep_proposes_and_prunes_as_an_uninterrupted_one(
    url: str, tmp_path: Path, pruner: str
) -> None:
    sweep = toy_sweep(tmp_path, {**TPE, "pruner": pruner, "sampler_options": {"n_startup_trials": 3}})
    whole = play(toy_engine(sweep), 16)
    resumed = Played()
    for stop in (6, 1, 9):
        engine = toy_engine(sweep, url=url, create=not resumed.proposals)
        part = play(engine, stop)
        resumed.proposals += part.proposals
        resumed.epochs |= part.epochs
        engine.close()
    assert resumed == whole


@pytest.mark.parametrize("pruner", ["hyperband", "successive_halving"])
def test_the_baseline_is_never_pruned_and_others_are(pruner: str, tmp_path: Path) -> None:
    engine = toy_engine(toy_sweep(tmp_path, {**RANDOM, "pruner": pruner}))
    for _ in range(12):
        asked(engine)
    stopped = {
        number
        for epoch in range(1, 10)
        for number in range(11, -1, -1)
        if engine.report(number, epoch, number / 100)
    }
    assert 0 not in stopped
    assert stopped


def test_a_grid_takes_five_values_of_a_range_even_on_its_scale(tmp_path: Path) -> None:
    space = {
        "optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1.0, "scale": "log"},
        "model.dropout": {"type": "float", "low": 0.1, "high": 0.5},
    }
    sweep = toy_sweep(tmp_path, {"name": "optuna", "sampler": "grid", "pruner": "none"}, space=space)
    assert option_faults(sweep.file) == []
    played = play(toy_engine(sweep), 100)
    assert isinstance(played.ended, Done)
    assert len(played.proposals) == 1 + 25
    rates = sorted({proposal.parameters["optimizer.learning_rate"] for proposal in played.proposals[1:]})
    dropouts = sorted({proposal.parameters["model.dropout"] for proposal in played.proposals[1:]})
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert dropouts == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_tpe_goes_on_after_the_budget_stopped_trials_of_several_objectives(tmp_path: Path) -> None:
    objectives = [
        {"metric": "val_accuracy", "goal": "maximize"},
        {"metric": "parameters", "goal": "minimize"},
    ]
    settings = {"name": "optuna", "sampler": "tpe", "pruner": "none"}
    engine = toy_engine(toy_sweep(tmp_path, settings, objective=objectives))
    for number in range(14):
        proposal = engine.ask()
        assert isinstance(proposal, Proposal)
        engine.report(number, 1, 0.5)
        if number in (3, 4):
            stopped = Outcome(state="pruned", value=0.5, message="stopped by the budget's hours")
            engine.tell(number, stopped)
        else:
            engine.tell(
                number,
                Outcome(state="complete", value=0.5 + number / 100, measures={"parameters": 10.0 + number}),
            )
    assert [trial.state for trial in engine.trials()[3:5]] == ["pruned", "pruned"]
