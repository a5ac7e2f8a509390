"""Owns one small recorded sweep that the tests of the jobs after it share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from recorded_worlds import RecordedWorld, interrupted_confirm, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> RecordedWorld:
    """A sweep of two trials on digits in an npz file, on record in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        return make_world(tmp_path_factory.mktemp("world"), patch)


@pytest.fixture(scope="session")
def stopped_and_resumed(world: RecordedWorld) -> RecordedWorld:
    """The same after a confirmation that was interrupted in the middle and called again."""
    with pytest.MonkeyPatch.context() as patch:
        world.enter(patch)
        interrupted_confirm(world)
    return world


@pytest.fixture
def here(world: RecordedWorld, monkeypatch: pytest.MonkeyPatch) -> RecordedWorld:
    """The world, as the working folder of the test."""
    world.enter(monkeypatch)
    return world
