"""Owns what a measuring process runs: an exported file, loaded by its own runtime alone, on labelled images.

Started as `python -I runtime_program.py` by processes.py; one JSON request in, one JSON answer out. Every runtime
has one thread, so that their times can be compared.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH = 32  # few enough for large images: how large is inside of the file
WARM_UP, TIMED = 10, 100
Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Probabilities of all images go to a file; answers milliseconds of a single image, and the runtime."""
    openers: dict[str, Callable[[str], tuple[Predict, str]]] = {
        "keras": _keras,
        "saved_model": _saved_model,
        "litert": _litert,
        "litert-int8": _litert,
        "onnx": _onnx,
    }
    predict, runtime = openers[request["format"]](request["path"])
    images = np.load(request["images"], mmap_mode="r", allow_pickle=False)
    parts = [
        predict(np.ascontiguousarray(images[start : start + BATCH])) for start in range(0, len(images), BATCH)
    ]
    np.save(request["out"], np.concatenate(parts).astype(np.float32))
    single = np.ascontiguousarray(images[:1])
    seconds = []
    for _ in range(WARM_UP + TIMED):
        began = time.perf_counter()
        predict(single)
        seconds.append(time.perf_counter() - began)
    return {"latency_ms": 1000.0 * statistics.median(seconds[WARM_UP:]), "runtime": runtime}


def _keras(path: str) -> tuple[Predict, str]:
    import keras

    if keras.config.backend() == "tensorflow":
        _one_thread()
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    return model.predict_on_batch, f"keras {keras.version()} on {keras.config.backend()}"


def _saved_model(path: str) -> tuple[Predict, str]:
    import tensorflow as tf

    _one_thread()
    loaded = tf.saved_model.load(path)
    return lambda images: loaded.serve(tf.constant(images)).numpy(), f"tensorflow {tf.__version__}"


def _litert(path: str) -> tuple[Predict, str]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    [taken], [given] = interpreter.get_input_details(), interpreter.get_output_details()
    if taken["dtype"] != np.uint8 or taken["quantization"] not in ((0.0, 0), (1.0, 0)):
        raise ValueError(f"it does not take raw bytes: {taken['dtype'].__name__}, {taken['quantization']}")
    scale, zero = given["quantization"]

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
            interpreter.resize_tensor_input(taken["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(taken["index"], images)
        interpreter.invoke()
        found = interpreter.get_tensor(given["index"]).astype(np.float32)
        return np.asarray((found - zero) * scale if scale else found, dtype=np.float32)

    return predict, f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"


def _onnx(path: str) -> tuple[Predict, str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    [taken] = session.get_inputs()

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        [found] = session.run(None, {taken.name: images})
        return np.asarray(found, dtype=np.float32)

    return predict, f"onnxruntime {onnxruntime.__version__}"


def _one_thread() -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def main() -> None:
    """Answer the one request on standard input."""
    # Whatever a library prints must not be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    request = json.loads(sys.stdin.readline())
    try:
        answer = measure(request)
    except Exception as error:  # a runtime says in its own way that it cannot read a file
        lines = str(error).strip().splitlines()
        answer = {"problem": f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:1000]}
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # times of processors, for all of them
    main()
