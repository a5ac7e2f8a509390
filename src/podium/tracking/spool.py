"""Owns the spool: records that wait for the tracking store, in order, on disk if they must outlive us."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# An acknowledged spool above this size is emptied.
LARGE_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Record:
    """One thing to write into the tracking store. `left_over`: an earlier process may have written it."""

    sequence: int
    content: Mapping[str, Any]
    left_over: bool = False


class Spool:
    """A queue of records with rising sequence numbers.

    With a folder each record is a line of `spool.jsonl` before `append` returns, and `acknowledged`
    holds the last number that is done, so that a later process goes on from there. A killed process
    loses nothing; a power loss may lose the last seconds. One process uses a folder at a time.
    """

    def __init__(self, folder: Path | None) -> None:
        self._records: deque[Record] = deque()
        self._next = 1
        self._lines: int | None = None
        self.damaged_lines = 0
        # Why the last record could not be kept on disk; None if it was.
        self.disk_error: OSError | None = None
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._acknowledged = folder / "acknowledged"
            self._path = folder / "spool.jsonl"
            self._load()
            self._lines = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def __len__(self) -> int:
        return len(self._records)

    def append(self, content: Mapping[str, Any]) -> None:
        """Add a record. A full disk costs its survival of this process, not the record: see `disk_error`."""
        record = Record(sequence=self._next, content=content)
        self._next += 1
        self._records.append(record)
        if self._lines is not None:
            line = json.dumps({"sequence": record.sequence, **content}, separators=(",", ":")) + "\n"
            self._write_line(self._lines, line.encode())

    def head(self, limit: int) -> list[Record]:
        """The first records, in order."""
        return [record for record, _ in zip(self._records, range(limit), strict=False)]

    def acknowledge(self, sequence: int) -> None:
        """Forget all records up to `sequence`. Raises: OSError if that cannot be kept on disk."""
        while self._records and self._records[0].sequence <= sequence:
            self._records.popleft()
        if self._lines is None:
            return
        temporary = self._acknowledged.with_suffix(".new")
        temporary.write_text(str(sequence))
        temporary.replace(self._acknowledged)
        if not self._records and os.fstat(self._lines).st_size > LARGE_BYTES:
            os.ftruncate(self._lines, 0)

    def close(self) -> None:
        """Close the file; what is not acknowledged stays in it."""
        if self._lines is not None:
            if not self._records:
                os.ftruncate(self._lines, 0)
            os.close(self._lines)
            self._lines = None

    def _write_line(self, lines: int, line: bytes) -> None:
        size = os.fstat(lines).st_size
        try:
            written = os.write(lines, line)
            if written < len(line):
                raise OSError(28, "no space left for the spool", str(self._path))
            self.disk_error = None
        except OSError as error:
            # Half a line would swallow the next one.
            os.ftruncate(lines, size)
            self.disk_error = error

    def _load(self) -> None:
        done = int(self._acknowledged.read_text()) if self._acknowledged.exists() else 0
        self._next = done + 1
        if not self._path.exists():
            return
        content = self._path.read_bytes()
        whole, end, torn = content.rpartition(b"\n")
        if torn:
            os.truncate(self._path, len(whole) + len(end))
        for line in whole.splitlines():
            try:
                record = json.loads(line)
                sequence = record.pop("sequence")
            except (ValueError, KeyError, AttributeError):
                self.damaged_lines += 1
                continue
            if sequence > done:
                self._records.append(Record(sequence=sequence, content=record, left_over=True))
                self._next = sequence + 1


def undelivered(folder: Path) -> int:
    """How many records wait in a spool's folder; 0 if there is none. Changes nothing."""
    try:
        lines = (folder / "spool.jsonl").read_bytes().splitlines()
        done = int((folder / "acknowledged").read_text() or 0) if (folder / "acknowledged").exists() else 0
    except FileNotFoundError:
        return 0
    return sum(_sequence(line) > done for line in lines)


def _sequence(line: bytes) -> int:
    """A line's number; 0 for a damaged one, which no process can deliver."""
    try:
        return int(json.loads(line)["sequence"])
    except (ValueError, KeyError, TypeError):
        return 0
