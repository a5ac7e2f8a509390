"""Owns making the engine that a sweep file asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from podium.engines.base import Engine, Scalar
from podium.engines.checks import option_faults as option_faults
from podium.engines.listed import ListedEngine
from podium.engines.optuna import OptunaEngine
from podium.errors import InvalidInput
from podium.search_space import project
from podium.sweep_checks import listed_parameters
from podium.sweep_file import KerasTunerSettings, ListedSettings, Sweep


def check_options(sweep: Sweep, path: Path) -> None:
    """`path`: the file as it was typed.

    Raises: InvalidInput with everything wrong with the engine's options and with what the sweep asks of it.
    """
    faults = option_faults(sweep.file)
    if faults:
        raise InvalidInput(f"{path}: the engine's options have faults.", faults=faults)


def make_engine(
    sweep: Sweep,
    *,
    study_name: str,
    study_url: str,
    epochs: int,
    create: bool,
    warm_start: Sequence[Mapping[str, Scalar]] = (),
) -> Engine:
    """The engine on its study, made (`create`) or opened. `epochs`: those of a whole training.

    `warm_start`: parameters to try right after the baseline; the study keeps those that it was made with.
    Raises: SweepError if the study is there although it should be made, or is not although it should be.
    """
    file = sweep.file
    baseline = cast(dict[str, Scalar], project(file.space, sweep.recipe.flat()))
    given = [baseline, *warm_start]
    if isinstance(file.engine, ListedSettings):
        listed = [dict(listed_parameters(file, sweep.recipe, changes)) for changes in file.engine.trials]
        return ListedEngine(
            [baseline, *listed],
            space=file.space,
            study_name=study_name,
            study_url=study_url,
            goal=file.epoch_objective.goal,
        )
    if isinstance(file.engine, KerasTunerSettings):
        # Here, for its library takes seconds to import.
        from podium.engines.keras_tuner import KerasTunerEngine

        return KerasTunerEngine(
            file.engine,
            file.space,
            given=given,
            goal=file.epoch_objective.goal,
            epochs=epochs,
            study_name=study_name,
            study_url=study_url,
            create=create,
        )
    return OptunaEngine(
        file.engine,
        file.space,
        given=given,
        objectives=file.objectives,
        constraints=file.constraints,
        epochs=epochs,
        study_name=study_name,
        study_url=study_url,
        create=create,
    )
