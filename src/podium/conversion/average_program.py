"""Owns what the averaging process runs: several .keras files of stock layers in, one that averages them out.

Started as `python -I average_program.py` by average.py; one JSON request in, one JSON answer out. The files were
checked before: their hashes, and that they hold stock Keras alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any


def serve() -> None:
    """Answer the one request on standard input: `models`, the files, and `out`, where the one is to be."""
    # Whatever a library prints must not be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    request = json.loads(sys.stdin.readline())
    print(json.dumps(average(request["models"], request["out"])), file=answers, flush=True)


def average(files: Sequence[str], out: str) -> dict[str, Any]:
    """Write a model from uint8 images to the mean of all files' probabilities; answers its `parameters`."""
    import keras

    members = [keras.saving.load_model(file, compile=False, safe_mode=True) for file in files]
    inputs = keras.Input(members[0].input_shape[1:], dtype="uint8", name="images")
    # A network inside another must have a name of its own.
    named = [
        keras.Model(member.inputs, member.outputs, name=f"member_{number}")
        for number, member in enumerate(members)
    ]
    # A model of a list of one output answers a list of one.
    outputs = [_only(member(inputs)) for member in named]
    averaged = keras.layers.Average(name="probabilities", dtype="float32")(outputs)
    model = keras.Model(inputs, averaged, name="ensemble")
    model.save(out)
    return {"parameters": int(model.count_params())}


def _only(output: Any) -> Any:
    return output[0] if isinstance(output, list | tuple) else output


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    serve()
