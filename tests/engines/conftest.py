"""Puts toy_sweeps.py, one folder up, within reach of the engines' tests, and prepared stores."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "template.db"


@pytest.fixture
def url(template: Path, tmp_path: Path) -> str:
    """A prepared store of studies without any."""
    from toy_sweeps import empty_store

    return empty_store(template, tmp_path)
