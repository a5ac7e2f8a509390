"""Owns calling Podium as a user does: the command in a folder, its one JSON object read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def podium(folder: Path, *arguments: str) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    """What a command answered with --json, and its process. The dataset cache is the folder's own."""
    done = subprocess.run(
        [sys.executable, "-m", "podium.cli", *arguments, "--json"],
        cwd=folder,
        env={**os.environ, "PODIUM_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout.count("\n") == 1, done.stderr
    return json.loads(done.stdout), done
