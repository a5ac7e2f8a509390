"""Puts the toys, and the real trainings of tests/faults, within reach."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "faults")]
