"""Owns where a run comes from: code, packages, machine; and the snapshot of a user's own code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from podium.errors import InvalidInput

PACKAGES = (
    "podium",
    "keras",
    "tensorflow",
    "tensorflow-cpu",
    "jax",
    "numpy",
    "optuna",
    "keras-tuner",
    "mlflow",
)
THREAD_SETTINGS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "KERAS_BACKEND")
LARGEST_CODE_BYTES = 50_000_000
GIT_SECONDS = 20
# The earliest time that a zip can hold: the same files give the same bytes on any day.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def collect(code: Path | None) -> dict[str, str]:
    """Short facts for tags: packages by their metadata (none is imported), Python, machine, git, code digest.

    Git is that of `code`, else of the working folder; without a repository `git_commit` is 'none'.
    """
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpu_count": str(len(os.sched_getaffinity(0))),
    }
    for package in PACKAGES:
        try:
            facts[f"package.{package}"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    facts |= {f"env.{name}": os.environ[name] for name in THREAD_SETTINGS if name in os.environ}
    commit = _git(code, "rev-parse", "HEAD")
    facts["git_commit"] = commit.strip() if commit else "none"
    if commit:
        facts["git_dirty"] = str(bool(_git(code, "status", "--porcelain"))).lower()
        facts["git_diff_sha256"] = hashlib.sha256(working_diff(code).encode()).hexdigest()
    if code is not None:
        facts["code_digest"] = code_digest(code)
    return facts


def working_diff(code: Path | None) -> str:
    """What differs from the commit in tracked files, as a patch; empty without a repository."""
    return _git(code, "diff", "HEAD", "--no-color", "--no-ext-diff") or ""


def code_digest(root: Path) -> str:
    """SHA-256 over names and contents of a code folder's files, caches and hidden ones left out."""
    digest = hashlib.sha256()
    for path in _files(root):
        for part in (path.relative_to(root).as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()


def snapshot_code(root: Path, target: Path) -> Path:
    """Write a code folder as a zip to `target`: the same files give the same bytes.

    Raises: InvalidInput above 50 MB.
    """
    files = list(_files(root))
    total = sum(path.stat().st_size for path in files)
    if total > LARGEST_CODE_BYTES:
        largest = max(files, key=lambda path: path.stat().st_size)
        raise InvalidInput(
            f"code: {root} holds {total / 1e6:.0f} MB; allowed: {LARGEST_CODE_BYTES / 1e6:.0f} MB.",
            remedy=f"Keep data out of the code folder; its largest file is {largest.relative_to(root)}.",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            entry = zipfile.ZipInfo(path.relative_to(root).as_posix(), ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    temporary.replace(target)
    return target


def unpack_code(snapshot: Path, folder: Path) -> None:
    """Unpack what `snapshot_code` wrote into `folder`.

    Raises: ValueError if the archive holds anything that it does not write: names that lead elsewhere, what
    the digest leaves out and Python would run all the same (caches), or more than 50 MB.
    """
    try:
        with zipfile.ZipFile(snapshot) as archive:
            members = archive.infolist()
            foreign = [member.orig_filename for member in members if not _is_code(member.orig_filename)]
            if foreign:
                raise ValueError(f"it holds {foreign[0]!r}")
            total = sum(member.file_size for member in members)
            if total > LARGEST_CODE_BYTES:
                raise ValueError(
                    f"it expands to {total / 1e6:.0f} MB; allowed: {LARGEST_CODE_BYTES / 1e6:.0f} MB"
                )
            archive.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError) as error:
        raise ValueError(f"it cannot be read: {error}") from error


def _is_code(name: str) -> bool:
    """Whether a snapshot may hold a file of this name, with / between its parts."""
    hidden = any(part.startswith(".") or part in ("", "__pycache__") for part in name.split("/"))
    return not hidden and "\\" not in name and "\0" not in name and not name.endswith((".pyc", ".pyo"))


def _files(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        raise InvalidInput(f"code: no folder {root}.")
    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        found += [
            Path(folder, name)
            for name in names
            if not name.startswith(".") and not name.endswith((".pyc", ".pyo"))
        ]
    yield from sorted(
        (path for path in found if path.is_file()), key=lambda path: path.relative_to(root).as_posix()
    )


def _git(folder: Path | None, *arguments: str) -> str | None:
    """Git's answer, None where there is no git, no repository or no commit."""
    command = ["git", "-C", str(folder or Path.cwd()), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or "unknown")
