"""Owns having this process load all that a sweep loads, once, so that its forks need not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import toy_training
from alembic.script import ScriptDirectory
from sweep_start import ASSEMBLY, JOB, Place, stand_in

import podium.jobs.sweep
import podium.session.progress


def warm_up(folder: Path) -> Path:
    """Have this process load all that a sweep loads, by running one; answers a folder of empty stores."""
    os.environ["PODIUM_CACHE"] = str(folder / "cache")
    _remember_migrations()
    template, mlruns = folder / "template", folder / "first" / "mlruns"
    template.mkdir(parents=True)
    place = Place(folder / "first")
    child = os.fork()
    if child == 0:
        # In a fork: what MLflow holds open must not be shared.
        from podium.engines.study import prepare_storage
        from podium.stores import stores_here
        from podium.tracking.runs import prepare_store

        stores = stores_here(template)
        prepare_store(stores)
        prepare_storage(stores.study_url)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    place.prepare(template)
    before = Path.cwd()
    os.environ[toy_training.FOLDER_VARIABLE] = str(place.root)
    real, capture = ASSEMBLY.LocalExecutor, JOB.capture_source
    ended = podium.session.progress.Progress.ended
    saved = os.dup(1), os.dup(2)
    os.environ.update(place.environment)
    try:
        os.chdir(place.root)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        stand_in(place)
        podium.jobs.sweep.sweep(Path("sweep.yaml"), [])
    finally:
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        os.chdir(before)
        ASSEMBLY.LocalExecutor = real
        podium.session.progress.Progress.ended = ended  # type: ignore[method-assign]
        for name in place.environment:
            del os.environ[name]
    # The same packages are installed in every round, and listing them takes longer than a toy sweep.
    source = capture(None)
    JOB.capture_source = lambda code: source
    shutil.rmtree(mlruns)
    return template


def _remember_migrations() -> None:
    """Each opening of a store reads all migrations of its library, to learn which is the latest: once is enough."""
    for name in ("get_current_head", "get_heads"):
        known: dict[str, Any] = {}
        read = getattr(ScriptDirectory, name)

        def remembered(self: ScriptDirectory, read: Any = read, known: dict[str, Any] = known) -> Any:
            if self.dir not in known:
                known[self.dir] = read(self)
            return known[self.dir]

        setattr(ScriptDirectory, name, remembered)
