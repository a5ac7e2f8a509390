"""Owns the MLflow model around a best.keras: the flavour's files, written without loading the model."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from podium.errors import PodiumError
from podium.stores import Stores, restrain_mlflow

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# Where mlflow.keras looks for the model inside a logged model.
MODEL_PLACE = "data/model.keras"
LIBRARIES = ("keras", "tensorflow", "tensorflow-cpu", "jax", "numpy", "mlflow")


def sha256_of(file: Path) -> str:
    """A file's SHA-256 in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def open_store(stores: Stores) -> MlflowClient:
    """A client of the tracking store. Raises: FileNotFoundError if its file is away: MLflow would make one."""
    from mlflow.tracking import MlflowClient

    if stores.tracking_file is not None and not stores.tracking_file.exists():
        raise FileNotFoundError(2, "the tracking store's file is not there", str(stores.tracking_file))
    return MlflowClient(stores.tracking_uri, registry_uri=stores.tracking_uri)


def log_model(stores: Stores, *, run_id: str, model_file: Path, sha256: str | None = None) -> str:
    """Log best.keras, unchanged, as an MLflow model (keras flavour) of a run; answers the model's id.

    The flavour is written without loading the model, so neither Keras nor TensorFlow is. Logging the
    same file for the same run again answers the model that is there.
    Raises: PodiumError if the file is missing, or does not hash to `sha256`.
    """
    restrain_mlflow()
    from mlflow.entities import LoggedModelOutput

    digest = check_file(model_file, sha256)
    shapes = model_shapes(model_file)
    client = open_store(stores)
    run = client.get_run(run_id)
    for output in run.outputs.model_outputs if run.outputs else []:
        known = client.get_logged_model(output.model_id)
        if known.tags.get("podium.model_sha256") == digest and str(known.status) == "READY":
            return str(known.model_id)
    model = client.create_logged_model(
        run.info.experiment_id,
        name="model",
        source_run_id=run_id,
        tags={"podium.model_sha256": digest},
        model_type="keras",
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            write_flavour(Path(folder), model_file, shapes, run_id=run_id, model_id=model.model_id)
            check_file(Path(folder) / MODEL_PLACE, digest)
            client.log_model_artifacts(model.model_id, folder)
        client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    except Exception:
        client.finalize_logged_model(model.model_id, "FAILED")
        raise
    return str(model.model_id)


def write_flavour(
    folder: Path, model_file: Path, shapes: tuple[tuple[int, ...], int], *, run_id: str, model_id: str
) -> None:
    """Write what mlflow.keras.save_model writes, around a file that is there already."""
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    shape, classes = shapes
    (folder / "data").mkdir()
    shutil.copyfile(model_file, folder / MODEL_PLACE)
    (folder / "data" / "keras_module.txt").write_text("keras")
    model = Model(run_id=run_id, model_id=model_id, model_uuid=model_id)
    model.signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, *shape))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, classes))]),
    )
    model.add_flavor(
        "keras",
        data="data",
        keras_version=importlib.metadata.version("keras"),
        keras_backend=os.environ.get("KERAS_BACKEND", "tensorflow"),
        save_exported_model=False,
    )
    # What mlflow.pyfunc.add_to_model writes; importing that module costs a second and a warning.
    model.add_flavor(
        "python_function",
        loader_module="mlflow.keras",
        python_version=platform.python_version(),
        env={"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
    )
    model.model_size_bytes = model_file.stat().st_size
    model.save(str(folder / "MLmodel"))
    _write_environment(folder)


def model_shapes(model_file: Path) -> tuple[tuple[int, ...], int]:
    """Image shape (height, width, channels) and number of classes, from a .keras file's own description.

    Raises: PodiumError if it is no such file, or not from one image to class probabilities.
    """
    try:
        with zipfile.ZipFile(model_file) as archive:
            member = archive.getinfo("config.json")
            if member.file_size != member.compress_size:
                raise ValueError("config.json is compressed, and Keras compresses nothing")
            layers = json.loads(archive.read(member))["config"]["layers"]
        inputs = [layer["config"] for layer in layers if layer["class_name"] == "InputLayer"]
        units = [layer["config"]["units"] for layer in _inner_layers(layers) if "units" in layer["config"]]
        shape = inputs[0].get("batch_shape") if len(inputs) == 1 else None
    except (OSError, zipfile.BadZipFile, LookupError, ValueError, TypeError, RecursionError) as error:
        raise PodiumError(f"{model_file} is not a Keras model file: {error}") from error
    if shape is None or len(shape) != 4 or None in shape[1:] or not units:
        raise PodiumError(f"{model_file} is not a model from one image to class probabilities.")
    return tuple(int(size) for size in shape[1:]), int(units[-1])


def _inner_layers(layers: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Layers in order, those of a network inside the network in its place."""
    for layer in layers:
        yield layer
        yield from _inner_layers(layer["config"].get("layers", ()))


def _write_environment(folder: Path) -> None:
    """The three files by which MLflow rebuilds an environment, with this one's versions."""
    requirements: list[str] = []
    for name in LIBRARIES:
        try:
            requirements.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    python = platform.python_version()
    build = ["pip", "setuptools", "wheel"]
    conda: dict[str, Any] = {
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": requirements}],
        "name": "mlflow-env",
    }
    plain = {"python": python, "build_dependencies": build, "dependencies": ["-r requirements.txt"]}
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n")
    (folder / "conda.yaml").write_text(yaml.safe_dump(conda, sort_keys=False))
    (folder / "python_env.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))


def check_file(file: Path, sha256: str | None) -> str:
    """A file's SHA-256. Raises: PodiumError if there is no file, or it is not `sha256`."""
    if not file.is_file():
        raise PodiumError(f"{file} is missing.")
    digest = sha256_of(file)
    if sha256 is not None and digest != sha256:
        raise PodiumError(f"{file} has SHA-256 {digest}; on record is {sha256}: it was changed.")
    return digest
