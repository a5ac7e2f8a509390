"""How few epochs a pruner leaves: the engine itself is the measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_sweeps import EPOCHS, toy_engine, toy_sweep

from podium.engines.base import Outcome, Proposal
from podium.engines.least_epochs import PLAYED, least_epochs
from podium.sweep_file import OptunaSettings, Sweep

TRIALS = 24
PRUNERS: list[dict[str, Any]] = [
    {"pruner": "none"},
    {"pruner": "median"},
    {"pruner": "percentile", "pruner_options": {"n_startup_trials": 2}},
    {"pruner": "hyperband"},
    {"pruner": "successive_halving"},
    {"pruner": "patient", "pruner_options": {"patience": 3}},
    {"pruner": "patient", "pruner_options": {"patience": 3, "wrapped_pruner": "none"}},
]


def epochs_of_ever_worse_trials(sweep: Sweep) -> int:
    """What the engine lets trials train of which each is worse than all before it."""
    engine = toy_engine(sweep)
    trained = 0
    for _ in range(TRIALS):
        proposal = engine.ask()
        assert isinstance(proposal, Proposal)
        pruned = False
        for epoch in range(proposal.first_epoch + 1, (proposal.epochs or EPOCHS) + 1):
            trained += 1
            pruned = engine.report(proposal.number, epoch, -float(proposal.number * EPOCHS + epoch))
            if pruned:
                break
        state = "pruned" if pruned else "complete"
        engine.tell(proposal.number, Outcome(state=state, value=-float(proposal.number)))
    return trained


@pytest.mark.parametrize("settings", PRUNERS)
def test_the_least_is_what_the_engine_lets_the_worst_trials_train(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    sweep = toy_sweep(tmp_path, {"name": "optuna", "sampler": "random", **settings})
    assert isinstance(sweep.file.engine, OptunaSettings)
    least = least_epochs(sweep.file.engine, trials=TRIALS, epochs=EPOCHS, limit=EPOCHS)
    assert least == epochs_of_ever_worse_trials(sweep)
    assert EPOCHS < least <= TRIALS * EPOCHS


def test_no_trial_counts_beyond_the_limit() -> None:
    assert least_epochs(OptunaSettings(pruner="none"), trials=10, epochs=9, limit=4) == 40


def test_many_trials_are_reckoned_from_those_that_were_played() -> None:
    settings = OptunaSettings(pruner="successive_halving")
    some = least_epochs(settings, trials=PLAYED, epochs=9, limit=9)
    assert least_epochs(settings, trials=10 * PLAYED, epochs=9, limit=9) == some + 9 * PLAYED
