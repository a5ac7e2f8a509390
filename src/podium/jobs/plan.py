"""Owns `podium sweep --plan`: what a sweep would try, train and take, with nothing written but the dataset cache."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from podium.answer import Answer
from podium.engines.make import check_options
from podium.errors import InvalidInput
from podium.session.assembly import threads_each
from podium.session.material import gather
from podium.session.model_corners import largest_batch
from podium.session.pace import settled
from podium.session.plan_document import SweepPlan, document, doubts, shown
from podium.session.space_survey import survey
from podium.stores import dataset_cache, stores_here
from podium.sweep_file import sweep_as_typed


def plan(
    path: Path,
    assignments: Sequence[str],
    *,
    data: str | None = None,
    trials: int | None = None,
    hours: float | None = None,
    workers: int | None = None,
) -> Answer:
    """Read a sweep file as `podium sweep` does, and say what it would come to.

    Raises: InvalidInput if a sweep would refuse the file, or trains no network; PodiumError if its recipe cannot be trained.
    """
    spec = sweep_as_typed(path, assignments, data=data, trials=trials, hours=hours, workers=workers)
    check_options(spec, path)
    if spec.recipe.classical is not None:
        raise InvalidInput(
            f"{path} trains {spec.recipe.classical.name}; a plan reckons with a network's epochs and size."
        )
    parts = dataset_cache().expanduser().resolve() / "train"
    decoded = set(parts.iterdir()) if parts.is_dir() else set()
    material = gather(spec.recipe, code=spec.code, largest_batch=largest_batch(spec.file.space, spec.recipe))
    filled = material.dataset.train_images.parent not in decoded
    console = Console(stderr=True)
    with _terminable():
        spec, _ = settled(
            spec, material, None, lambda text: console.print(text, highlight=False, markup=False)
        )
        asked = spec.file.workers or 1
        threads = threads_each(asked)
        found = survey(
            spec,
            material,
            workers=asked,
            threads=threads,
            say=lambda text: console.print(text, highlight=False, markup=False),
        )
    made = SweepPlan(
        spec=spec,
        survey=found,
        threads=threads,
        free_bytes=_free_bytes(),
        filled_cache=parts.parent if filled else None,
    )
    return Answer(values=document(made), shown=shown(made), warnings=doubts(made))


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends like Ctrl-C, so that the folder of the measurements goes away."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _free_bytes() -> int:
    """Free space where the sweep's files would go."""
    root = stores_here().root
    return shutil.disk_usage(next(folder for folder in (root, *root.parents) if folder.is_dir())).free
