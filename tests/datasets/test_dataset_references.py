"""What may be written as a dataset reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from podium.datasets.references import parse_reference
from podium.errors import DatasetError


@pytest.mark.parametrize("name", ["digits", "cifar10", "cifar100", "fashion_mnist"])
def test_named_dataset_needs_no_path(name: str) -> None:
    reference = parse_reference(name)
    assert (reference.kind, reference.name, reference.path) == (name, name, None)


def test_paths_become_absolute_and_give_a_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "pets.ZIP").touch()
    (tmp_path / "pets.npz").touch()
    monkeypatch.chdir(tmp_path)
    found = [parse_reference(text) for text in ("folder:photos", "pets.ZIP", "npz:pets.npz")]
    assert [(r.kind, r.name) for r in found] == [("folder", "photos"), ("zip", "pets"), ("npz", "pets")]
    assert all(reference.path is not None and reference.path.is_absolute() for reference in found)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("cifar1", "Did you mean 'cifar10'?"),
        ("Fashion-MNIST", "Did you mean 'fashion_mnist'?"),
        ("photos", "Did you mean 'folder:photos'?"),
        ("pets.npz", "Did you mean 'npz:pets.npz'?"),
        ("folder:", "needs a path"),
        ("folder:phots", "Did you mean 'photos'?"),
        ("missing.zip", "no file missing.zip"),
        ("npz:photos", "no file photos"),
        ("folder:pets.npz", "no folder pets.npz"),
        ("http://example.org/x", "no such dataset"),
    ],
)
def test_bad_reference_is_refused_with_what_is_allowed(
    text: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "pets.npz").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError) as caught:
        parse_reference(text)
    assert caught.value.exit_code == 2
    (fault,) = caught.value.faults
    assert (fault.key, fault.got) == ("data.reference", text)
    assert hint in fault.message
    assert fault.allowed is not None
    assert "folder:DIR" in fault.allowed
