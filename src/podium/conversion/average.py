"""Owns averaging from outside: checked model files in, one model file out, made by a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from podium.conversion.processes import ask
from podium.errors import PodiumError
from podium.stores import redacted

PROGRAM = Path(__file__).with_name("average_program.py")
SECONDS = 1800


def average(models: Sequence[Path], out: Path) -> int:
    """Write one .keras file that gives the mean of the models' probabilities; answers its number of parameters.

    models: checked .keras files of stock layers, from images of one shape to probabilities of the same classes.
    Raises: PodiumError if the process cannot make it.
    """
    answers, death = ask(PROGRAM, {"models": [str(each) for each in models], "out": str(out)}, SECONDS)
    if not answers:
        raise PodiumError(f"the models cannot be averaged: {redacted(death)}")
    return int(answers[0]["parameters"])
