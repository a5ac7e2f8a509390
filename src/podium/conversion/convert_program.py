"""Owns what the converting process runs: a .keras file of stock layers in, a file of another format out.

Started as `python -I convert_program.py` by processes.py; one JSON request in, one JSON answer a format out. The file
was checked before: its hash, and that it holds stock Keras alone.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BYTE_MOST = 255


def serve() -> None:
    """Answer the one request on standard input: `model`, `calibration`, and `files`, places by format."""
    # Whatever a library prints must not be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    request = json.loads(sys.stdin.readline())
    for format_, place in request["files"].items():
        try:
            convert(request["model"], format_, Path(place), request["calibration"])
            answer: dict[str, Any] = {"format": format_}
        except Exception as error:  # converters raise nearly anything on a network that they do not know
            lines = str(error).strip().splitlines()
            problem = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:1000]
            answer = {"format": format_, "problem": problem}
        print(json.dumps(answer), file=answers, flush=True)


def convert(file: str, format_: str, out: Path, calibration: str) -> None:
    """Write a .keras file in another format. calibration: .npy of uint8 images, for litert-int8."""
    if format_ == "keras":
        shutil.copyfile(file, out)
        return
    import keras

    model = keras.saving.load_model(file, compile=False, safe_mode=True)
    writers: dict[str, Callable[[], None]] = {
        "saved_model": lambda: _write_saved_model(model, out),
        "onnx": lambda: _write_onnx(model, out),
        "litert": lambda: _write_litert(model, out),
        "litert-int8": lambda: _write_litert_int8(model, out, calibration),
    }
    writers[format_]()


def _write_saved_model(model: Any, out: Path) -> None:
    """Keras's own export would hold every weight twice."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name="images")]
    module.serve = tf.function(lambda images: model(images, training=False), input_signature=signature)
    tf.saved_model.save(module, str(out), signatures=module.serve)


def _write_onnx(model: Any, out: Path) -> None:
    import keras
    import numpy as np

    class Inference(keras.Model):  # type: ignore[misc]
        """The network as it predicts: behind a Resizing layer Keras would export it as it trains."""

        def call(self, images: Any) -> Any:
            """Probabilities of uint8 images."""
            return model(images, training=False)

    shape = model.input_shape[1:]
    inference = Inference()
    inference(np.zeros((1, *shape), np.uint8))  # Keras refuses what was never called
    signature = [keras.InputSpec(shape=(None, *shape), dtype="uint8", name="images")]
    _teach_erfc()
    inference.export(str(out), format="onnx", verbose=False, input_signature=signature)


def _teach_erfc() -> None:
    """Tell tf2onnx what TensorFlow's Erfc is, which a GELU is made of: 1 - Erf. It leaves it as it is, unknown to ONNX."""
    import numpy as np
    from tf2onnx import utils
    from tf2onnx.handler import tf_op

    @tf_op("Erfc")
    class Erfc:
        @classmethod
        def version_9(cls, graph: Any, node: Any, **_: Any) -> None:
            [place] = node.output
            kind = graph.get_dtype(place)
            alike = {"dtypes": [kind], "shapes": [graph.get_shape(place)]}
            graph.remove_node(node.name)
            one = graph.make_const(utils.make_name("one"), np.ones((), utils.map_onnx_to_numpy_type(kind)))
            erf = graph.make_node("Erf", node.input, **alike)
            inputs = [one.output[0], erf.output[0]]
            graph.make_node("Sub", inputs, outputs=[place], name=node.name, **alike)


def _write_litert(model: Any, out: Path) -> None:
    import tensorflow as tf

    out.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def _write_litert_int8(model: Any, out: Path, calibration: str) -> None:
    """Integers from end to end: raw bytes in, probabilities in 256ths out."""
    import numpy as np
    import tensorflow as tf

    images = np.load(calibration, allow_pickle=False)
    # The converter takes the range of the input from these images. With both ends in it, a byte stands for itself.
    images[0, 0, 0], images[0, -1, -1] = 0, BYTE_MOST

    def samples() -> Iterator[list[Any]]:
        for image in images:
            yield [image[np.newaxis].astype(np.float32)]

    converter = tf.lite.TFLiteConverter.from_keras_model(_of_floats(model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    out.write_bytes(converter.convert())


def _of_floats(model: Any) -> Any:
    """The same network with float inputs: from bytes the converter would keep a cast and floats behind it."""
    other = type(model).from_config(_with_float_inputs(model.get_config()))
    other.set_weights(model.get_weights())
    _even_out(other)
    return other


def _even_out(model: Any) -> None:
    """Move the scales of batch normalisation into the layer before it, past its ReLU: the network stays the same.

    The eight bits of a tensor are shared by all of its channels. Where their ranges differ ten times, as before a
    batch normalisation, most channels are left with a few values, and accuracy is lost.
    Source: Nagel et al., 2019, Data-Free Quantization Through Weight Equalization and Bias Correction.
    """
    import keras
    import numpy as np

    for layer in model._flatten_layers(include_self=False):
        if (
            not isinstance(layer, keras.layers.BatchNormalization)
            or layer.gamma is None
            or layer.beta is None
        ):
            continue
        before = _scalable_before(layer)
        if before is None:
            continue
        gamma, beta, mean, variance = layer.get_weights()
        scale = gamma / np.sqrt(variance + layer.epsilon)
        before.set_weights([weight * np.abs(scale) for weight in before.get_weights()])
        layer.set_weights(
            [
                np.sign(scale),
                beta - mean * scale,
                np.zeros_like(mean),
                np.full_like(variance, 1 - layer.epsilon),
            ]
        )


def _scalable_before(layer: Any) -> Any | None:
    """The layer that feeds this one alone and ends with a ReLU, which lets positive scales through; None without."""
    import keras

    try:
        before = layer.input._keras_history.operation
    except AttributeError:  # called several times, or never
        return None
    scalable = isinstance(before, keras.layers.Conv2D | keras.layers.Dense)
    if not scalable or before.activation is not keras.activations.relu:
        return None
    return before if len(before._outbound_nodes) == 1 and before.output is layer.input else None


def _with_float_inputs(config: Any) -> Any:
    if isinstance(config, dict):
        changed = {key: _with_float_inputs(value) for key, value in config.items()}
        if config.get("class_name") == "InputLayer":
            changed["config"] = {**changed["config"], "dtype": "float32"}
        # Saved calls remember the type of the tensors that went in.
        if config.get("class_name") == "__keras_tensor__" and config["config"].get("dtype") == "uint8":
            changed["config"] = {**changed["config"], "dtype": "float32"}
        return changed
    if isinstance(config, list | tuple):
        return type(config)(_with_float_inputs(value) for value in config)
    return config


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = (
        "tensorflow"  # stock layers load on any; only this one converts to all formats
    )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Converting needs no GPU, and would take all of its memory from a sweep.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    serve()
