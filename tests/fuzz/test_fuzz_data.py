"""Damaged zips, npz files and references are prepared or refused with words, and leave nothing half done."""

from __future__ import annotations

import io
from pathlib import Path
from random import Random

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import NAMES, damaged_npz, damaged_zip, fuzzed
from PIL import Image

from podium.cli import cli
from podium.datasets.prepare import prepare
from podium.datasets.splits import split
from podium.errors import InvalidInput
from podium.recipe import Recipe


def image(seed: int, kind: str) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


MEMBERS = {
    f"{part}/{name}/{number:03}.{kind.lower()}": image(number, kind)
    for part, numbers in (("train", range(4)), ("test", range(1)))
    for name, kind in (("cat", "PNG"), ("dog", "JPEG"), ("owl", "GIF"))
    for number in numbers
}
ARRAYS = {
    "x_train": np.zeros((8, 8, 8, 3), dtype=np.uint8),
    "y_train": np.arange(8) % 2,
    "x_test": np.ones((2, 8, 8, 3), dtype=np.uint8),
    "y_test": np.arange(2).reshape(2, 1),
}
REFERENCES = (
    *(
        "digits",
        "digits ",
        "DIGITS",
        "npz:",
        "npz:~nobody/x.npz",
        "npz:\0",
        "npz:" + "a" * 5000,
        "folder:",
        "folder:\0",
    ),
    *(
        "folder:/dev/null",
        "npz:/dev/null",
        "npz:.",
        "folder:" + "a/" * 3000,
        ".zip",
        "~nobody/a.zip",
        "\0.zip",
        "a:b",
    ),
    *("npz:/proc/self/mem", "/proc/1/root.zip", "", ":", "a" * 5000 + ".zip", "\udcff.zip", "folder:~nobody"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def prepare_or_refuse(reference: str, folder: Path, image_size: int | None) -> InvalidInput | None:
    """The refusal, with its words checked; None if the data was taken, whole and split."""
    cache = folder / "cache"
    try:
        settings = Recipe().with_values({"data.reference": reference, "data.image_size": image_size}).data
        dataset = prepare(settings, cache=cache)
        split(dataset, settings, cache=cache)
    except InvalidInput as error:
        refused: InvalidInput | None = error
    else:
        assert np.load(dataset.train_images, mmap_mode="r").shape == (
            dataset.train_count,
            *dataset.image_shape,
        )
        refused = None
    if refused is not None:
        assert refused.message.strip()
        assert all(fault.message.strip() for fault in refused.faults)
    # Nothing is written but the cache, and nothing in it is half done.
    assert {path.name for path in folder.iterdir()} <= {"cache", "damaged.zip", "damaged.npz", "recipe.yaml"}
    assert not [path for path in cache.rglob(".*") if path.name != ".lock"]
    return refused


@fuzzed
@given(random=st.randoms(use_true_random=False), image_size=st.sampled_from((None, 8)))
def test_a_damaged_zip_is_prepared_or_refused(folder: Path, random: Random, image_size: int | None) -> None:
    path = folder / "damaged.zip"
    path.write_bytes(damaged_zip(MEMBERS, random))
    prepare_or_refuse(str(path), folder, image_size)


@fuzzed
@given(random=st.randoms(use_true_random=False))
def test_a_damaged_npz_is_prepared_or_refused(folder: Path, random: Random) -> None:
    path = folder / "damaged.npz"
    path.write_bytes(damaged_npz(ARRAYS, random))
    prepare_or_refuse(f"npz:{path}", folder, None)


@fuzzed
@example(reference="npz:" + "a" * 5000)
@example(reference="folder:~nobody")
@example(reference="\udcff.zip")
@given(
    reference=st.sampled_from(REFERENCES)
    | st.builds("{}{}".format, st.sampled_from(("folder:", "npz:", "")), st.sampled_from(NAMES))
)
def test_a_foreign_reference_is_taken_or_refused(folder: Path, reference: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        if reference:
            prepare_or_refuse(reference, folder, None)


@fuzzed
@given(random=st.randoms(use_true_random=False))
def test_the_command_refuses_damaged_data_with_exit_code_2(folder: Path, random: Random) -> None:
    path = folder / "damaged.zip"
    path.write_bytes(damaged_zip(MEMBERS, random))
    if prepare_or_refuse(str(path), folder, None) is None:
        return  # it would train
    (folder / "recipe.yaml").write_text("training: {epochs: 1}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PODIUM_CACHE", str(folder / "cache"))
        ended = CliRunner().invoke(cli, ["train", "recipe.yaml", "--data", str(path), "--json"])
    assert ended.exit_code == 2, ended.output
    assert '"status": "invalid"' in ended.stdout
    assert not (folder / "mlruns").exists()
