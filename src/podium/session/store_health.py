"""Owns `podium doctor`'s look at the stores and at the space they have; nothing is made or changed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from rich.filesize import decimal

from podium.engines.storage import is_there
from podium.engines.study import list_studies
from podium.errors import PodiumError
from podium.session.health import Check, ok, problem, warning
from podium.stores import Stores, redacted
from podium.tracking.store import schema_is_current

GB = 10**9
# A finished sweep of the default size keeps about a gigabyte.
LEAST_DISK, LITTLE_DISK = 1 * GB, 10 * GB
# Docker gives 64 MB, in which a Ray node keeps no images.
LITTLE_SHARED = 1 * GB
SHARED_MEMORY = Path("/dev/shm")


def store_checks(stores: Stores) -> Iterator[Check]:
    """Whether both stores can be reached and are of this version."""
    yield _tracking(stores)
    yield _study(stores)


def space_checks(places: dict[str, Path]) -> Iterator[Check]:
    """Free space at each place by its name, and in shared memory."""
    for name, path in places.items():
        here = next(each for each in (path, *path.parents) if each.exists())
        free = shutil.disk_usage(here).free
        found = f"{decimal(free)} free at {path}"
        remedy = "Make room: `podium gc` lists what is left over."
        if free < LEAST_DISK:
            yield problem(name, found, remedy)
        elif free < LITTLE_DISK:
            yield warning(name, found, remedy)
        else:
            yield ok(name, found)
    yield _shared_memory(SHARED_MEMORY)


def _tracking(stores: Stores) -> Check:
    name, address = "tracking store", redacted(stores.tracking_uri)
    try:
        current = schema_is_current(stores)
    except PodiumError as error:
        return problem(name, error.message, "Start it, or correct MLFLOW_TRACKING_URI.")
    if current is None:
        return ok(name, f"{address} is not there yet; the first sweep makes it")
    if not current:
        return warning(
            name,
            f"{address} is of another MLflow version",
            "A file is migrated, with a backup beside it, by the next sweep. Elsewhere: mlflow db upgrade ADDRESS",
        )
    return ok(name, address)


def _study(stores: Stores) -> Check:
    name, address = "study store", redacted(stores.study_url)
    try:
        if not is_there(stores.study_url):
            return ok(name, f"{address} is not there yet; the first sweep makes it")
        studies = len(list_studies(stores.study_url))
    except PodiumError as error:
        return problem(name, error.message, error.remedy or "")
    return ok(name, f"{address}, {studies} {'study' if studies == 1 else 'studies'}")


def _shared_memory(place: Path) -> Check:
    name = "shared memory"
    if not place.is_dir():
        return ok(name, f"there is no {place} here")
    free = shutil.disk_usage(place).free
    found = f"{decimal(free)} free at {place}"
    if free < LITTLE_SHARED:
        return warning(name, found, "Only Ray needs it. In a container: docker run --shm-size=8g")
    return ok(name, found)
