"""Owns what is refused of a sweep file's engine: options, and methods that do not go together."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from typing import Any

from podium.engines.options import signature_faults
from podium.engines.optuna_pruners import PRUNERS, WRAPPABLE, WRAPPED, WRAPPED_OPTIONS, make_pruner
from podium.engines.optuna_samplers import CONSTRAINTS, EXTRAS, SAMPLERS, SEVERAL_OBJECTIVES, make_sampler
from podium.engines.optuna_space import grid_length
from podium.errors import Fault
from podium.sweep_file import KerasTunerSettings, ListedSettings, OptunaSettings, SweepFile

EPOCHS_KEY = "training.epochs"
LARGEST_GRID = 100_000


def option_faults(file: SweepFile) -> list[Fault]:
    """Everything wrong with the engine's options and with what the sweep asks of it."""
    if isinstance(file.engine, KerasTunerSettings):
        # Here, for its library takes seconds to import.
        from podium.engines.keras_tuner_oracles import oracle_option_faults

        return oracle_option_faults(file.engine) + _keras_tuner_faults(file, file.engine)
    if isinstance(file.engine, ListedSettings):
        return []  # it has no options
    return _optuna_option_faults(file, file.engine) + _optuna_faults(file, file.engine)


def _optuna_option_faults(file: SweepFile, settings: OptunaSettings) -> list[Fault]:
    faults = _missing_extra(settings)
    if faults:
        return faults
    withheld = ("seed", "search_space")
    faults = signature_faults(
        SAMPLERS[settings.sampler],
        settings.sampler_options,
        place="engine.sampler_options",
        withheld=withheld,
    )
    faults += _pruner_faults(settings.pruner, settings.pruner_options, "engine.pruner_options")
    if faults:
        return faults
    if not _grid_faults(file, settings):
        try:
            make_sampler(settings, file.space, number=1, proposal_seed=0)
        except (ValueError, TypeError) as error:
            faults.append(_refusal(error, "engine.sampler_options", settings.sampler_options))
    try:
        make_pruner(settings, epochs=100)
    except (ValueError, TypeError) as error:
        faults.append(_refusal(error, "engine.pruner_options", settings.pruner_options))
    return faults


def _pruner_faults(name: str, options: Mapping[str, Any], place: str) -> list[Fault]:
    if name != "patient":
        return signature_faults(PRUNERS[name], options, place=place)
    own = {key: value for key, value in options.items() if key not in (WRAPPED, WRAPPED_OPTIONS)}
    faults = signature_faults(PRUNERS[name], own, place=place)
    wrapped = options.get(WRAPPED, "median")
    inner = options.get(WRAPPED_OPTIONS, {})
    if wrapped not in WRAPPABLE:
        faults.append(
            Fault(
                message=f"got {wrapped!r}",
                key=f"{place}.{WRAPPED}",
                got=repr(wrapped),
                allowed=", ".join(WRAPPABLE),
            )
        )
    elif not isinstance(inner, dict):
        faults.append(
            Fault(
                message=f"got {inner!r}",
                key=f"{place}.{WRAPPED_OPTIONS}",
                got=repr(inner),
                allowed="a mapping",
            )
        )
    else:
        faults += signature_faults(PRUNERS[wrapped], inner, place=f"{place}.{WRAPPED_OPTIONS}")
    return faults


def _refusal(error: Exception, place: str, options: Mapping[str, Any]) -> Fault:
    return Fault(message=str(error).splitlines()[0], key=place, got=repr(dict(options)))


def _missing_extra(settings: OptunaSettings) -> list[Fault]:
    library = EXTRAS.get(settings.sampler)
    if library is None or importlib.util.find_spec(library) is not None:
        return []
    return [
        Fault(
            message=f"'{settings.sampler}' needs {library}, which is not installed: "
            f"make extras EXTRAS={settings.sampler}",
            key="engine.sampler",
            got=settings.sampler,
            allowed=", ".join(name for name in SAMPLERS if name not in EXTRAS),
        )
    ]


def _optuna_faults(file: SweepFile, settings: OptunaSettings) -> list[Fault]:
    faults = _grid_faults(file, settings)
    if len(file.objectives) > 1:
        if settings.pruner != "none":
            faults.append(
                Fault(
                    message="Optuna cannot prune with several objectives",
                    key="engine.pruner",
                    got=settings.pruner,
                    allowed="none",
                )
            )
        if settings.sampler not in SEVERAL_OBJECTIVES:
            faults.append(
                Fault(
                    message=f"'{settings.sampler}' takes one objective",
                    key="engine.sampler",
                    got=settings.sampler,
                    allowed=", ".join(SEVERAL_OBJECTIVES),
                )
            )
    if file.constraints.parameters is not None and settings.sampler not in CONSTRAINTS:
        faults.append(
            Fault(
                message=f"'{settings.sampler}' cannot keep to constraints",
                key="engine.sampler",
                got=settings.sampler,
                allowed=", ".join(CONSTRAINTS),
            )
        )
    inner = settings.pruner_options.get(WRAPPED) if settings.pruner == "patient" else settings.pruner
    if inner == "hyperband" and EPOCHS_KEY in file.space:
        faults.append(_swept_epochs("engine.pruner"))
    return faults


def _swept_epochs(place: str) -> Fault:
    return Fault(
        message=f"hyperband allots the recipe's epochs itself, so {EPOCHS_KEY} cannot be in the space",
        key=place,
        got="hyperband",
        allowed=f"another method, or a space without {EPOCHS_KEY}",
    )


def _grid_faults(file: SweepFile, settings: OptunaSettings) -> list[Fault]:
    if settings.sampler != "grid":
        return []
    count = math.prod(grid_length(parameter) for parameter in file.space.values())
    faults = []
    if count > LARGEST_GRID:
        faults.append(
            Fault(
                message=f"the grid has {count:,} points",
                key="space",
                got=count,
                allowed=f"at most {LARGEST_GRID:,}",
            )
        )
    return faults


def _keras_tuner_faults(file: SweepFile, settings: KerasTunerSettings) -> list[Fault]:
    faults = []
    if len(file.objectives) > 1:
        faults.append(
            Fault(
                message="KerasTuner adds several objectives up instead of keeping the Pareto front",
                key="objective",
                got=", ".join(objective.metric for objective in file.objectives),
                allowed="one objective, or engine.name: optuna",
            )
        )
    if file.constraints.parameters is not None:
        faults.append(
            Fault(
                message="KerasTuner knows no constraints",
                key="constraints",
                got="parameters",
                allowed="no constraints, or engine.name: optuna",
            )
        )
    if settings.oracle == "hyperband" and EPOCHS_KEY in file.space:
        faults.append(_swept_epochs("engine.oracle"))
    return faults
