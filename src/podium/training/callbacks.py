"""Owns what happens between epochs: Keras's callbacks, the report, the verdict and the checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from podium.errors import TrialFailed
from podium.recipe_sections import CallbackSettings
from podium.result import EpochEvent, Goal, Verdict
from podium.training import checkpoint
from podium.training.checkpoint import Arrays, BestWeights, EpochRecord, TrainingState
from podium.training.data import Batches
from podium.training.optimizer import LearningRate

BEST_WEIGHTS_FILE = "best.weights.h5"
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")


@dataclass(frozen=True, kw_only=True)
class StandardCallbacks:
    """Keras's own, as the recipe sets them; `averaged` before them, so that they see the averages."""

    checkpoint: Any
    plateau: Any | None
    stopping: Any | None
    averaged: AveragedWeights | None

    def as_list(self) -> list[Any]:
        """In the order in which Keras calls them."""
        ordered = (self.averaged, self.plateau, self.stopping, self.checkpoint)
        return [item for item in ordered if item is not None]

    def counters(self) -> dict[str, dict[str, float | int | None]]:
        """What they remember from epoch to epoch, weights aside."""
        names = {"plateau": ("wait", "cooldown_counter"), "stopping": ("wait", "best_epoch", "stopped_epoch")}
        found: dict[str, dict[str, float | int | None]] = {}
        for name in ("checkpoint", "plateau", "stopping"):
            callback = getattr(self, name)
            if callback is not None:
                best = callback.best
                found[name] = {"best": None if best is None else float(best)}
                found[name] |= {key: int(getattr(callback, key)) for key in names.get(name, ())}
        return found

    def restore(self, state: TrainingState) -> None:
        """Remember what an earlier attempt's did."""
        for name, values in state.counters.items():
            callback = getattr(self, name)
            for key, value in values.items():
                setattr(callback, key, value)
        if self.stopping is not None and state.stopping is not None:
            self.stopping.best_weights = state.stopping.weights
        if self.averaged is not None:
            self.averaged.in_model = True


class AveragedWeights(keras.callbacks.Callback):  # type: ignore[misc]
    """From each validation until the next epoch the model has the optimizer's averages for weights, and the optimizer
    has the weights.

    Not Keras's SwapEMAWeights: it swaps by adding and subtracting, which changes both.
    """

    def __init__(self) -> None:
        super().__init__()
        self.in_model = False

    def on_test_begin(self, logs: Any = None) -> None:
        self._swap()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.in_model:
            self._swap()

    def _swap(self) -> None:
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        pairs = zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True)
        for weight, average in pairs:
            # A backbone that is kept: its average is itself, without the rounding of a mean.
            if not weight.trainable:
                average.assign(weight)
                continue
            [held] = _copies([weight])
            weight.assign(average)
            average.assign(held)
        self.in_model = not self.in_model


def standard_callbacks(
    settings: CallbackSettings, folder: Path, metric: str, goal: Goal, *, averaged: bool
) -> StandardCallbacks:
    """ReduceLROnPlateau, EarlyStopping and ModelCheckpoint (weights of the best epoch by `metric`)."""
    plateau = stopping = None
    if (chosen := settings.reduce_lr_on_plateau) is not None:
        plateau = keras.callbacks.ReduceLROnPlateau(
            monitor=chosen.monitor,
            factor=chosen.factor,
            patience=chosen.patience,
            min_lr=chosen.min_lr,
            mode=_mode(chosen.monitor),
        )
    if (limits := settings.early_stopping) is not None:
        stopping = keras.callbacks.EarlyStopping(
            monitor=limits.monitor,
            patience=limits.patience,
            mode=_mode(limits.monitor),
            restore_best_weights=True,
        )
    saved = keras.callbacks.ModelCheckpoint(
        str(folder / BEST_WEIGHTS_FILE),
        monitor=metric,
        mode="max" if goal == "maximize" else "min",
        save_best_only=True,
        save_weights_only=True,
    )
    return StandardCallbacks(
        checkpoint=saved,
        plateau=plateau,
        stopping=stopping,
        averaged=AveragedWeights() if averaged else None,
    )


@dataclass(kw_only=True)
class Progress:
    """How far a training has come; what EpochLoop leaves behind."""

    history: list[EpochRecord] = field(default_factory=list)
    best: BestWeights | None = None
    last_weights: Arrays = field(default_factory=list)
    verdict: Verdict = Verdict.CONTINUE
    stopped: bool = False
    checkpoint_seconds: float = 0.0


