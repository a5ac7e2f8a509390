"""Owns telling an engine that a trial trained another configuration than the one it proposed."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from optuna.storages import InMemoryStorage

from podium.engines.base import Engine, Scalar
from podium.engines.keras_tuner import KerasTunerEngine
from podium.engines.keras_tuner_oracles import encoded
from podium.engines.optuna_space import distribution, point_key
from podium.engines.recorded import RecordedEngine
from podium.engines.study import PROPOSAL, Record
from podium.search_space import Parameter


def substitute(
    engine: Engine, space: Mapping[str, Parameter], number: int, parameters: Mapping[str, Scalar]
) -> None:
    """Make `parameters`, a point of the space, those of running trial `number`, so that the engine learns from them.

    No protocol of Podium's asks for that: it reaches into the study, which must be in memory, and into the Oracle.
    """
    assert isinstance(engine, RecordedEngine)
    _in_study(engine._record, space, number, parameters)
    if isinstance(engine, KerasTunerEngine):
        _in_oracle(engine, space, number, parameters)


def _in_study(
    record: Record, space: Mapping[str, Parameter], number: int, parameters: Mapping[str, Scalar]
) -> None:
    storage = record.storage
    assert isinstance(storage, InMemoryStorage)
    trial = copy.copy(record.get(number))
    trial.params = dict(parameters)
    trial.distributions = {key: distribution(space[key]) for key in parameters}
    proposal = {**trial.user_attrs[PROPOSAL], "parameters": dict(parameters)}
    trial.user_attrs = {**trial.user_attrs, PROPOSAL: proposal}
    storage._set_trial(trial._trial_id, trial)


def _in_oracle(
    engine: KerasTunerEngine, space: Mapping[str, Parameter], number: int, parameters: Mapping[str, Scalar]
) -> None:
    trial = engine._oracle.trials.get(engine._ids[number])
    values = encoded(space, parameters)
    if trial is None or values is None:
        return  # a first trial that the Oracle was not told of
    own = {key: value for key, value in trial.hyperparameters.values.items() if key.startswith("tuner/")}
    trial.hyperparameters.values = {**values, **own}
    engine._oracle._record_values(trial)  # else it could propose the point again
    engine._taken.add(point_key(parameters))
    engine._commit()
