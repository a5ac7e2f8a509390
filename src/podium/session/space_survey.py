"""Owns looking at a sweep's space before it runs: which models it holds, which fit, and how fast some of them train."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from podium.errors import PodiumError
from podium.executors.placement import gpu_bytes, machine_bytes, share_out, usable_cores, visible_gpus
from podium.recipe import Recipe
from podium.recipe_sections import Plain
from podium.session.calibration import Calibration, Measured, calibrate
from podium.session.corner_sizes import Built, NotBuilt, build_all
from podium.session.material import Material
from podium.session.model_corners import (
    MAX_CORNERS,
    extreme,
    largest_batch,
    listed_models,
    model_corners,
    spread,
)
from podium.session.plan_costs import memory_bytes
from podium.session.plan_extent import listed_points
from podium.sweep_file import ListedSettings, Sweep

BASELINE, LEAST, MOST = "baseline", "least work", "most work"
OUT_OF_MEMORY = "needs more memory than a worker can have"


@dataclass(frozen=True, kw_only=True)
class Corner:
    """One model of the space. `memory_bytes`: estimated, with the largest batch. `problem`: why it will not train."""

    parameters: Mapping[str, Plain]
    built: Built | NotBuilt
    memory_bytes: int | None
    problem: str | None


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was found. `corner_count`: how many corners there are, of which `corners` were looked at.

    `changes` is what the measured configurations change in the recipe. `worker_bytes`: memory that a worker can
    have (its GPU's where it has one), None if not known.
    """

    corners: Sequence[Corner]
    corner_count: int
    batch: int
    calibration: Calibration
    changes: Mapping[str, Mapping[str, Plain]]
    workers: int
    worker_bytes: int | None

    @property
    def largest(self) -> int:
        """Parameters of the largest model that can be trained."""
        sizes = [
            corner.built.parameters
            for corner in self.corners
            if isinstance(corner.built, Built) and corner.problem is None
        ]
        return max([*sizes, self.calibration.measured[BASELINE].parameters])


def survey(
    spec: Sweep, material: Material, *, workers: int, threads: int, say: Callable[[str], None]
) -> Survey:
    """Build the corners' models, then train the baseline and the two that work least and most for a moment.

    Raises: PodiumError if the recipe as it stands cannot be built or trained.
    """
    space, recipe = spec.file.space, spec.recipe
    points, count = _points(spec)
    say(f"building {len(points)} of {count} models at the corners of the space")
    first, *built = build_all(
        [recipe, *(recipe.with_values(point) for point in points)],
        image_shape=material.dataset.image_shape,
        classes=len(material.arrays.class_names),
        code=material.code,
    )
    if isinstance(first, NotBuilt):
        raise PodiumError(f"the recipe's own model cannot be built: {first.reason}")
    places = share_out(workers, threads=threads, cores=usable_cores(), gpus=visible_gpus(os.environ))
    room = _room(workers=len(places))
    batch = largest_batch(space, recipe)
    recipes = {BASELINE: recipe}
    chosen = extremes(points, built, batch=batch, room=room)
    for name, point in chosen.items():
        at_corner = extreme(recipe, space, point, fast=name == LEAST)
        if at_corner not in recipes.values():
            recipes[name] = at_corner
    say(f"training {', '.join(recipes)} for a moment each")
    calibration = calibrate(
        recipes,
        material,
        metric=spec.file.epoch_objective.metric,
        goal=spec.file.epoch_objective.goal,
        workers=len(places),
        threads=threads,
    )
    if BASELINE not in calibration.measured:
        raise PodiumError(
            f"the recipe as it stands cannot be trained: {calibration.failed[BASELINE].message}"
        )
    failures = {
        repr(chosen[name]): failure.message for name, failure in calibration.failed.items() if name in chosen
    }
    anchor = calibration.measured[BASELINE]
    corners = [
        judged(
            point,
            network,
            needed=_needed(network, batch, anchor, first, recipe.training.batch_size),
            room=room,
            failure=failures.get(repr(point)),
        )
        for point, network in zip(points, built, strict=True)
    ]
    return Survey(
        corners=corners,
        corner_count=count,
        batch=batch,
        calibration=calibration,
        changes={name: _changes(recipe, one) for name, one in recipes.items()},
        workers=len(places),
        worker_bytes=room,
    )


def judged(
    point: Mapping[str, Plain],
    network: Built | NotBuilt,
    *,
    needed: int | None,
    room: int | None,
    failure: str | None,
) -> Corner:
    """A corner and why it will not train: it cannot be built, its calibration failed, or it `needed` too much memory."""
    if isinstance(network, NotBuilt):
        return Corner(parameters=point, built=network, memory_bytes=None, problem=network.reason)
    beyond = needed is not None and room is not None and needed > room
    problem = failure or (OUT_OF_MEMORY if beyond else None)
    return Corner(parameters=point, built=network, memory_bytes=needed, problem=problem)


def _needed(
    network: Built | NotBuilt, batch: int, anchor: Measured, anchor_network: Built, anchor_batch: int
) -> int | None:
    if isinstance(network, NotBuilt):
        return None
    return memory_bytes(
        network, batch, anchor=anchor, anchor_network=anchor_network, anchor_batch=anchor_batch
    )


def _points(spec: Sweep) -> tuple[Sequence[Mapping[str, Plain]], int]:
    """The models to build, and how many there would be: at the corners of the space, or those of a list."""
    if not isinstance(spec.file.engine, ListedSettings):
        return model_corners(spec.file.space, spec.recipe)
    models = listed_models(spec.file.space, spec.recipe, listed_points(spec))
    return spread(models, MAX_CORNERS), len(models)


def _room(*, workers: int) -> int | None:
    gpus = visible_gpus(os.environ)[:workers]
    if not gpus:
        return machine_bytes() // workers
    sizes = [gpu_bytes(gpu) for gpu in gpus]
    return None if None in sizes else min(size for size in sizes if size is not None)


def extremes(
    points: Sequence[Mapping[str, Plain]],
    built: Sequence[Built | NotBuilt],
    *,
    batch: int,
    room: int | None,
) -> dict[str, Mapping[str, Plain]]:
    """The corners that work least and most, by multiply-adds (by parameters where those are not known of all).

    One whose training cannot fit in `room` is not tried.
    """
    networks = [
        (point, network)
        for point, network in zip(points, built, strict=True)
        if isinstance(network, Built) and (room is None or (network.training_bytes(batch) or 0) <= room)
    ]
    if not networks:
        return {}
    told = all(network.multiply_adds is not None for _, network in networks)

    def work(one: tuple[Mapping[str, Plain], Built]) -> int:
        return (one[1].multiply_adds or 0) if told else one[1].parameters

    return {LEAST: min(networks, key=work)[0], MOST: max(networks, key=work)[0]}


def _changes(recipe: Recipe, other: Recipe) -> dict[str, Plain]:
    own = recipe.flat()
    return {key: value for key, value in other.flat().items() if key not in own or own[key] != value}
