"""Owns what is compiled for a recipe, and keeps it for the next trial that differs in numbers alone."""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from podium.recipe import Recipe
from podium.training import augmentation, model, optimizer
from podium.training.backbone import slow_part
from podium.training.layers import TRAINED

# A program of the guide's CNN takes some 60 MB; a sweep over depth, width and batch size has a dozen or two. A worker that
# comes to hold too much for its machine is replaced.
KEPT_PROGRAMS = 24
# Each new name of a variable stays with TensorFlow, and Keras numbers names: some 0.3 MB a trial, let go of so often.
TRIALS_A_SESSION = 100


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a program is built for: a recipe and the training arrays' shape."""

    recipe: Recipe
    image_shape: tuple[int, int, int]
    classes: int
    train_count: int

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; the last one may be smaller."""
        return -(-self.train_count // self.recipe.training.batch_size)

    def signature(self) -> str | None:
        """Equal for settings that one compiled program serves; None where it serves its own alone.

        Rates of learning, decay and dropout and the strength of the augmentation are variables of a program:
        they count as on or off. A user's network may depend on anything, and a backbone comes with weights of its own.
        """
        if self.recipe.model.builder is not None or self.recipe.model.network == "transfer":
            return None
        recipe = self.recipe
        settings = recipe.model_dump(include={"model", "optimizer", "precision"})
        for part, key in (("model", "dropout"), ("model", "dense_dropout"), ("optimizer", "learning_rate")):
            del settings[part][key]
        settings["model"]["drops"] = recipe.model.network == "fast_cnn" and recipe.model.dropout > 0.0
        settings["optimizer"]["weight_decay"] = recipe.optimizer.weight_decay > 0.0
        training = (
            recipe.training.batch_size,
            recipe.training.deterministic,
            recipe.training.label_smoothing,
        )
        timed = recipe.optimizer.schedule is not None or recipe.optimizer.lookahead is not None
        steps = (self.steps_per_epoch, recipe.training.epochs) if timed else None
        kinds = augmentation.kinds(recipe.augmentation)
        return repr((settings, training, steps, kinds, self.image_shape, self.classes))


@dataclass(frozen=True, kw_only=True)
class Program:
    """A network, and the compiled model that is trained around it, its optimizer built.

    `summary` is Keras's, of the same network in stock layers.
    """

    network: Any
    model: Any
    summary: str

    def variables(self) -> list[Any]:
        """All that a training changes or reads: weights, rates, random states, the optimizer's."""
        return [*self.model.variables, *self.model.optimizer.variables]


class Programs:
    """Programs by signature. One that is taken belongs to its training until it is given back whole."""

    def __init__(self, kept: int = KEPT_PROGRAMS) -> None:
        self._kept = kept
        self._programs: OrderedDict[str, Program] = OrderedDict()
        self._trials = 0

    def begin_session(self, setting: Setting) -> None:
        """Make Keras forget names and settings where that is due. Not inside a recipe's precision, which is one of them."""
        self._trials += 1
        # A user's network may ask for layers by the names that they get in a new process.
        if setting.signature() is None or self._trials % TRIALS_A_SESSION == 0:
            keras.utils.clear_session(free_memory=False)

    def take(self, setting: Setting) -> Program:
        """A program as a new process would build it, the same initial values to the bit; compiled already if it can be.

        Sets the seed of all that is random, and wants to be called inside the recipe's precision.
        Raises: TrialFailed if the network cannot be built.
        """
        signature = setting.signature()
        known = self._programs.pop(signature, None) if signature is not None else None
        summary = _summary(setting) if known is None else known.summary
        _set_seeds(setting.recipe.training.seed, of_backend=signature is None)
        fresh = _assemble(setting, summary)
        if known is None:
            return fresh
        for variable, value in zip(known.variables(), fresh.variables(), strict=True):
            variable.assign(value)
        return known

    def give_back(self, program: Program, setting: Setting) -> None:
        """Keep a program that ended its training in order, and let go of the one that was not used for longest."""
        signature = setting.signature()
        if signature is None or self._kept == 0:
            return
        self._programs[signature] = program
        while len(self._programs) > self._kept:
            self._programs.popitem(last=False)


def _set_seeds(seed: int, *, of_backend: bool) -> None:
    """Set the seeds that Keras's initialisers and layers draw theirs from, and the backend's own for a user's network.

    Setting TensorFlow's makes it forget what it compiled (0.7 s a program), and nothing of ours draws from it.
    """
    if of_backend:
        keras.utils.set_random_seed(seed)
    else:
        random.seed(seed)
        np.random.seed(seed)


def _assemble(setting: Setting, summary: str) -> Program:
    """Build and compile; nothing is traced yet."""
    recipe = setting.recipe
    network = model.build_network(recipe.model, setting.image_shape, setting.classes, TRAINED)
    trained = model.build_training_model(network, recipe, setting.image_shape, setting.classes)
    trained.compile(
        optimizer=optimizer.build(
            recipe.optimizer,
            steps_per_epoch=setting.steps_per_epoch,
            epochs=recipe.training.epochs,
            **slow_part(network, recipe.model),
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    trained.optimizer.build(trained.trainable_variables)
    return Program(network=network, model=trained, summary=summary)


def _summary(setting: Setting) -> str:
    network = model.build_network(setting.recipe.model, setting.image_shape, setting.classes)
    lines: list[str] = []
    network.summary(line_length=100, expand_nested=True, print_fn=lines.append)
    return "\n".join(lines) + "\n"
