"""Puts study_stores.py within reach of all tests, and leaves to `make test-postgres` those that keep a study."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import study_stores

# Whoever asks for one of these keeps a study in the store that is being tested.
STORES = {"url", "new_url", "empty_stores", "server_url"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "study_store: keeps a study, in processes of its own")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a server only what has to do with the store: the rest does not change with it."""
    if study_stores.server() is None:
        return
    kept = [
        item
        for item in items
        if STORES & set(getattr(item, "fixturenames", ())) or item.get_closest_marker("study_store")
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SQLite file that empty stores are copied from."""
    return tmp_path_factory.mktemp("store") / "template.db"


@pytest.fixture
def url(template: Path, tmp_path: Path) -> Iterator[str]:
    """A prepared store of studies without any."""
    yield study_stores.make_empty(tmp_path, template)
    study_stores.drop(tmp_path)


@pytest.fixture
def new_url(tmp_path: Path) -> Iterator[str]:
    """The address of a store that has not been made."""
    yield study_stores.make_new(tmp_path)
    study_stores.drop(tmp_path)


@pytest.fixture
def server_url(template: Path, tmp_path: Path) -> Iterator[str]:
    """A prepared store in PostgreSQL; skips where there is none."""
    if study_stores.server() is None:
        pytest.skip("needs PostgreSQL: make test-postgres")
    yield study_stores.make_empty(tmp_path, template)
    study_stores.drop(tmp_path)
