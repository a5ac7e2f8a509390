"""Owns what a recipe adds to Keras's optimizers: matrices for Muon, rates by kind of weight, slow weights, one cycle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from podium.recipe_sections import LookaheadSettings
from podium.training.device import has_accelerator

# Where a cycle begins, as a share of its highest rate.
_CYCLE_START = 0.2
_KERNEL_AXES = 4


class OneCycle(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A rate that rises linearly over `warmup` steps from a fifth, then falls linearly to `floor` of its highest.

    Source: Smith and Topin, 2018, Super-Convergence; the triangle of airbench (Jordan, 2024).
    """

    def __init__(self, initial_learning_rate: float, steps: int, warmup: int, floor: float) -> None:
        super().__init__()
        self.initial_learning_rate: Any = initial_learning_rate
        self._steps, self._warmup, self._floor = steps, warmup, floor

    def __call__(self, step: Any) -> Any:
        """The rate of a step, counted from 0."""
        done = ops.cast(step, "float32")
        rising = _CYCLE_START + (1.0 - _CYCLE_START) * done / max(self._warmup, 1)
        left = ops.maximum(1.0 - (done - self._warmup) / max(self._steps - self._warmup, 1), 0.0)
        falling = self._floor + (1.0 - self._floor) * left
        share = ops.where(done < self._warmup, rising, falling)
        return ops.cast(self.initial_learning_rate, "float32") * share


class KernelMuon(keras.optimizers.Muon):  # type: ignore[misc]
    """Muon that also takes the kernels of convolutions, each as a matrix with a column for every filter.

    Source: Jordan et al., 2024, Muon; Keras's own takes matrices alone.
    """

    def _should_use_adamw(self, variable: Any) -> bool:
        return len(variable.shape) != _KERNEL_AXES and bool(super()._should_use_adamw(variable))

    def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
        self.assign_add(m, ops.add(gradient, m * (self.momentum - 1)))
        direction = ops.add(gradient, self.momentum * m) if self.nesterov else m
        matrix = ops.reshape(direction, (-1, variable.shape[-1]))
        update = self.lr_adjust(lr * self.zeropower_via_newtonschulz5(matrix, self.ns_steps))
        self.assign_sub(variable, ops.reshape(update, variable.shape))

    def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
        """As Keras's, but iterated on the Gram matrix of the shorter side, which a kernel's other side is often nine times
        as long as: the same polynomial in fewer operations.

        x: float32 (rows, columns).
        """
        # An accelerator's products of float32 may keep 10 bits (TF32): too few for a square's small values.
        if has_accelerator():
            return super().zeropower_via_newtonschulz5(x, steps)
        tall = x.shape[0] > x.shape[1]
        scale = 1.0 / (ops.norm(x) + 1e-7)  # so that no singular value is above 1
        gram = (ops.transpose(x) @ x if tall else x @ ops.transpose(x)) * ops.square(scale)
        identity = ops.eye(gram.shape[0], dtype=x.dtype)
        factor = scale * identity
        for _ in range(steps):
            step = self.muon_a * identity + self.muon_b * gram + self.muon_c * (gram @ gram)
            factor, gram = step @ factor, step @ gram @ step
        return x @ factor if tall else factor @ x


def with_rate(kind: type, factor: float, chosen: Callable[[Any], bool]) -> type:
    """An optimizer like `kind` that trains the weights that `chosen` names at `factor` times the rate."""
    places: set[int] = set()

    class Rated(kind):  # type: ignore[misc]
        def build(self, variables: Any) -> None:
            if self.built:
                return
            super().build(variables)
            places.update(self._get_variable_index(each) for each in variables if chosen(each))

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            scale = factor if self._get_variable_index(variable) in places else 1.0
            super().update_step(gradient, variable, learning_rate * scale)

    return Rated


def with_lookahead(kind: type, settings: LookaheadSettings, total_steps: int) -> type:
    """An optimizer like `kind` whose weights are pulled to slow ones every few steps."""

    class Slowed(kind):  # type: ignore[misc]
        def build(self, variables: Any) -> None:
            if self.built:
                return
            super().build(variables)
            self._slow = [
                self.add_variable_from_reference(variable, name="slow", initializer="zeros")
                for variable in variables
            ]

        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            super().apply(grads, trainable_variables)
            step = ops.cast(self._iterations, "float32")
            due = ops.equal(ops.mod(self._iterations, settings.every), 0)
            keep = settings.keep * ops.power(ops.minimum(step / total_steps, 1.0), 3)
            # At first there is nothing slow to keep.
            keep = ops.where(ops.less_equal(self._iterations, settings.every), 0.0, keep)
            for variable, slow in zip(self._trainable_variables, self._slow, strict=True):
                merged = slow * keep + variable * (1.0 - keep)
                slow.assign(ops.where(due, merged, slow.value))
                variable.assign(ops.where(due, merged, variable.value))

    return Slowed
