"""Owns what each layer of a network is: its shape, parameters, work, and how much of the image one value sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

# Kernels of all Keras layers that have one; separable convolutions have two.
KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")
# Each value of their output comes from the value at its place, or from all inputs at that place.
POINTWISE = (
    *("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "Dropout", "SpatialDropout2D", "GaussianNoise"),
    *("BatchNormalization", "LayerNormalization", "Rescaling", "Normalization", "ActivityRegularization"),
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Identity"),
)  # fmt: skip
# They move values about the image, which changes what a value sees only at its edges.
MOVING = ("ZeroPadding2D", "Cropping2D", "Flip")


@dataclass(frozen=True, kw_only=True)
class LayerSize:
    """One layer. `output_shape` without the batch; `multiply_adds` of one view's forward pass.

    `receptive_field`: side, in pixels of the network's input, of the square that one value of the output can see,
    cut off nowhere, so that it may be larger than the image; 0 stands for all of it. Each is None where the layer
    does not tell.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...] | None
    parameters: int
    multiply_adds: int | None
    receptive_field: int | None


@dataclass(frozen=True, kw_only=True)
class _Sight:
    """How far the values of one tensor see, and how many pixels lie between two neighbours of them."""

    field: int | None
    step: float = 1.0


ALL = _Sight(field=0)
UNKNOWN = _Sight(field=None)


def layer_sizes(network: Any) -> list[LayerSize]:
    """The network's layers in order, inner ones of nested networks in place of these."""
    found: list[LayerSize] = []
    _walk(network, [_Sight(field=1)], found, "")
    return found


def multiply_adds(layer: Any) -> int | None:
    """Those of a forward pass of one view of an image in the layer's own kernels; None if its output is not known."""
    kernels = [kernel for name in KERNELS if (kernel := getattr(layer, name, None)) is not None]
    if not kernels and not isinstance(layer, keras.layers.Layer):
        return 0  # an operation on tensors
    shape = _output_shape(layer)
    if shape is None:
        return None
    # Each weight of a kernel works once at every place of the output's map.
    places = int(np.prod(shape[:-1]))
    return sum(int(np.prod(kernel.shape)) * places for kernel in kernels)


def _walk(network: Any, given: Sequence[_Sight], found: list[LayerSize], prefix: str) -> _Sight:
    """List a network's layers; `given`: what its inputs see. Answers what its output sees."""
    graph = _graph(network)
    if graph is None:
        found.append(_size(network, UNKNOWN, prefix))
        return UNKNOWN
    sights: dict[int, _Sight] = dict(zip(map(id, graph.inputs), given, strict=False))
    for layer in graph.operations:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        tensors = _tensors(layer, "input")
        seen = [sights.get(id(tensor), UNKNOWN) for tensor in tensors] or [UNKNOWN]
        if _graph(layer) is not None:
            sight = _walk(layer, seen, found, f"{prefix}{layer.name}/")
        else:
            sight = _sight(layer, seen, tensors)
            found.append(_size(layer, sight, prefix))
        for tensor in _tensors(layer, "output"):
            sights[id(tensor)] = sight
    return sights.get(id(graph.outputs[0]), UNKNOWN)


def _graph(network: Any) -> Any | None:
    """The graph of a functional or sequential model, None for anything else."""
    graph = getattr(network, "_functional", None) or network  # a sequential model is built around one
    is_graph = isinstance(network, keras.Model) and hasattr(graph, "operations")
    return graph if is_graph and getattr(graph, "inputs", None) else None


def _size(layer: Any, sight: _Sight, prefix: str) -> LayerSize:
    shape = _output_shape(layer)
    hides = hasattr(layer, "_flatten_layers") and any(layer._flatten_layers(include_self=False))
    return LayerSize(
        name=f"{prefix}{layer.name}",
        kind=type(layer).__name__,
        output_shape=shape,
        parameters=int(layer.count_params()) if hasattr(layer, "count_params") else 0,
        multiply_adds=None if hides else multiply_adds(layer),
        receptive_field=sight.field,
    )


def _sight(layer: Any, seen: Sequence[_Sight], tensors: Sequence[Any]) -> _Sight:
    """What one value of the layer's output sees."""
    if any(each.field is None for each in seen):
        return UNKNOWN
    widest = _widest(seen)
    kind = type(layer).__name__
    if kind == "Reshape" and widest.field == 0:
        return widest
    shape = _output_shape(layer)
    if shape is None:
        return UNKNOWN
    if kind in POINTWISE or kind in MOVING:
        return widest
    if len(shape) < 3 or kind.startswith("Global"):
        return ALL  # a vector: flattened, pooled over the image, or dense
    if kind == "Dense":
        return widest  # on the channels of each place
    window = _window(layer, kind)
    if window is None:
        before = getattr(tensors[0], "shape", (None,))
        return widest if tuple(before[1:]) == shape and widest.field == 0 else UNKNOWN
    size, stride = window
    if widest.field == 0 or widest.field is None:
        return widest
    return _Sight(field=int(widest.field + (size - 1) * widest.step), step=widest.step * stride)


def _widest(seen: Sequence[_Sight]) -> _Sight:
    if any(each.field == 0 for each in seen):
        return ALL
    return _Sight(field=max(each.field or 0 for each in seen), step=max(each.step for each in seen))


def _window(layer: Any, kind: str) -> tuple[int, float] | None:
    """Side of the window that a layer slides over its input, and its step; None where it slides none."""
    if kind in ("Conv2D", "DepthwiseConv2D", "SeparableConv2D"):
        sides = zip(layer.kernel_size, layer.dilation_rate, strict=True)
        return max((side - 1) * rate + 1 for side, rate in sides), max(layer.strides)
    if kind in ("MaxPooling2D", "AveragePooling2D"):
        return max(layer.pool_size), max(layer.strides)
    if kind == "UpSampling2D" and layer.interpolation == "nearest":
        return 1, 1 / max(layer.size)
    return None


def _tensors(layer: Any, which: str) -> list[Any]:
    """The symbols that went into the layer's one call, or came out; none where it was called never or several times.

    Not `layer.input`: of a network inside another that is its own input, not what it was called on.
    """
    nodes = layer._inbound_nodes
    return list(getattr(nodes[0], f"{which}_tensors")) if len(nodes) == 1 else []


def _output_shape(layer: Any) -> tuple[int, ...] | None:
    outputs = _tensors(layer, "output")
    shape = getattr(outputs[0], "shape", None) if len(outputs) == 1 else None
    return None if shape is None or None in shape[1:] else tuple(int(side) for side in shape[1:])
