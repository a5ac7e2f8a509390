"""Image folders and zips of the same shape: what they give, and what is refused."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dataset_files import picture, tree, write_folder, write_zip

from podium.datasets import zip_archive
from podium.datasets.cache import load_part
from podium.datasets.prepare import Dataset
from podium.errors import DatasetError

Prepared = Callable[..., Dataset]


def test_folder_gives_classes_by_name_and_both_parts(tmp_path: Path, prepared: Prepared) -> None:
    folder = write_folder(tmp_path / "pets", tree(classes=("dog", "cat", "ant"), train=3, test=1))
    dataset = prepared(f"folder:{folder}")
    assert dataset.name == "pets"
    assert dataset.class_names == ("ant", "cat", "dog")
    assert (dataset.train_count, dataset.test_count, dataset.image_shape) == (9, 3, (8, 8, 3))
    assert dataset.sorted_by_class
    images, labels = load_part(dataset.train_images, dataset.train_labels)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert images.dtype == np.uint8
    assert not images.flags.writeable


def test_zip_and_folder_of_the_same_images_have_the_same_digests(tmp_path: Path, prepared: Prepared) -> None:
    files = tree()
    by_folder = prepared(f"folder:{write_folder(tmp_path / 'pets', files)}")
    by_zip = prepared(str(write_zip(tmp_path / "pets.zip", files)))
    wrapped = {f"my pets/{name}": content for name, content in files.items()} | {"__MACOSX/x": b"x"}
    by_wrapped_zip = prepared(str(write_zip(tmp_path / "wrapped.zip", wrapped)))
    for dataset in (by_zip, by_wrapped_zip):
        assert (dataset.train_digest, dataset.test_digest) == (by_folder.train_digest, by_folder.test_digest)
    assert len({by_folder.source_digest, by_zip.source_digest, by_wrapped_zip.source_digest}) == 3


def test_test_part_is_optional_and_desktop_files_are_passed_over(tmp_path: Path, prepared: Prepared) -> None:
    extras = {"README.md": b"hello", "train/.DS_Store": b"x", "train/cat/Thumbs.db": b"x"}
    dataset = prepared(f"folder:{write_folder(tmp_path / 'pets', tree(test=0) | extras)}")
    assert (dataset.test_images, dataset.test_count, dataset.test_digest) == (None, 0, None)
    assert dataset.train_count == 12


def test_every_departure_from_the_shape_is_told_at_once(tmp_path: Path, prepared: Prepared) -> None:
    bad = {"train/loose.png": b"", "train/cat/deeper/1.png": b"", "test/horse/1.png": picture()}
    folder = write_folder(tmp_path / "pets", tree() | bad)
    (folder / "train" / "empty").mkdir()
    with pytest.raises(DatasetError) as caught:
        prepared(f"folder:{folder}")
    text = str(caught.value)
    for piece in ("train/loose.png", "train/cat/deeper", "test/horse/", "no image in train/empty/"):
        assert piece in text


@pytest.mark.parametrize("wrap", [write_folder, write_zip])
def test_one_class_only_is_refused(
    wrap: Callable[[Path, dict[str, bytes]], Path], tmp_path: Path, prepared: Prepared
) -> None:
    path = wrap(tmp_path / "pets.zip", tree(classes=("cat",)))
    reference = f"folder:{path}" if path.is_dir() else str(path)
    with pytest.raises(DatasetError, match="one class only"):
        prepared(reference)


def test_folder_without_train_is_refused(tmp_path: Path, prepared: Prepared) -> None:
    with pytest.raises(DatasetError, match="no class folder in train/"):
        prepared(f"folder:{write_folder(tmp_path / 'pets', {'cat/1.png': picture()})}")


def test_broken_link_in_a_folder_is_refused_by_name(tmp_path: Path, prepared: Prepared) -> None:
    folder = write_folder(tmp_path / "pets", tree())
    (folder / "train" / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DatasetError, match=r"cannot read .*gone\.png"):
        prepared(f"folder:{folder}")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../outside.png", "'..'"),
        ("train/cat/../../../outside.png", "'..'"),
        ("/etc/outside.png", "absolute"),
        ("C:/outside.png", "absolute"),
        ("train\\cat\\outside.png", "backslash"),
    ],
)
def test_zip_with_an_unsafe_name_is_refused(
    name: str, problem: str, tmp_path: Path, cache: Path, prepared: Prepared
) -> None:
    path = write_zip(tmp_path / "pets.zip", tree() | {name: picture()})
    with pytest.raises(DatasetError, match="not safe") as caught:
        prepared(str(path))
    assert problem in caught.value.faults[0].message
    assert not (cache / "train").exists()
    assert not list(tmp_path.rglob("outside.png"))


def test_zip_with_a_symbolic_link_is_refused(tmp_path: Path, prepared: Prepared) -> None:
    path = write_zip(tmp_path / "pets.zip", tree())
    link = zipfile.ZipInfo("train/cat/link.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/hostname")
    with pytest.raises(DatasetError, match="symbolic link"):
        prepared(str(path))


def test_zip_that_is_encrypted_is_refused(tmp_path: Path, prepared: Prepared) -> None:
    path = write_zip(tmp_path / "pets.zip", tree())
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="not safe") as caught:
        prepared(str(path))
    assert "encrypted" in caught.value.faults[0].message


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_zip_that_no_ordinary_tool_writes_is_refused(method: int, tmp_path: Path, prepared: Prepared) -> None:
    with zipfile.ZipFile(tmp_path / "pets.zip", "w", method) as archive:
        for name, content in tree().items():
            archive.writestr(name, content)
    with pytest.raises(DatasetError, match="another method than Deflate"):
        prepared(str(tmp_path / "pets.zip"))


def declare(path: Path, size: int, *, entries: int = 1, field: int = 24) -> None:
    """Make the first entries of a zip declare `size` bytes when expanded (field 20: when packed)."""
    content = bytearray(path.read_bytes())
    at = 0
    for _ in range(entries):
        at = content.index(b"PK\x01\x02", at + 1)
        struct.pack_into("<I", content, at + field, size)
    path.write_bytes(content)


def test_zip_with_an_absurd_declared_size_is_refused(tmp_path: Path, prepared: Prepared) -> None:
    path = write_zip(tmp_path / "pets.zip", tree())
    declare(path, 2**32 - 2, entries=6)
    with pytest.raises(DatasetError, match="in all") as caught:
        prepared(str(path))
    assert any("declares" in fault.message for fault in caught.value.faults)


def test_zip_whose_entries_overlap_is_refused(tmp_path: Path, prepared: Prepared) -> None:
    path = write_zip(tmp_path / "pets.zip", tree())
    declare(path, path.stat().st_size // 2, entries=3, field=20)
    with pytest.raises(DatasetError, match="entries overlap"):
        prepared(str(path))


def test_zip_that_expands_absurdly_is_refused(tmp_path: Path, prepared: Prepared) -> None:
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/cat/bomb.bmp", bytes(zip_archive.RATIO_COUNTS_FROM_BYTES + 1))
    with pytest.raises(DatasetError, match="at most 200 is believed"):
        prepared(str(path))


def test_lying_zip_header_cannot_expand_beyond_what_it_declares(tmp_path: Path, prepared: Prepared) -> None:
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/cat/bomb.png", bytes(50_000_000))
        for name, content in tree().items():
            archive.writestr(name, content)
    declare(path, 1000)
    tracemalloc.start()
    with zip_archive.open_zip(path) as archive, pytest.raises(zipfile.BadZipFile, match="CRC"):
        zip_archive.read_member(archive, archive.infolist()[0])
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 5_000_000
    with pytest.raises(DatasetError, match=r"train/cat/bomb\.png"):
        prepared(str(path))


def test_zip_with_a_name_twice_is_refused(tmp_path: Path, prepared: Prepared) -> None:
    path = write_zip(tmp_path / "pets.zip", tree())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("train/cat/000.png", picture(seed=99))
    with pytest.raises(DatasetError, match="there twice"):
        prepared(str(path))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut off"])
def test_file_that_is_no_zip_is_refused(content: bytes, tmp_path: Path, prepared: Prepared) -> None:
    (tmp_path / "pets.zip").write_bytes(content)
    with pytest.raises(DatasetError, match="not a zip file"):
        prepared(str(tmp_path / "pets.zip"))


def test_zip_is_never_extracted(tmp_path: Path, cache: Path, prepared: Prepared) -> None:
    prepared(str(write_zip(tmp_path / "pets.zip", tree())))
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".png"]
