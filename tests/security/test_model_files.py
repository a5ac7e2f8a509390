"""Planted model files and packages are refused before anything of them runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from podium.packager.logged_model import model_shapes, sha256_of, write_flavour
from podium.stores import restrain_mlflow
from podium.training.stock_keras import archive_faults
from podium.verification.clean_process import CleanProcess, VerificationRefused

pytestmark = pytest.mark.slow

BOMB_BYTES = 2**26


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture(scope="module")
def process() -> Iterator[CleanProcess]:
    with CleanProcess() as process:
        yield process


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as Podium saves it."""
    import keras

    inputs = keras.Input((4, 4, 3), dtype="uint8")
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs)))
    file = tmp_path_factory.mktemp("stock") / "best.keras"
    keras.Model(inputs, outputs).save(file)
    return file


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Is there once planted code has run."""
    return tmp_path / "planted-code-has-run"


def members(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(file: Path, contents: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def package(folder: Path, file: Path, shapes: tuple[tuple[int, ...], int] = ((4, 4, 3), 2)) -> Path:
    folder.mkdir()
    write_flavour(folder, file, shapes, run_id="r" * 32, model_id="m-" + "1" * 32)
    return folder


def refusal(process: CleanProcess, folder: Path, sha256: str | None = None) -> VerificationRefused:
    with pytest.raises(VerificationRefused) as refused:
        process.verify(
            folder=folder,
            sha256=sha256 or sha256_of(folder / "data" / "model.keras"),
            predictions=folder / "none.npz",
            tolerance=1e-5,
            same_classes=False,
        )
    return refused.value


def with_lambda(mark: Path, file: Path) -> Path:
    import keras

    planted = eval(f"lambda images: (__import__('os').makedirs({str(mark)!r}, exist_ok=True), images)[1]")
    keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Lambda(planted)]).save(file)
    shutil.rmtree(mark, ignore_errors=True)  # saving runs it
    return file


@pytest.mark.filterwarnings("ignore:.*HDF5:UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_lambda_layer_does_not_run(process: CleanProcess, tmp_path: Path, mark: Path, name: str) -> None:
    import keras

    file = with_lambda(mark, tmp_path / name)
    folder = package(tmp_path / "package", file)
    assert refusal(process, folder).code == "foreign-model"
    assert refusal(process, folder, sha256="0" * 64).code == "tampered-artifact"
    assert not mark.exists()
    keras.saving.load_model(file, compile=False, safe_mode=False)
    assert mark.exists(), "the planted layer does nothing"


def test_a_pickle_is_not_opened(process: CleanProcess, tmp_path: Path, mark: Path) -> None:
    file = tmp_path / "best.keras"
    file.write_bytes(pickle.dumps(Evil(mark)))
    assert refusal(process, package(tmp_path / "package", file)).code == "foreign-model"
    assert not mark.exists()
    pickle.loads(file.read_bytes())
    assert mark.exists(), "the planted pickle does nothing"


@pytest.mark.parametrize("name", ["config.json", "metadata.json", "model.weights.h5"])
def test_a_bomb_inside_is_not_expanded(process: CleanProcess, stock: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / "bomb.keras"
    packed(file, {**members(stock), name: b" " * BOMB_BYTES}, zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < BOMB_BYTES / 500
    started = time.perf_counter()
    refused = refusal(process, package(tmp_path / "package", file))
    assert refused.code == "foreign-model"
    assert f"expands to {BOMB_BYTES:,} bytes" in str(refused)
    assert time.perf_counter() - started < 5


def test_a_description_of_great_depth_or_length_is_refused(stock: Path, tmp_path: Path) -> None:
    deep, long = tmp_path / "deep.keras", tmp_path / "long.keras"
    packed(deep, {**members(stock), "config.json": b"[" * 100_000 + b"]" * 100_000})
    assert archive_faults(deep) == ["its config.json is nested too deep"]
    nested = b'{"layers": [' * 400 + b"{}" + b"]}" * 400
    packed(deep, {**members(stock), "config.json": nested})
    assert archive_faults(deep) in (["its config.json is nested too deep"], [])
    packed(long, {**members(stock), "config.json": b" " * 2**26})
    assert "allowed are" in archive_faults(long)[0]
    assert archive_faults(stock) == []
    assert model_shapes(stock) == ((4, 4, 3), 2)


def test_a_layer_that_reads_a_file_is_refused(stock: Path, tmp_path: Path) -> None:
    config = json.loads(members(stock)["config.json"])
    layer = {
        "module": "keras.layers",
        "class_name": "StringLookup",
        "config": {"vocabulary": "/etc/hostname"},
    }
    config["config"]["layers"].append({**layer, "registered_name": None})
    file = tmp_path / "reads.keras"
    packed(file, {**members(stock), "config.json": json.dumps(config).encode()})
    assert "StringLookup" in archive_faults(file)[0]


def change_flavours(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = yaml.safe_load((folder / "MLmodel").read_text())
    change(content["flavors"])
    (folder / "MLmodel").write_text(yaml.safe_dump(content))


PLANTED_PACKAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another file": lambda flavours: flavours["keras"].update(data="../elsewhere/model"),
    "a SavedModel": lambda flavours: flavours["keras"].update(save_exported_model=True),
    "own code": lambda flavours: flavours["python_function"].update(code="code"),
    "own loader": lambda flavours: flavours["python_function"].update(loader_module="evil"),
    "a pickle": lambda flavours: flavours.update(sklearn={"pickled_model": "model.pkl"}),
    "no flavour": lambda flavours: flavours.pop("keras"),
}


@pytest.mark.parametrize("case", PLANTED_PACKAGES, ids=list(PLANTED_PACKAGES))
def test_a_package_that_says_more_than_podiums_is_refused(
    process: CleanProcess, stock: Path, tmp_path: Path, case: str
) -> None:
    folder = package(tmp_path / "package", stock)
    change_flavours(folder, PLANTED_PACKAGES[case])
    refused = refusal(process, folder)
    assert refused.code == "foreign-model"
    assert "MLmodel is not Podium's" in str(refused)


def test_a_package_that_holds_more_than_podiums_is_refused(
    process: CleanProcess, stock: Path, tmp_path: Path
) -> None:
    folder = package(tmp_path / "package", stock)
    assert refusal(process, folder).code == "no-predictions", "an honest package is not refused for itself"
    (folder / "code").mkdir()
    (folder / "code" / "evil.py").write_text("raise SystemExit\n")
    assert "code/evil.py" in str(refusal(process, folder))
    shutil.rmtree(folder / "code")
    (folder / "MLmodel").write_text("flavors: [")
    assert "MLmodel cannot be read" in str(refusal(process, folder))


def test_mlflow_unpickles_nothing_in_this_process(tmp_path: Path, mark: Path) -> None:
    restrain_mlflow()
    import mlflow.sklearn
    from mlflow.exceptions import MlflowException

    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Evil(mark)))
    flavour = {"pickled_model": "model.pkl", "serialization_format": "pickle", "sklearn_version": "1.0"}
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": flavour}}))
    with pytest.raises(MlflowException, match="MLFLOW_ALLOW_PICKLE_DESERIALIZATION"):
        mlflow.sklearn.load_model(str(tmp_path))
    assert not mark.exists()
