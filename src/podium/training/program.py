"""Owns what is compiled for a recipe, and keeps it for the next trial that differs in numbers alone."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from podium.recipe import Recipe
from podium.training import augmentation, model, optimizer
from podium.training.backbone import slow_part
from podium.training.layers import TRAINED, AdjustableDropout

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

    `summary` is Keras's, of the same network in stock layers; `start`: how it begins on one seed.
    """

    network: Any
    model: Any
    summary: str
    start: Start | None = None

    def variables(self) -> list[Any]:
        """All that a training changes or reads: weights, rates, random states, the optimizer's."""
        return [*self.model.variables, *self.model.optimizer.variables]

    def numbers(self, recipe: Recipe) -> Iterator[tuple[Any, float]]:
        """The variables that hold a recipe's numbers, and what they are to hold."""
        for layer in self.model._flatten_layers():
            if isinstance(layer, AdjustableDropout):
                assert layer.setting is not None
                yield layer.rate_in_use, getattr(recipe.model, layer.setting)
            elif isinstance(layer, augmentation.RandomAffine):
                values = augmentation.numbers(recipe.augmentation)
                for name, variable in layer.numbers().items():
                    yield variable, values[name]
        for name, variable in optimizer.numbers(self.model.optimizer, recipe.optimizer).items():
            yield variable, getattr(recipe.optimizer, name)

    def begin_again(self, recipe: Recipe) -> None:
        """Be as a new program on the seed of `start` would be, random numbers of this process included."""
        assert self.start is not None
        for variable, value in zip(self.variables(), self.start.values, strict=True):
            variable.assign(value)
        for variable, number in self.numbers(recipe):
            variable.assign(number)
        random.setstate(self.start.python_state)
        np.random.set_state(self.start.numpy_state)


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a new program's variables hold on a seed, and how this process's random numbers go on from there."""

    seed: int
    values: Sequence[NDArray[Any]]
    python_state: Any
    numpy_state: Any

    @classmethod
    def of(cls, variables: Sequence[Any], seed: int) -> Start:
        """That of a program which was built a moment ago; nothing may have drawn a number since."""
        values = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
        return cls(
            seed=seed,
            # An optimizer's are all 0, and need no memory.
            values=[
                each if each.any() else np.broadcast_to(np.zeros((), each.dtype), each.shape)
                for each in values
            ],
            python_state=random.getstate(),
            numpy_state=np.random.get_state(),
        )


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
        signature, seed = setting.signature(), setting.recipe.training.seed
        known = self._programs.pop(signature, None) if signature is not None else None
        if known is not None and known.start is not None and known.start.seed == seed:
            known.begin_again(setting.recipe)  # as all trials of a sweep have one seed
            return known
        summary = _summary(setting) if known is None else known.summary
        _set_seeds(seed, of_backend=signature is None)
        program = _assemble(setting, summary)
        if signature is not None:
            program = replace(program, start=Start.of(program.variables(), seed))
        if known is None:
            return program
        known = replace(known, start=program.start)
        known.begin_again(setting.recipe)
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
