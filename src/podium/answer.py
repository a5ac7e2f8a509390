"""Owns what a command answers: fixed keys for scripts, text for people, an exit code."""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from podium.errors import Interrupted, PodiumError
from podium.stores import redacted

STATUSES = {0: "done", 1: "failed", 2: "invalid", 3: "refused", 130: "interrupted"}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`values` are the command's own JSON keys; `shown` rich renderables or text, in order, for people."""

    values: Mapping[str, Any]
    shown: Sequence[object] = ()
    warnings: Sequence[str] = ()
    exit_code: int = 0


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """The JSON object that a command prints."""

    command: str
    exit_code: int
    values: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    error: PodiumError | None = None

    def document(self) -> dict[str, Any]:
        """All keys; values that are not finite become null, and secrets of addresses go."""
        error = None
        if self.error is not None:
            error = {
                "message": self.error.message,
                "remedy": self.error.remedy,
                "faults": [
                    {
                        "file": f.file,
                        "line": f.line,
                        "key": f.key,
                        "got": f.got,
                        "allowed": f.allowed,
                        "message": f.message,
                    }
                    for f in self.error.faults
                ],
            }
        values = dict(self.values)
        if isinstance(self.error, Interrupted):
            values.setdefault("resume_command", self.error.resume_command)
        head = {
            "command": self.command,
            "status": STATUSES.get(self.exit_code, "failed"),
            "exit_code": self.exit_code,
        }
        cleaned = _finite({**head, **values, "warnings": list(self.warnings), "error": error})
        assert isinstance(cleaned, dict)
        return cleaned


def explained(error: PodiumError) -> str:
    """An error and its remedy as people read them, without the secrets of addresses."""
    return redacted(f"{error}\n{error.remedy}" if error.remedy else str(error))


def unforeseen(error: Exception) -> PodiumError:
    """The error for one that no command explains; its traceback goes to standard error, without secrets."""
    print(redacted("".join(traceback.format_exception(error))), file=sys.stderr)
    return PodiumError(f"unforeseen {type(error).__name__}: {error}".splitlines()[0])


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, str):
        return redacted(value)
    if value is None or isinstance(value, bool | int):
        return value
    if hasattr(value, "item"):  # a numpy scalar
        return _finite(value.item())
    return redacted(str(value))