class EpochLoop(keras.callbacks.Callback):  # type: ignore[misc]
    """After each epoch: report it, obey the verdict, save the state. Comes last, after Keras's own.

    The report comes before the checkpoint: a process that dies between them trains that epoch again and
    reports the same numbers, so none is ever missing.
    Raises: TrialFailed (cause 'nan') at the first batch with a loss that is no number.
    """

    def __init__(
        self,
        *,
        batches: Batches,
        images: int,
        rate: LearningRate,
        standard: StandardCallbacks,
        folder: Path,
        report: Callable[[EpochEvent], Verdict],
        resumed: TrainingState | None,
    ) -> None:
        super().__init__()
        self.progress = Progress()
        self._batches, self._images, self._rate = batches, images, rate
        self._standard, self._folder, self._report = standard, folder, report
        self._resumed = resumed
        self._epoch_rate = 0.0
        self._began = self._trained = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        # Here and not earlier: Keras's callbacks forget all when a training begins.
        if self._resumed is not None:
            self.progress = restore(self.model, self._resumed, self._standard)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._batches.start_epoch(epoch)
        self._began = time.perf_counter()
        self._trained = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        _check_finite("loss", (logs or {}).get("loss", 0.0), f"batch {batch + 1}")

    def on_test_begin(self, logs: Any = None) -> None:
        self._trained = time.perf_counter()
        # Read before ReduceLROnPlateau sets the next epoch's.
        self._epoch_rate = self._rate.of_last_step()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        ended = time.perf_counter()
        metrics = {name: float(logs[name]) for name in METRICS}
        for name in ("loss", "val_loss"):
            _check_finite(name, metrics[name], f"the end of epoch {epoch + 1}")
        metrics["learning_rate"] = self._epoch_rate
        record = EpochRecord(
            epoch=epoch + 1,
            metrics=metrics,
            seconds=ended - self._began,
            training_seconds=self._trained - self._began,
            images=self._images,
        )
        self._remember(record)
        event = EpochEvent(
            epoch=record.epoch, metrics=dict(metrics), seconds=record.seconds, images=record.images
        )
        self.progress.verdict = self._report(event)
        if self.progress.verdict is not Verdict.PRUNE:
            began = time.perf_counter()
            checkpoint.save(self._state(), self._folder)
            self.progress.checkpoint_seconds += time.perf_counter() - began
        if self.progress.verdict is not Verdict.CONTINUE:
            self.model.stop_training = True

    def _remember(self, record: EpochRecord) -> None:
        progress = self.progress
        progress.history.append(record)
        progress.last_weights = _copies(self.model.weights)
        progress.stopped = bool(self.model.stop_training)
        saved = self._standard.checkpoint
        value = next(value for name, value in record.metrics.items() if name == saved.monitor)
        # ModelCheckpoint has just decided; only a strict improvement changes what it holds for best.
        best = progress.best and progress.history[progress.best.epoch - 1].metrics[saved.monitor]
        if best is None or (saved.best == value and value != best):
            progress.best = BestWeights(epoch=record.epoch, weights=progress.last_weights)

    def _state(self) -> TrainingState:
        progress, stopping = self.progress, self._standard.stopping
        assert progress.best is not None
        return TrainingState(
            epoch=progress.history[-1].epoch,
            weights=progress.last_weights,
            optimizer=_copies(self.model.optimizer.variables),
            seeds=_copies(_seeds(self.model)),
            best=progress.best,
            stopping=stopping and BestWeights(epoch=stopping.best_epoch + 1, weights=stopping.best_weights),
            counters=self._standard.counters(),
            stopped=progress.stopped,
            history=progress.history,
        )


def restore(model: Any, state: TrainingState, standard: StandardCallbacks) -> Progress:
    """Put a compiled, built model and Keras's callbacks where an earlier attempt was.

    Raises: TrialFailed if the checkpoint is of another network.
    """
    if not model.optimizer.built:  # float16's loss scaling would make its variables once more
        model.optimizer.build(model.trainable_variables)
    _assign(model.weights, state.best.weights, "weights")
    # ModelCheckpoint's file, which may be of a later epoch or in another folder.
    model.save_weights(standard.checkpoint.filepath)
    _assign(model.weights, state.weights, "weights")
    _assign(model.optimizer.variables, state.optimizer, "optimizer variables")
    _assign(_seeds(model), state.seeds, "random states")
    standard.restore(state)
    return Progress(
        history=list(state.history), best=state.best, last_weights=state.weights, stopped=state.stopped
    )


def _seeds(model: Any) -> list[Any]:
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def _copies(variables: list[Any]) -> Arrays:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _assign(variables: list[Any], values: Arrays, kind: str) -> None:
    have, got = [tuple(variable.shape) for variable in variables], [value.shape for value in values]
    if have != got:
        raise TrialFailed(
            f"the checkpoint is of another network: it has {len(got)} {kind}, this one {len(have)}, "
            "or their shapes differ.",
            cause="error",
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _check_finite(name: str, value: float, place: str) -> None:
    if not math.isfinite(value):
        raise TrialFailed(f"{name} is {float(value)} at {place}: the training has diverged.", cause="nan")


def _mode(monitor: str) -> str:
    return "min" if monitor.endswith("loss") else "max"
