"""KerasTuner's Oracles: promotion, waiting, what a kill leaves, and the GPU that they must not take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from toy_sweeps import EPOCHS, FINITE_SPACE, outcome_of, play, toy_engine, toy_sweep

from podium.engines.base import Done, Engine, Outcome, Proposal, Wait
from podium.engines.keras_tuner_oracles import load_library
from podium.engines.study import prepare_storage

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
        assert trials[parent.number].value in sorted(rivals)[len(rivals) // 3 :]
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
    tmp_path: Path, oracle: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = toy_sweep(tmp_path, {**RANDOM, "oracle": oracle}, space=FINITE_SPACE)
    uninterrupted = play(toy_engine(sweep), 6).proposals
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    prepare_storage(url)
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


def test_the_bayesian_oracle_moves_away_from_what_ran_out_of_memory(tmp_path: Path) -> None:
    space = {"model.dropout": {"type": "float", "low": 0.0, "high": 0.9}}
    sweep = toy_sweep(
        tmp_path, {**BAYESIAN, "oracle_options": {"num_initial_points": 8, "beta": 0.5}}, space=space
    )
    engine = toy_engine(sweep)
    for _ in range(14):
        proposal = asked(engine)
        dropout = float(proposal.parameters["model.dropout"] or 0.0)
        if dropout > 0.4:
            engine.tell(proposal.number, Outcome(state="failed", cause="memory"))
        else:
            engine.tell(proposal.number, Outcome(state="complete", value=0.5 + dropout))
    states = [trial.state for trial in engine.trials()]
    assert states[1:8].count("failed") >= 2
    assert states[8:].count("complete") >= 4


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
