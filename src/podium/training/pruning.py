"""Owns pruning: a saved network's small weights set to zero, the others trained on, the file written and read back.

Run as a program by session/pruned_file.py; one JSON request in, one JSON answer out.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

from podium.recipe import Recipe
from podium.recipe_sections import ScheduleSettings
from podium.result import TrainingArrays
from podium.training import device

GZIP_LEVEL = 9


def serve() -> None:
    """Answer the one request on standard input: `model`, `arrays`, `recipe`, `sparsity`, `epochs`, `out`."""
    # Whatever a library prints must not be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    request = json.loads(sys.stdin.readline())
    arrays: dict[str, Any] = request["arrays"]
    files = {name: Path(arrays[name]) for name in ("images", "labels", "split")}
    answer = prune(
        Path(request["model"]),
        TrainingArrays(**{**arrays, **files, "class_names": tuple(arrays["class_names"])}),
        Recipe.model_validate_json(request["recipe"]),
        sparsity=request["sparsity"],
        epochs=request["epochs"],
        out=Path(request["out"]),
    )
    print(json.dumps(answer), file=answers, flush=True)


def prune(
    model_file: Path, arrays: TrainingArrays, recipe: Recipe, *, sparsity: float, epochs: int, out: Path
) -> dict[str, Any]:
    """Write the model of `model_file` with that share of each kernel at zero, trained on for `epochs`.

    Of each layer's kernel the smallest weights go; after every step of the training they are zero again. It is the
    recipe's training, its learning rate falling to zero along a cosine, a backbone's at its own rate even where the
    recipe kept it; the last epoch counts, since no epoch is chosen. Answers `zeros` of `weights` in the kernels of
    the written file, `bytes`, `gzip_bytes`, `accuracy` and `loss` on the validation images, `images`, and the same of
    the original as `original`.
    Source of the rate: Renda et al., 2020, Comparing Rewinding and Fine-tuning in Neural Network Pruning; with a
    tenth of it, a network for digits lost 28 points at a sparsity of 0.8, with the whole of it 8.
    Raises: ValueError if the training breaks down, or the written file has fewer zeros than it should.
    """
    import keras
    import numpy as np

    from podium.training import data
    from podium.training.export import predict, save_predictions

    loaded = data.load(arrays)
    if recipe.training.deterministic:
        device.make_deterministic()
    keras.utils.set_random_seed(recipe.training.seed)
    model = keras.saving.load_model(model_file, compile=False, safe_mode=True)
    expected = _cut(model, sparsity)
    _train_on(model, loaded, recipe, epochs)
    weights = model.get_weights()
    if not all(np.isfinite(weight).all() for weight in weights):
        raise ValueError("the training on broke down: weights are not finite.")
    # A fresh one: the trained one's kernels have constraints.
    written = keras.saving.load_model(model_file, compile=False, safe_mode=True)
    written.set_weights(weights)
    written.save(out)
    reloaded = keras.saving.load_model(out, compile=False, safe_mode=True)
    kernels = [keras.ops.convert_to_numpy(kernel) for kernel in _kernels(reloaded)]
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
    if zeros < expected:
        raise ValueError(f"the written file has {zeros} zeros in its kernels, expected {expected}.")
    shown = np.ascontiguousarray(loaded.images[loaded.predicted])
    save_predictions(out.parent, loaded, shown, predict(reloaded, shown))
    return {
        "zeros": zeros,
        "weights": sum(kernel.size for kernel in kernels),
        **_measured(out, loaded),
        "original": _measured(model_file, loaded),
    }


def _cut(model: Any, sparsity: float) -> int:
    """Set the smallest weights of each kernel to zero, to stay so after every step; answers how many they are."""
    import keras
    import numpy as np

    class Kept(keras.constraints.Constraint):  # type: ignore[misc]
        def __init__(self, mask: Any) -> None:
            self._mask = keras.ops.convert_to_tensor(mask)

        def __call__(self, weights: Any) -> Any:
            return weights * self._mask

    count = 0
    for kernel in _kernels(model):
        values = keras.ops.convert_to_numpy(kernel)
        away = round(sparsity * values.size)
        mask = np.ones(values.size, np.float32)
        mask[np.argsort(np.abs(values), axis=None, kind="stable")[:away]] = 0.0
        mask = mask.reshape(values.shape)
        kernel.assign(values * mask)
        kernel.constraint = Kept(mask)  # Keras's optimizers apply it at the end of each step
        count += away
    return count


def _kernels(model: Any) -> list[Any]:
    """Weights of convolutions and dense layers that are trained: neither biases nor normalisation, nor fixed ones."""
    return [
        weight
        for weight in model.trainable_weights
        if weight.name.endswith("kernel") and len(weight.shape) > 1
    ]


def trained_part(model: Any) -> Any:
    """The network that a training step sees in a saved model: of scaled images, and of one view of each."""
    import keras

    scaling = model.layers[1]
    assert isinstance(scaling, keras.layers.Rescaling), "a file that a training wrote scales its images first"
    operations = {operation.name: operation for operation in model.operations}
    views = operations.get("both_views")
    if views is None:
        return keras.Model(scaling.output, model.output)
    return keras.Model(views.output, operations["by_view"].input)


def _train_on(model: Any, arrays: Any, recipe: Recipe, epochs: int) -> None:
    """Train a saved network as its recipe does, with the masks of its kernels."""
    import keras

    from podium.training import optimizer
    from podium.training.backbone import slow_part
    from podium.training.data import fed, training_batches
    from podium.training.model import build_training_model

    network = trained_part(model)
    settings = recipe.optimizer.model_copy(
        update={
            "schedule": ScheduleSettings(name="cosine", decay_rate=0.0),
            "lookahead": None,  # its slow weights come after the masks
            "ema_momentum": None,  # nothing here puts its averages into the network
        }
    )
    batches = training_batches(arrays, recipe)
    trained = build_training_model(network, recipe, arrays.image_shape, arrays.classes)
    trained.compile(
        optimizer=optimizer.build(
            settings,
            steps_per_epoch=batches.num_batches,
            epochs=epochs,
            **slow_part(model, recipe.model),
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(),
    )
    order = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: batches.start_epoch(epoch))
    trained.fit(fed(batches), epochs=epochs, shuffle=False, callbacks=[order], verbose=0)


def _measured(file: Path, arrays: Any) -> dict[str, Any]:
    from podium.training.evaluation import evaluate

    found = evaluate(file, arrays.images[arrays.validation], arrays.labels[arrays.validation])
    content = file.read_bytes()
    return {
        "bytes": len(content),
        "gzip_bytes": len(gzip.compress(content, GZIP_LEVEL)),
        "accuracy": found.accuracy,
        "loss": found.loss,
        "images": len(arrays.validation),
    }


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    device.configure()
    serve()
