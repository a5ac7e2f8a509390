from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from podium.errors import InvalidInput
from podium.tracking import provenance


@pytest.fixture
def code(tmp_path: Path) -> Path:
    root = tmp_path / "code"
    (root / "nets").mkdir(parents=True)
    (root / "nets" / "small.py").write_text("def build(): ...\n")
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "small.pyc").write_bytes(b"cache")
    (root / ".secret").write_text("token")
    return root


def test_digest_follows_content_and_names_but_not_caches_or_hidden_files(code: Path) -> None:
    before = provenance.code_digest(code)
    (code / "__pycache__" / "other.pyc").write_bytes(b"more")
    (code / ".secret").write_text("another")
    assert provenance.code_digest(code) == before
    (code / "nets" / "small.py").rename(code / "nets" / "big.py")
    renamed = provenance.code_digest(code)
    assert renamed != before
    (code / "nets" / "big.py").write_text("def build(): return 1\n")
    assert provenance.code_digest(code) != renamed


def test_snapshots_of_the_same_files_are_the_same_bytes_on_any_day(code: Path, tmp_path: Path) -> None:
    first = provenance.snapshot_code(code, tmp_path / "first.zip")
    os.utime(code / "nets" / "small.py", (1, 1))
    second = provenance.snapshot_code(code, tmp_path / "second.zip")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist() == ["nets/small.py"]
    provenance.unpack_code(first, tmp_path / "back")
    assert provenance.code_digest(tmp_path / "back") == provenance.code_digest(code)


@pytest.mark.parametrize(
    "name",
    [
        "nets/__pycache__/small.cpython-311.pyc",  # Python may run it in place of nets/small.py
        "small.pyc",
        ".hidden/run.py",
        "../outside.py",
        "/outside.py",
        "nets\\..\\outside.py",
        "nets//small.py",
    ],
)
def test_a_snapshot_with_what_the_digest_does_not_cover_is_not_unpacked(
    code: Path, tmp_path: Path, name: str
) -> None:
    snapshot = provenance.snapshot_code(code, tmp_path / "code.zip")
    with zipfile.ZipFile(snapshot, "a") as archive:
        archive.writestr(name, b"planted")
    with pytest.raises(ValueError, match="it holds"):
        provenance.unpack_code(snapshot, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_snapshot_does_not_expand_beyond_its_limit(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "code.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.py", b" " * (provenance.LARGEST_CODE_BYTES + 1))
    with pytest.raises(ValueError, match="allowed: 50 MB"):
        provenance.unpack_code(tmp_path / "code.zip", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    (tmp_path / "code.zip").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="cannot be read"):
        provenance.unpack_code(tmp_path / "code.zip", tmp_path / "back")


def test_a_code_folder_with_data_in_it_is_refused_and_names_the_largest_file(
    code: Path, tmp_path: Path
) -> None:
    with (code / "images.npz").open("wb") as file:
        file.truncate(provenance.LARGEST_CODE_BYTES + 1)
    with pytest.raises(InvalidInput, match="allowed: 50 MB") as refusal:
        provenance.snapshot_code(code, tmp_path / "code.zip")
    assert "images.npz" in str(refusal.value.remedy)
    assert not (tmp_path / "code.zip").exists()


def test_facts_name_commit_dirt_and_packages(code: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(code), *arguments], check=True, capture_output=True)

    assert provenance.collect(code)["git_commit"] == "none"
    git("init")
    git("add", "nets")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "first")
    clean = provenance.collect(code)
    assert len(clean["git_commit"]) == 40
    assert provenance.working_diff(code) == ""
    (code / "nets" / "small.py").write_text("def build(): return 2\n")
    dirty = provenance.collect(code)
    assert dirty["git_dirty"] == "true"
    assert dirty["git_diff_sha256"] != clean["git_diff_sha256"]
    assert "+def build(): return 2" in provenance.working_diff(code)
    assert dirty["package.keras"].startswith("3.")
    assert dirty["code_digest"] == provenance.code_digest(code)


@pytest.mark.slow
def test_collecting_imports_no_heavy_library() -> None:
    program = (
        "import sys; from pathlib import Path; from podium.tracking import provenance;"
        "provenance.collect(None);"
        "print([name for name in ('tensorflow', 'keras', 'mlflow', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
