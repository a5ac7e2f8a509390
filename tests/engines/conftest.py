"""Puts toy_sweeps.py, one folder up, within reach of the engines' tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
