"""Owns how large a network is before it is trained, and the process that builds one network after another."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from podium.errors import TrialFailed
from podium.recipe import Recipe
from podium.training import device, optimizer
from podium.training.builder import import_root
from podium.training.layer_sizes import layer_sizes, multiply_adds
from podium.training.model import build_network


@dataclass(frozen=True, kw_only=True)
class NetworkSize:
    """What a network costs. `state_bytes`: weights, their gradients and the optimizer's variables.

    Of one view of one image: `activation_bytes` is the output of every layer, `multiply_adds` those of a forward pass in
    layers with a kernel. Both are None where layers do not tell, as inside a subclassed keras.Model.
    """

    parameters: int
    state_bytes: int
    activation_bytes: int | None
    multiply_adds: int | None


def network_size(recipe: Recipe, image_shape: tuple[int, int, int], classes: int) -> NetworkSize:
    """Build a recipe's network and measure it. Raises: TrialFailed if it cannot be built."""
    keras.utils.clear_session(free_memory=True)
    with device.precision(recipe.precision):
        network = build_network(recipe.model, image_shape, classes)
    trainable = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    parameters = int(network.count_params())
    copies = 1 + _slots(recipe)
    activations, work = _work(network)
    return NetworkSize(
        parameters=parameters,
        state_bytes=4 * (parameters + copies * trainable),  # float32 in every precision
        activation_bytes=activations,
        multiply_adds=work,
    )


def serve() -> None:
    """Read one JSON line from standard input, answer each of its recipes with one JSON line.

    The line holds `image_shape`, `classes`, `code`, `recipes` and `layers`, whether the answers list them; an answer
    is a NetworkSize, with `layers` (LayerSize) if they were asked for, or `{"problem": why}`.
    """
    # Whatever a user's code prints must not be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    device.configure()
    request = json.loads(sys.stdin.readline())
    code = Path(request["code"]) if request["code"] else None
    height, width, channels = request["image_shape"]
    for content in request["recipes"]:
        with import_root(code):
            recipe = Recipe.model_validate(content)
            answer = _answer(recipe, (height, width, channels), request["classes"], layers=request["layers"])
        print(json.dumps(answer), file=answers, flush=True)


def _answer(
    recipe: Recipe, image_shape: tuple[int, int, int], classes: int, *, layers: bool
) -> dict[str, Any]:
    try:
        size = asdict(network_size(recipe, image_shape, classes))
        if layers:
            keras.utils.clear_session(free_memory=True)  # layers are numbered from the start
            network = build_network(recipe.model, image_shape, classes)
            size["layers"] = [asdict(layer) for layer in layer_sizes(network)]
        return size
    except TrialFailed as error:
        return {"problem": str(error)}
    except Exception as error:  # a user's code may raise anything
        traceback.print_exc()
        return {"problem": f"{type(error).__name__}: {error}"[:2000]}


def _slots(recipe: Recipe) -> int:
    """How many variables the optimizer keeps for each weight, counted on a weight of an unlikely shape."""
    shape = (7, 11)
    made = optimizer.build(recipe.optimizer, steps_per_epoch=1, epochs=1)
    made.build([keras.Variable(np.zeros(shape, "float32"))])
    return sum(tuple(variable.shape) == shape for variable in made.variables)


def _work(network: Any) -> tuple[int | None, int | None]:
    """Bytes of all layers' outputs and multiply-adds, of one image."""
    total_bytes = total_work = 0
    for layer in network._flatten_layers(include_self=False):
        if list(layer._flatten_layers(include_self=False)):
            continue  # its own layers come one by one
        try:
            output = layer.output
        except AttributeError:  # never called on symbols, or several times
            return None, None
        if not isinstance(output, keras.KerasTensor) or None in output.shape[1:]:
            return None, None
        values = int(np.prod(output.shape[1:]))
        total_bytes += values * _bytes_of(output.dtype)
        total_work += multiply_adds(layer) or 0
    return total_bytes, total_work


def _bytes_of(dtype: str) -> int:
    """Bytes of one value: 2 of 'bfloat16', 1 of 'bool'."""
    bits = "".join(sign for sign in dtype if sign.isdigit())
    return int(bits or 8) // 8
