"""Owns the optimizer of a recipe and the learning rate that it has at each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from podium.recipe_sections import OptimizerSettings
from podium.training.optimizer_parts import KernelMuon, OneCycle, with_lookahead, with_rate


def build(
    settings: OptimizerSettings,
    *,
    steps_per_epoch: int,
    epochs: int,
    slow: Sequence[Any] = (),
    slow_rate: float = 1.0,
) -> Any:
    """The Keras optimizer. A schedule runs over `steps_per_epoch * epochs` steps; `slow` weights are trained at
    `slow_rate` times the rate.

    Its learning rate (a schedule's too) and a weight decay that is on are among its variables, so that what is compiled
    with it serves other values.
    """
    rate = _rate(settings, steps_per_epoch, epochs)
    built = _chosen(settings, rate, steps_per_epoch * epochs, slow, slow_rate)
    if settings.weight_decay:
        built.weight_decay = _variable(built, "weight_decay", settings.weight_decay)
        if settings.name == "muon":  # which has one for each of its two ways
            built.adam_weight_decay = built.weight_decay
    if keras.config.backend() == "tensorflow":
        # It adds gradients up over one replica, with a gradient of its own that TensorFlow registers for good, the whole
        # step's graph with it: 20 MB a compiled network and more, never given back.
        built._all_reduce_sum_gradients = list
    if settings.ema_momentum is not None:
        # At the end of `fit` Keras would put what it takes for averages into the network: `AveragedWeights` has done so.
        built.finalize_variable_values = lambda _: None
    if settings.schedule is not None:
        setattr(rate, _peak(rate), _variable(built, "peak_learning_rate", settings.learning_rate))
    return built


def numbers(built: Any, settings: OptimizerSettings) -> dict[str, Any]:
    """The variables of such an optimizer that hold settings, by name."""
    built = getattr(built, "inner_optimizer", built)  # float16's loss scaling is around it
    rate = built._learning_rate
    found = {"learning_rate": rate if settings.schedule is None else getattr(rate, _peak(rate))}
    if settings.weight_decay:
        found["weight_decay"] = built.weight_decay
    return found


def _peak(rate: Any) -> str:
    """Which attribute of a schedule is its largest rate."""
    return "initial_learning_rate" if getattr(rate, "warmup_target", None) is None else "warmup_target"


def _chosen(
    settings: OptimizerSettings, rate: Any, total_steps: int, slow: Sequence[Any], slow_rate: float
) -> Any:
    common: dict[str, Any] = {
        "name": settings.name,
        "learning_rate": rate,
        "clipnorm": settings.clipnorm,
        "weight_decay": settings.weight_decay or None,
    }
    if settings.ema_momentum is not None:
        common |= {"use_ema": True, "ema_momentum": settings.ema_momentum}
    own: dict[str, Any] = {}
    match settings.name:
        case "adam":
            kind = keras.optimizers.Adam
        case "adamw":
            kind = keras.optimizers.AdamW
            common["weight_decay"] = settings.weight_decay  # it takes no None for "off"
        case "nadam":
            kind = keras.optimizers.Nadam
        case "sgd":
            kind = keras.optimizers.SGD
            own = {
                "momentum": settings.momentum,
                "nesterov": settings.nesterov and settings.momentum > 0.0,
            }
        case "rmsprop":
            kind, own = keras.optimizers.RMSprop, {"momentum": settings.momentum}
        case "muon":
            kind = KernelMuon
            own = {
                "momentum": settings.momentum or 0.95,
                "exclude_layers": ["probabilities"],
                "adam_weight_decay": settings.weight_decay or None,
            }
    if settings.normalization_rate != 1.0:
        kind = with_rate(
            kind, settings.normalization_rate, lambda weight: bool(weight.path.endswith("/beta"))
        )
    if slow:
        slowly = {id(weight) for weight in slow}
        kind = with_rate(kind, slow_rate, lambda weight: id(weight) in slowly)
    if settings.lookahead is not None:
        kind = with_lookahead(kind, settings.lookahead, total_steps)
    return kind(**common, **own)


def _variable(optimizer: Any, name: str, value: float) -> Any:
    return optimizer.add_variable(
        (), initializer=keras.initializers.Constant(value), dtype="float32", name=name
    )


class LearningRate:
    """Reads the learning rate of the step that an optimizer took last."""

    def __init__(
        self, optimizer: Any, settings: OptimizerSettings, steps_per_epoch: int, epochs: int
    ) -> None:
        self._optimizer = optimizer
        self._schedule = _rate(settings, steps_per_epoch, epochs) if settings.schedule else None

    def of_last_step(self) -> float:
        """The rate of the last step; with a fixed rate or a plateau, the one set at present."""
        if self._schedule is None:
            value = self._optimizer.learning_rate
        else:
            steps = int(keras.ops.convert_to_numpy(self._optimizer.iterations))
            value = self._schedule(max(steps - 1, 0))
        # The shortest number that is this float32: 0.001, not 0.0010000000474974513.
        return float(str(np.float32(keras.ops.convert_to_numpy(value))))


def _rate(settings: OptimizerSettings, steps_per_epoch: int, epochs: int) -> Any:
    schedule = settings.schedule
    if schedule is None:
        return settings.learning_rate
    steps = steps_per_epoch * epochs
    if schedule.name == "exponential":
        return keras.optimizers.schedules.ExponentialDecay(settings.learning_rate, steps, schedule.decay_rate)
    warmup = min(round(schedule.warmup_epochs * steps_per_epoch), steps - 1)
    if schedule.name in ("one_cycle", "constant"):
        floor = 1.0 if schedule.name == "constant" else schedule.decay_rate
        return OneCycle(settings.learning_rate, steps, warmup, floor)
    if warmup <= 0:
        return keras.optimizers.schedules.CosineDecay(
            settings.learning_rate, steps, alpha=schedule.decay_rate
        )
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        steps - warmup,
        alpha=schedule.decay_rate,
        warmup_target=settings.learning_rate,
        warmup_steps=warmup,
    )
