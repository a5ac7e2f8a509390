"""Owns reading a zip that a stranger made: what is refused before a byte of it is expanded."""

from __future__ import annotations

import stat
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from podium.datasets.image_tree import PARTS, ImageTree, sort_into_tree
from podium.datasets.references import refuse
from podium.errors import DatasetError, Fault

LARGEST_TOTAL_BYTES = 20 * 2**30
LARGEST_MEMBER_BYTES = 2**30
# Deflate reaches about 1000 to 1. Images are packed already: a large member above this is an attack.
HIGHEST_RATIO = 200
RATIO_COUNTS_FROM_BYTES = 10 * 2**20


@contextmanager
def zip_tree(path: Path) -> Iterator[ImageTree]:
    """The image tree of a zip; members are read in memory and nothing is ever extracted to disk.

    A single folder that wraps everything is tolerated.
    Raises: DatasetError if it is no zip, is unsafe, or does not hold an image folder.
    """
    with open_zip(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        top = _wrapping_folder(members)

        def read(name: str) -> bytes:
            return read_member(archive, members[top + name])

        names = (name.removeprefix(top) for name in members)
        yield sort_into_tree(names, read, where=path)


@contextmanager
def open_zip(path: Path, *, images: bool = True) -> Iterator[zipfile.ZipFile]:
    """Open a zip and check every entry of its directory.

    `images` False lifts the limits on ratio and size of one member, which arrays may well exceed.
    Raises: DatasetError with every unsafe entry.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DatasetError(f"{path} is not a zip file that can be read: {error}.") from error
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}.") from error
    with archive:
        faults = _unsafe(archive, path, images=images)
        if faults:
            remedy = "Pack the folder again with an ordinary zip tool; nothing was extracted."
            raise refuse(f"{path} is not safe to read.", faults, remedy=remedy)
        yield archive


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """A member's bytes, at most as many as its directory entry declares, with its checksum checked."""
    with archive.open(member) as stream:
        # Without a bound zipfile expands all that is there before it cuts off what was not declared.
        return stream.read(member.file_size)


def _unsafe(archive: zipfile.ZipFile, path: Path, *, images: bool) -> list[Fault]:
    members = archive.infolist()
    faults: list[Fault] = []
    for member in members:
        problem = _problem_of_name(member) or _problem_of_content(member, images=images)
        if problem:
            faults.append(
                Fault(message=f"{member.filename!r}: {problem}", got=member.filename, file=str(path))
            )
    repeated = [name for name, count in Counter(member.filename for member in members).items() if count > 1]
    faults += [Fault(message=f"{name!r}: there twice", got=name, file=str(path)) for name in repeated]
    total = sum(member.file_size for member in members)
    if total > LARGEST_TOTAL_BYTES:
        message = f"declares {total:,} bytes in all"
        allowed = f"at most {LARGEST_TOTAL_BYTES:,} bytes"
        faults.append(Fault(message=message, got=total, allowed=allowed, file=str(path)))
    if sum(member.compress_size for member in members) > path.stat().st_size:
        faults.append(Fault(message="entries overlap: they declare more than the file holds", file=str(path)))
    return faults


def _problem_of_name(member: zipfile.ZipInfo) -> str | None:
    # zipfile cuts a name at a NUL and turns the platform's separators; the original is what was written.
    name = member.orig_filename
    if "\0" in name:
        return "a NUL in the name"
    if "\\" in name:
        return "a backslash in the name"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        return "an absolute name"
    if ".." in PurePosixPath(name).parts:
        return "a name with '..'"
    return None


def _problem_of_content(member: zipfile.ZipInfo, *, images: bool) -> str | None:
    mode = member.external_attr >> 16
    if mode and stat.S_ISLNK(mode):
        return "a symbolic link"
    if member.flag_bits & 0x1:
        return "encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "compressed by another method than Deflate"
    if not images:
        return None
    if member.file_size > LARGEST_MEMBER_BYTES:
        return f"declares {member.file_size:,} bytes; an image may have {LARGEST_MEMBER_BYTES:,}"
    expands = member.file_size / max(1, member.compress_size)
    if member.file_size > RATIO_COUNTS_FROM_BYTES and expands > HIGHEST_RATIO:
        return f"expands {expands:,.0f} times; at most {HIGHEST_RATIO} is believed"
    return None


def _wrapping_folder(names: dict[str, zipfile.ZipInfo]) -> str:
    tops = {name.split("/")[0] for name in names} - {"__MACOSX", ".DS_Store"}
    if len(tops) == 1:
        top = tops.pop()
        if top not in PARTS and any(name.startswith(f"{top}/train/") for name in names):
            return f"{top}/"
    return ""
