"""The champion put to use: images labelled, and files for other runtimes, by a model that was trained for seconds."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from mlflow.tracking import MlflowClient
from PIL import Image
from promotion_records import Ended, Workplace, podium

from podium.datasets.prepare import Dataset, prepare
from podium.jobs.promote import promote
from podium.recipe_sections import DataSettings
from podium.stores import dataset_cache, stores_here

pytestmark = pytest.mark.slow
MODEL = "digits-in-use"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FORMATS = ("keras", "saved_model", "litert", "litert-int8", "onnx")


class InUse:
    """The workplace as the working folder, with a champion."""

    def __init__(self, workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self._capsys = workplace.root, capsys
        self.client = MlflowClient(stores_here().tracking_uri, registry_uri=stores_here().tracking_uri)

    def __call__(self, *words: str) -> Ended:
        return podium(*words, capsys=self._capsys)

    def dataset(self) -> Dataset:
        return prepare(DataSettings(), cache=dataset_cache())


@pytest.fixture(scope="session")
def promoted(workplace: Workplace) -> Workplace:
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PODIUM_CACHE", str(workplace.root / "cache"))
        patch.setenv("PODIUM_STUDY_URL", f"sqlite:///{workplace.root / 'in-use.db'}")
        os.chdir(workplace.root)
        try:
            promote(workplace.run_id, model=MODEL, unconfirmed="a test")
        finally:
            os.chdir(before)
    return workplace


@pytest.fixture
def use(promoted: Workplace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> InUse:
    monkeypatch.chdir(promoted.root)
    monkeypatch.setenv("PODIUM_CACHE", str(promoted.root / "cache"))
    return InUse(promoted, capsys)


def write_test_images(use: InUse, folder: Path, count: int) -> list[str]:
    """Test images as files, and the words for their classes."""
    dataset = use.dataset()
    assert dataset.test_images is not None
    assert dataset.test_labels is not None
    images, labels = np.load(dataset.test_images), np.load(dataset.test_labels)
    folder.mkdir()
    for number in range(count):
        Image.fromarray(images[number % len(images)]).save(folder / f"{number:04}.png")
    return [WORDS[labels[number % len(labels)]] for number in range(count)]


def write_variants(original: Path, folder: Path) -> list[Path]:
    """The same image in other modes and sizes, and lying on its side."""
    folder.mkdir()
    image = Image.open(original)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise to be seen
    image.convert("L").save(folder / "grey.jpg", quality=95)
    image.convert("RGBA").resize((320, 320), Image.Resampling.BILINEAR).save(folder / "large.png")
    image.rotate(90).save(folder / "turned.jpg", exif=exif, quality=95)
    return sorted(folder.iterdir())


def test_a_thousand_files_are_labelled_as_the_test_was_and_a_broken_one_is_named(
    use: InUse, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    truth = write_test_images(use, folder, 1000)
    (folder / "0500.png").write_bytes(b"broken")
    (folder / "notes.txt").write_text("no image")
    version = use.client.get_model_version_by_alias(MODEL, "champion")
    assert json.loads(version.tags["podium.class_names"]) == [str(digit) for digit in range(10)]
    use.client.set_model_version_tag(MODEL, version.version, "podium.class_names", json.dumps(WORDS))
    variants = write_variants(folder / "0000.png", tmp_path / "variants")
    done = use(
        "predict", str(folder), *map(str, variants), "--model", MODEL, "--grid", str(tmp_path / "grid.png")
    )
    assert done.code == 1
    predictions, others = done.json["predictions"][:999], done.json["predictions"][999:]
    assert [Path(each["file"]).name for each in predictions] == [
        f"{number:04}.png" for number in range(1000) if number != 500
    ]
    assert [Path(each["file"]).name for each in done.json["failed"]] == ["0500.png"]
    assert "0500.png" in done.json["warnings"][0]
    truth.pop(500)
    # The first 360 are the test set, which the promotion has measured; the rest are its images again.
    right = [each["label"] == name for each, name in zip(predictions, truth, strict=True)]
    accuracy = json.loads(version.tags["podium.test_accuracy"])
    assert accuracy > 0.5, "a model that guesses would prove nothing"
    assert np.mean(right[:360]) == pytest.approx(accuracy)
    # Size, mode and rotation do not matter.
    assert [Path(each["file"]) for each in others] == variants
    assert {each["label"] for each in others} == {predictions[0]["label"]}
    np.testing.assert_allclose(
        [each["confidence"] for each in others], predictions[0]["confidence"], atol=0.1
    )
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size[0] > 1000
        assert grid.size[1] > 2000


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nothing.png",), "no file or folder nothing.png"),
        ((".", "--model", "digits-in-us"), "did you mean"),
        (("empty",), "no image in empty"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_loads(
    use: InUse, words: tuple[str, ...], expected: str
) -> None:
    (use.root / "empty").mkdir(exist_ok=True)
    (use.root / "an.png").write_bytes(b"")
    done = use("predict", *words)
    assert done.code == 2
    assert expected.lower() in json.dumps(done.json["error"]).lower()


def test_a_champion_whose_file_was_changed_labels_nothing(
    use: InUse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_test_images(use, tmp_path / "one", 1)
    version = use.client.get_model_version_by_alias(MODEL, "champion")
    digest = version.tags["podium.model_sha256"]
    use.client.set_model_version_tag(MODEL, version.version, "podium.model_sha256", "0" * 64)
    try:
        done = use("predict", str(tmp_path / "one"), "--model", MODEL)
    finally:
        use.client.set_model_version_tag(MODEL, version.version, "podium.model_sha256", digest)
    assert done.code == 1
    assert "was changed" in done.json["error"]["message"]


def test_each_format_is_run_by_its_own_runtime_and_held_to_the_champion(
    use: InUse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [word for each in FORMATS for word in ("--format", each)]
    done = use("export", MODEL, *words, "--out", str(tmp_path / "made"))
    assert (done.code, done.json["failed"], done.json["warnings"]) == (0, [], [])
    files = {each["format"]: each for each in done.json["files"]}
    assert tuple(files) == FORMATS
    assert {each["runtime"].split()[0] for each in files.values()} == {
        *("keras", "tensorflow", "ai-edge-litert", "onnxruntime"),
    }
    for each in files.values():
        assert each["images"] == 144
        assert each["accuracy"] == pytest.approx(done.json["accuracy"], abs=0.01)
        assert 0 < each["latency_ms"] < 1000
        assert Path(each["path"]).exists()
        if each["format"] != "litert-int8":
            assert each["largest_difference"] < 1e-5
            assert each["bytes"] < 1.3 * files["keras"]["bytes"], "every weight once"
    assert files["litert-int8"]["bytes"] * 3.7 < files["litert"]["bytes"]
    assert 0 < files["litert-int8"]["largest_difference"] < 0.1

    version = use.client.get_model_version_by_alias(MODEL, "champion")
    for name, each in files.items():
        tag = json.loads(version.tags[f"podium.export.{name}"])
        assert tag == {key: value for key, value in each.items() if key != "path"}
    assert version.run_id is not None
    logged = {item.path for item in use.client.list_artifacts(version.run_id, "exports/v1")}
    assert logged == {f"exports/v1/{Path(files[name]['path']).name}" for name in FORMATS[1:]}
    check_by_hand(use, {name: Path(each["path"]) for name, each in files.items()})


def check_by_hand(use: InUse, files: dict[str, Path]) -> None:
    """Raw bytes go in, without anything of Podium."""
    dataset = use.dataset()
    images = np.load(dataset.train_images)[:1]
    session = onnxruntime.InferenceSession(str(files["onnx"]))
    [expected] = session.run(None, {session.get_inputs()[0].name: images})
    interpreter = Interpreter(model_path=str(files["litert-int8"]))
    interpreter.allocate_tensors()
    [taken], [given] = interpreter.get_input_details(), interpreter.get_output_details()
    assert (taken["dtype"], taken["quantization"]) == (np.uint8, (1.0, 0))
    assert {each["dtype"] for each in interpreter.get_tensor_details()} <= {np.uint8, np.int8, np.int32}
    interpreter.set_tensor(taken["index"], images)
    interpreter.invoke()
    assert (given["dtype"], given["quantization"]) == (np.uint8, (1 / 256, 0))
    np.testing.assert_allclose(interpreter.get_tensor(given["index"]) / 256, expected, atol=0.1)


def test_a_missing_runtime_is_named_with_its_extra_before_anything_is_written(
    use: InUse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    done = use("export", MODEL, "--format", "litert", "--out", str(tmp_path / "made"))
    assert done.code == 2
    assert done.json["error"]["message"] == "not installed: litert needs ai_edge_litert."
    assert "make extras EXTRAS=export" in done.json["error"]["remedy"]
    assert not (tmp_path / "made").exists()


def test_data_that_changed_exports_nothing(use: InUse, tmp_path: Path) -> None:
    version = use.client.get_model_version_by_alias(MODEL, "champion")
    assert version.run_id is not None
    digest = use.client.get_run(version.run_id).data.tags["podium.split_digest"]
    use.client.set_tag(version.run_id, "podium.split_digest", "0" * 64)
    try:
        done = use("export", MODEL, "--format", "keras", "--out", str(tmp_path / "made"))
    finally:
        use.client.set_tag(version.run_id, "podium.split_digest", digest)
    assert done.code == 1
    assert "its split digest is" in done.json["error"]["message"]
    assert not (tmp_path / "made").exists()
