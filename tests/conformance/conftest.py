"""Puts toy_trainers.py, one folder up, within reach of the conformance tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
