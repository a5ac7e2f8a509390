"""Owns how few epochs the trials of a sweep can come to: what its pruner or its Oracle's schedule leaves of them."""

from __future__ import annotations

from collections.abc import Mapping

import optuna

from podium.engines.base import Outcome, Proposal, Scalar
from podium.engines.optuna_pruners import make_pruner
from podium.engines.storage import IN_MEMORY
from podium.search_space import Parameter
from podium.sweep_file import KerasTunerSettings, OptunaSettings

# Played out; what further trials come to is the mean of the last half.
PLAYED = 200


def least_epochs(settings: OptunaSettings, *, trials: int, epochs: int, limit: int) -> int:
    """Epochs of so many trials if each one after the baseline is stopped as soon as the pruner can.

    The pruner itself is played: every trial is worse than all before it, and gets worse with every epoch.
    `epochs`: of a whole training; `limit`: after how many every trial ends at the latest.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=make_pruner(settings, epochs=epochs),
    )
    played = []
    for _ in range(min(trials, PLAYED)):
        trial = study.ask()
        trained = 0
        for trained in range(1, limit + 1):
            trial.report(-float(trial.number * limit + trained), trained)
            # The baseline is asked about too, for rungs are counted on that, and never stopped.
            if trial.should_prune() and trial.number > 0:
                break
        pruned = trained < limit
        state = optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE
        study.tell(trial, None if pruned else -float(trial.number), state)
        played.append(trained)
    return _extended(played, trials)


def scheduled_epochs(
    settings: KerasTunerSettings,
    space: Mapping[str, Parameter],
    *,
    baseline: Mapping[str, Scalar],
    trials: int,
    epochs: int,
    limit: int,
) -> int:
    """Epochs that so many trials of an Oracle train, one after the other, each ending after `limit` at the latest."""
    # Here, for its library takes seconds to import.
    from podium.engines.keras_tuner import KerasTunerEngine

    engine = KerasTunerEngine(
        settings,
        space,
        given=[baseline],
        goal="maximize",
        epochs=epochs,
        study_name="played",
        study_url=IN_MEMORY,
        create=True,
    )
    played: list[int] = []
    try:
        while len(played) < min(trials, PLAYED):
            proposal = engine.ask()
            if not isinstance(proposal, Proposal):
                return sum(played)
            planned = min(proposal.epochs or epochs, limit)
            played.append(planned - min(proposal.first_epoch, planned))
            engine.tell(proposal.number, Outcome(state="complete", value=-float(proposal.number)))
    finally:
        engine.close()
    return _extended(played, trials)


def _extended(played: list[int], trials: int) -> int:
    later = played[len(played) // 2 :]
    return sum(played) + (trials - len(played)) * sum(later) // max(1, len(later))
