"""Owns the table of recorded trainings: JSON lines, the first says how it was made, each other is one point."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from podium.engines.base import Scalar

FIRST = '{"made": '


@dataclass(frozen=True, kw_only=True)
class Point:
    """One training; point 0 is the baseline. Lists have one entry an epoch that was finished.

    `size`: the network's parameters. `failed`: why the training ended early ('nan'), None if it did not.
    """

    point: int
    parameters: Mapping[str, Scalar]
    val_accuracy: tuple[float, ...]
    val_loss: tuple[float, ...]
    accuracy: tuple[float, ...]
    seconds: tuple[float, ...]
    size: int | None
    failed: str | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as read: how it was made, and its points by their numbers."""

    made: Mapping[str, Any]
    points: Mapping[int, Point]


def read_table(path: Path) -> Table:
    """Read a table; a line that a kill cut short does not count. Raises: ValueError if it is no table."""
    lines = _whole_lines(path.read_text(encoding="utf-8"))
    if not lines or not lines[0].startswith(FIRST):
        raise ValueError(f"{path} does not begin with how it was made: not a table of record_points.py.")
    points = [Point(**json.loads(line)) for line in lines[1:]]
    return Table(
        made=json.loads(lines[0])["made"], points={each.point: each for each in sorted(points, key=_number)}
    )


class Appender:
    """The one writer of a table. What `append` was given is on the disk when it returns."""

    def __init__(self, file: IO[str], points: Mapping[int, Point]) -> None:
        self._file = file
        self.recorded = set(points)

    def append(self, point: Point) -> None:
        """Add a point. Raises: ValueError if the table has it."""
        if point.point in self.recorded:
            raise ValueError(f"point {point.point} is in the table already.")
        _write_line(self._file, asdict(point))
        self.recorded.add(point.point)


@contextmanager
def appending(path: Path, made: Mapping[str, Any]) -> Iterator[Appender]:
    """Open a table for adding to, or start it.

    Raises: BlockingIOError if another process is adding to it; ValueError if it was made in another way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _drop_torn_line(path)
        points: Mapping[int, Point] = {}
        if path.stat().st_size == 0:
            _write_line(file, {"made": made})
        else:
            table = read_table(path)
            _refuse_other(path, table.made, json.loads(json.dumps(made)))
            points = table.points
        yield Appender(file, points)


def _refuse_other(path: Path, found: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    differing = [key for key in sorted({*found, *asked}) if found.get(key) != asked.get(key)]
    if differing:
        shown = "; ".join(f"{key}: table {found.get(key)!r}, now {asked.get(key)!r}" for key in differing)
        raise ValueError(f"{path} was made in another way ({shown}). Give another file.")


def _whole_lines(text: str) -> list[str]:
    return text.split("\n")[:-1]  # what follows the last line feed is empty, or was cut short


def _drop_torn_line(path: Path) -> None:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _write_line(file: IO[str], content: Mapping[str, Any]) -> None:
    file.write(json.dumps(content, allow_nan=False) + "\n")
    file.flush()
    os.fsync(file.fileno())


def _number(point: Point) -> int:
    return point.point
