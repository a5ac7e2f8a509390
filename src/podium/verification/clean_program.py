"""Owns what the clean process runs: load a packaged model where Podium cannot be imported, and measure it.

Started as `python -I clean_program.py` by clean_process.py; one JSON request a line in, one JSON answer a line out.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

MODEL_PLACE = "data/model.keras"
# What Podium's packages hold and say. Anything more could be code, or lead MLflow to another file.
PACKAGE_FILES = {
    *("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt"),
    *(MODEL_PLACE, "data/keras_module.txt"),
}
FLAVOURS: dict[str, dict[str, Any]] = {
    "keras": {"data": "data", "save_exported_model": False, "keras_version": None, "keras_backend": None},
    "python_function": {"loader_module": "mlflow.keras", "env": None, "python_version": None},
}
EXAMPLES = 25


class _NoPodium(importlib.abc.MetaPathFinder):
    """Comes before every other finder, so that an installed Podium is as good as none."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname.partition(".")[0] == "podium":
            raise ModuleNotFoundError(f"No module named '{fullname}'", name=fullname)


class Refusal(Exception):
    """The model must not be promoted; `code` is for scripts."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def serve() -> None:
    """Answer requests until the pipe ends."""
    sys.meta_path.insert(0, _NoPodium())
    # Whatever a library prints must not be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    _check_that_podium_is_out_of_reach()
    model: Any = None
    measures: ModuleType | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] in ("load", "verify"):
                stock_keras = _file_as_module("stock_keras", request["stock_keras"])
                model = load(request, stock_keras)  # checks the file first, without Keras
                measures = _file_as_module("evaluation", request["evaluation"])
                facts = verify(model, request, measures) if request["do"] == "verify" else shapes(model)
            else:
                if model is None or measures is None:
                    raise RuntimeError("no model has been loaded.")
                facts = {"evaluate": evaluate, "predict": predict}[request["do"]](model, request, measures)
            answer = {"facts": facts}
        except Refusal as refusal:
            answer = {"refusal": {"code": refusal.code, "message": str(refusal)}}
        print(json.dumps(answer), file=answers, flush=True)


def load(request: dict[str, Any], stock_keras: ModuleType) -> Any:
    """Check the file before anything of it is parsed, then load it as Keras does. Raises: Refusal."""
    folder = Path(request["folder"])
    file = folder / MODEL_PLACE
    _check_digest(file, request["sha256"])
    faults = stock_keras.archive_faults(file)
    if faults:
        raise Refusal("foreign-model", f"the model file must not be loaded: {'; '.join(faults)}.")
    _check_package(folder)
    import keras

    try:
        return keras.saving.load_model(file, compile=False, safe_mode=True)
    except Exception as error:
        raise Refusal("does-not-load", f"plain Keras does not load the model: {_said(error)}") from error


def shapes(model: Any) -> dict[str, Any]:
    """Shape of the images that a model takes, and how many classes it knows. Raises: Refusal."""
    taken, given = model.input_shape, model.output_shape
    if not (isinstance(taken, tuple) and len(taken) == 4 and isinstance(given, tuple) and len(given) == 2):
        raise Refusal(
            "foreign-model", f"the model takes {taken} and gives {given}: no images to probabilities."
        )
    return {"image_shape": taken[1:], "classes": given[1]}


def predict(model: Any, request: dict[str, Any], measures: ModuleType) -> dict[str, Any]:
    """Probabilities of images in a .npy file go to another one."""
    import numpy as np

    images = np.load(request["images"], mmap_mode="r", allow_pickle=False)
    np.save(request["out"], measures.predict(model, images))
    return {"images": len(images)}


def verify(model: Any, request: dict[str, Any], measures: ModuleType) -> dict[str, Any]:
    """Compare what the model predicts, in Keras and as MLflow loads it, with what its run recorded.

    Answers what was found. Raises: Refusal.
    """
    import numpy as np

    folder = Path(request["folder"])
    try:
        with np.load(request["predictions"], allow_pickle=False) as recorded:
            images, expected = recorded["images"], recorded["probabilities"]
    except Exception as error:
        raise Refusal("no-predictions", f"the run's predictions cannot be read: {_said(error)}") from error
    difference = _compare(measures.predict(model, images), expected, request, "the model in plain Keras")
    try:
        import mlflow.keras

        settings = {"compile": False, "safe_mode": True}
        flavour = mlflow.keras.load_model(str(folder), load_model_kwargs=settings)
    except Exception as error:
        raise Refusal("does-not-load", f"MLflow does not load the package: {_said(error)}") from error
    flavour_difference = _compare(
        measures.predict(flavour, images), expected, request, "the package in MLflow"
    )
    return {
        "sha256": request["sha256"],
        "images": len(images),
        "tolerance": request["tolerance"],
        "largest_difference": difference,
        "largest_difference_mlflow": flavour_difference,
        "podium_importable": False,
        **_versions(),
    }


def evaluate(model: Any, request: dict[str, Any], measures: ModuleType) -> dict[str, Any]:
    """Measure the model on labelled images; the probabilities go to a file, everything else is the answer."""
    import numpy as np

    images = np.load(request["images"], mmap_mode="r", allow_pickle=False)
    labels = np.load(request["labels"], allow_pickle=False)
    found = measures.measure(measures.predict(model, images), labels)
    np.savez_compressed(request["out"], probabilities=found.probabilities, labels=labels)
    # Evenly over the test set, so that also one that is sorted by class shows many classes.
    places = np.unique(np.linspace(0, len(labels) - 1, EXAMPLES).astype(int))
    return {
        "images": len(labels),
        "loss": found.loss,
        "accuracy": found.accuracy,
        "class_accuracy": list(found.class_accuracy),
        "calibration_error": found.calibration_error,
        "confusion": found.confusion.tolist(),
        "examples": [
            {
                "index": int(place),
                "label": int(labels[place]),
                "predicted": int(found.probabilities[place].argmax()),
                "confidence": float(found.probabilities[place].max()),
            }
            for place in places
        ],
    }


def _check_that_podium_is_out_of_reach() -> None:
    try:
        importlib.import_module("podium")
    except ModuleNotFoundError:
        return
    raise RuntimeError("Podium can be imported: this process proves nothing.")


def _check_digest(file: Path, expected: str) -> None:
    if not file.is_file():
        raise Refusal("missing-artifact", "the packaged model file is missing.")
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != expected:
        raise Refusal(
            "tampered-artifact",
            f"the packaged model file was changed: SHA-256 recorded {expected[:12]}, found {digest[:12]}.",
        )


def _check_package(folder: Path) -> None:
    """Refuse a package that holds or says more than Podium writes: its other files have no digest on record."""
    held = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if held - PACKAGE_FILES:
        raise Refusal(
            "foreign-model", f"the package holds foreign files: {', '.join(sorted(held - PACKAGE_FILES))}."
        )
    from mlflow.models import Model

    try:
        flavours = Model.load(str(folder)).flavors
    except Exception as error:
        raise Refusal("foreign-model", f"the package's MLmodel cannot be read: {_said(error)}") from error
    said = [
        f"{name}.{key} {value!r}"
        for name, settings in flavours.items()
        for key, value in settings.items()
        # None stands for anything: these name versions alone.
        if key not in FLAVOURS.get(name, {}) or FLAVOURS[name][key] not in (None, value)
    ]
    if said or flavours.keys() != FLAVOURS.keys():
        raise Refusal(
            "foreign-model", f"the package's MLmodel is not Podium's: {', '.join(said) or list(flavours)}."
        )


def _compare(got: Any, expected: Any, request: dict[str, Any], what: str) -> float:
    import numpy as np

    if got.shape != expected.shape or not np.isfinite(got).all():
        raise Refusal("other-predictions", f"{what} does not give {expected.shape} finite probabilities.")
    difference = float(np.abs(got - expected).max())
    if not difference <= request["tolerance"]:
        raise Refusal(
            "other-predictions",
            f"{what} does not predict what the run recorded: probabilities differ by {difference:.2g}, "
            f"allowed {request['tolerance']:g}.",
        )
    if request["same_classes"] and (got.argmax(axis=1) != expected.argmax(axis=1)).any():
        raise Refusal("other-predictions", f"{what} predicts other classes than the run recorded.")
    return difference


def _file_as_module(name: str, file: str) -> ModuleType:
    """A file that imports nothing of Podium, as a module of its own."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _versions() -> dict[str, str]:
    found: dict[str, str] = {"python": ".".join(map(str, sys.version_info[:3]))}
    names: Sequence[str] = ("keras", "tensorflow", "tensorflow-cpu", "jax", "mlflow", "numpy")
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _said(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:500]


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    serve()
