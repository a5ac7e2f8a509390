"""KerasTuner's Oracles: promotion, waiting, what a kill leaves, and the GPU that they must not take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from toy_sweeps import EPOCHS, FINITE_SPACE, outcome_of, play, toy_engine, toy_sweep

from podium.engines.base import Done, Engine, Outcome, Proposal, Wait
from podium.engines.grid_points import grid_size
from podium.engines.keras_tuner_oracles import load_library
from podium.engines.least_epochs import scheduled_epochs
from podium.search_space import project
from podium.sweep_file import KerasTunerSettings

pytestmark = pytest.mark.slow

HYPERBAND = {
    "name": "keras_tuner",
    "oracle": "hyperband",
    "oracle_options": {"hyperband_iterations": 1},
    "seed": 5,
}
BAYESIAN = {"name": "keras_tuner", "oracle": "bayesian", "seed": 5}
RANDOM = {"name": "keras_tuner", "oracle": "random", "seed": 5}


def asked(engine: Engine) -> Proposal:
    proposal = engine.ask()
    assert isinstance(proposal, Proposal)
    return proposal


def test_hyperband_promotes_the_best_and_repeats_no_epoch(tmp_path: Path) -> None:
    engine = toy_engine(toy_sweep(tmp_path, HYPERBAND))
    played = play(engine, 200)
    assert isinstance(played.ended, Done)
    trials = {trial.number: trial for trial in engine.trials()}
    by_number = {proposal.number: proposal for proposal in played.proposals}
    promoted = [proposal for proposal in played.proposals if proposal.parent is not None]
    assert promoted
    for proposal in promoted:
        parent = by_number[proposal.parent or 0]
        assert proposal.parameters == parent.parameters
        assert proposal.first_epoch == parent.epochs
        assert min(trials[proposal.number].curve) == max(trials[parent.number].curve) + 1
        rivals = [
            trial.value or 0.0
            for trial in trials.values()
            if trial.proposal is not None
            and (trial.proposal.epochs, trial.proposal.first_epoch) == (parent.epochs, parent.first_epoch)
        ]
        assert trials[parent.number].value in sorted(rivals)[2 * len(rivals) // 3 :]
    assert {proposal.epochs for proposal in played.proposals} == {None, 1, 3, EPOCHS}


def test_an_oracle_that_needs_results_first_means_wait_and_one_that_is_through_done(tmp_path: Path) -> None:
    engine = toy_engine(toy_sweep(tmp_path, HYPERBAND))
    open_proposals: list[Proposal] = []
    waited = 0
    while True:
        answer = engine.ask()
        if isinstance(answer, Proposal):
            open_proposals.append(answer)
        elif isinstance(answer, Wait):
            waited += 1
            assert isinstance(engine.ask(), Wait)  # and asking again changes nothing
            proposal = open_proposals.pop(0)
            engine.tell(proposal.number, outcome_of(engine, proposal))
        else:
            break
    assert waited > 0
    assert open_proposals == []
    assert engine.ask() == answer


def test_hyperband_goes_on_with_new_brackets_unless_told_otherwise(tmp_path: Path) -> None:
    one = play(toy_engine(toy_sweep(tmp_path, HYPERBAND)), 200)
    on = play(toy_engine(toy_sweep(tmp_path, {**HYPERBAND, "oracle_options": {}})), len(one.proposals) + 5)
    assert len(on.proposals) == len(one.proposals) + 5


class Killed(BaseException):
    """Stands for the end of the process at one moment."""


@pytest.mark.parametrize("moment", ["asked", "told"])
@pytest.mark.parametrize("oracle", ["random", "hyperband", "grid"])
def test_a_kill_between_oracle_and_study_is_made_good(
    url: str, tmp_path: Path, oracle: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = toy_sweep(tmp_path, {**RANDOM, "oracle": oracle}, space=FINITE_SPACE)
    uninterrupted = play(toy_engine(sweep), 6).proposals
    engine: Any = toy_engine(sweep, url=url)
    play(engine, 3)

    def die(*_arguments: Any) -> None:
        raise Killed

    if moment == "asked":  # the Oracle's state is written, the trial is not
        monkeypatch.setattr(engine._record, "start", lambda *_a, **_k: die())
        with pytest.raises(Killed):
            engine.ask()
    else:  # the trial is ended, the Oracle is not told
        proposal = asked(engine)
        outcome = outcome_of(engine, proposal)
        monkeypatch.setattr(engine, "_tell_oracle", die)
        with pytest.raises(Killed):
            engine.tell(proposal.number, outcome)
    engine.close()
    resumed = toy_engine(sweep, url=url, create=False)
    done = len(resumed.trials())
    assert done == (3 if moment == "asked" else 4)
    assert play(resumed, 6 - done).proposals == uninterrupted[done:]
    resumed.close()


@pytest.mark.parametrize("goal", ["maximize", "minimize"])
def test_out_of_memory_is_a_worst_score_where_the_oracle_learns_from_scores(
    goal: str, tmp_path: Path
) -> None:
    metric = "val_accuracy" if goal == "maximize" else "val_loss"
    for oracle, expected in (
        ("bayesian", ("COMPLETED", {"maximize": 0.3, "minimize": 0.8}[goal])),
        ("hyperband", ("FAILED", None)),
    ):
        sweep = toy_sweep(tmp_path, {**RANDOM, "oracle": oracle}, objective={"metric": metric, "goal": goal})
        engine: Any = toy_engine(sweep)
        for value in (0.5, 0.8, 0.3):
            engine.tell(asked(engine).number, Outcome(state="complete", value=value))
        engine.tell(asked(engine).number, Outcome(state="failed", cause="memory"))
        told = list(engine._oracle.trials.values())[-1]
        assert (told.status, told.score) == expected
        record = engine.trials()[-1]
        assert (record.state, record.cause, record.value) == ("failed", "memory", None)


def test_the_coordinator_process_sees_no_gpu_and_keeps_its_environment(tmp_path: Path) -> None:
    before = dict(os.environ)
    load_library()
    import tensorflow

    assert tensorflow.config.get_visible_devices("GPU") == []
    assert {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL")} == {
        name: before.get(name) for name in ("CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL")
    }


def test_an_oracle_writes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    sweep = toy_sweep(tmp_path, HYPERBAND)
    monkeypatch.chdir(folder)
    play(toy_engine(sweep), 6)
    assert list(folder.iterdir()) == []


def test_a_grid_has_as_many_points_as_are_counted_before(tmp_path: Path) -> None:
    space = {
        "model.filters": {"type": "int", "low": 8, "high": 20, "scale": "log"},
        "augmentation.flip": {"type": "categorical", "choices": [True, False]},
        "model.dropout": {"type": "float", "low": 0.0, "high": 0.5, "when": {"model.filters": [9, 13]}},
    }
    recipe = {"model": {"filters": 8}, "augmentation": {"flip": True}}  # the grid's own first point
    sweep = toy_sweep(tmp_path, {"name": "keras_tuner", "oracle": "grid"}, space=space, recipe=recipe)
    proposed = len(play(toy_engine(sweep), 200).proposals)
    assert 20 < proposed < 200
    assert grid_size(sweep.file.engine, sweep.file.space) == proposed


def test_hyperbands_epochs_are_known_before(tmp_path: Path) -> None:
    sweep = toy_sweep(tmp_path, {**HYPERBAND, "oracle_options": {}})
    assert isinstance(sweep.file.engine, KerasTunerSettings)
    baseline = project(sweep.file.space, sweep.recipe.flat())
    planned = scheduled_epochs(
        sweep.file.engine, sweep.file.space, baseline=baseline, trials=24, epochs=EPOCHS, limit=EPOCHS
    )
    assert planned == sum(play(toy_engine(sweep), 24).epochs.values())
    assert planned < 24 * EPOCHS
