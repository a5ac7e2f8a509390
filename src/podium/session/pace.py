"""Owns `precision: auto`: how a sweep trains fastest on this machine, measured once at its start and then kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from podium.errors import InvalidInput
from podium.executors.placement import visible_gpus
from podium.recipe import Recipe
from podium.recipe_sections import Precision
from podium.result import Goal
from podium.session.assembly import cores, threads_each
from podium.session.calibration import calibrate
from podium.session.material import Material
from podium.sweep_file import Sweep

PACE = "pace"
# What is gained by fewer bits has to be worth their rounding.
LEAST_GAIN = 1.1


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How trials are trained. `measured`: images a second of all workers together, by precision and workers.

    `workers` 0: as many as the cluster has room for.
    """

    precision: Precision
    workers: int
    threads: int
    measured: Mapping[str, float]

    def in_words(self) -> str:
        """One line for people."""
        rates = ", ".join(f"{name} {rate:.0f}" for name, rate in self.measured.items())
        return (
            f"precision auto: {self.precision}, {self.workers} worker{'s' if self.workers > 1 else ''} of "
            f"{self.threads} thread{'s' if self.threads > 1 else ''} each (images a second: {rates})"
        )


def is_open(recipe: Recipe) -> bool:
    """Whether a recipe leaves its precision to be measured; scikit-learn's classifiers have none."""
    return recipe.precision == "auto" and recipe.classical is None


def settled(
    spec: Sweep, material: Material, recorded: object, say: Callable[[str], None]
) -> tuple[Sweep, str | None]:
    """The sweep with precision, and workers if none were asked for, settled; and what to remember of it (JSON).

    `recorded` is what an earlier start remembered: then nothing is measured. For workers on other machines it is
    float32. Raises: SweepError if no worker starts; InvalidInput if the recipe trains in no precision.
    """
    if not is_open(spec.recipe):
        return spec, None
    if isinstance(recorded, str):
        pace = Pace(**json.loads(recorded))
    else:
        pace = _chosen(spec, material, say)
    file = spec.file.model_copy(update={"workers": spec.file.workers or pace.workers or None})
    recipe = spec.recipe.with_values({"precision": pace.precision})
    return replace(spec, file=file, recipe=recipe), json.dumps(asdict(pace))


def _chosen(spec: Sweep, material: Material, say: Callable[[str], None]) -> Pace:
    if spec.file.executor != "local":
        say("precision: auto is measured on this machine, and the workers are on others: float32 is taken")
        return Pace(precision="float32", workers=spec.file.workers or 0, threads=0, measured={})
    objective = spec.file.epoch_objective
    return measure(
        spec.recipe,
        material,
        metric=objective.metric,
        goal=objective.goal,
        workers=spec.file.workers,
        say=say,
    )


def measure(
    recipe: Recipe,
    material: Material,
    *,
    metric: str,
    goal: Goal,
    workers: int | None,
    say: Callable[[str], None],
) -> Pace:
    """Train the recipe for a moment in each precision and each division of the cores, and take the fastest.

    float32 is taken unless another is LEAST_GAIN times as fast. Raises: SweepError if no worker starts;
    InvalidInput if the recipe trains in no precision.
    """
    say("precision: auto; measuring how this machine trains fastest (half a minute)")
    precisions: list[Precision] = ["float32", "bfloat16"]
    rates: dict[tuple[Precision, int], float] = {}
    reasons: list[str] = []
    for count in [workers] if workers is not None else _divisions():
        recipes: dict[str, Recipe] = {name: recipe.with_values({"precision": name}) for name in precisions}
        found = calibrate(
            recipes, material, metric=metric, goal=goal, workers=count, threads=threads_each(count)
        )
        for name in precisions:
            if name in found.measured:
                rates[name, count] = found.measured[name].images_per_second * count
            else:
                reasons.append(f"{name}: {found.failed[name].message}")
    if not rates:
        raise InvalidInput(f"the recipe cannot be trained: {'; '.join(reasons)}")
    precision, count = fastest(rates)
    measured = {f"{name} x {number}": round(rate, 1) for (name, number), rate in rates.items()}
    pace = Pace(precision=precision, workers=count, threads=threads_each(count), measured=measured)
    say(pace.in_words())
    return pace


def resolved(
    recipe: Mapping[str, Any], settings: Mapping[str, Any], recorded: object
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A recorded recipe and a sweep's settings, with the precision and the workers that the sweep settled on."""
    if not isinstance(recorded, str):
        return dict(recipe), dict(settings)
    pace = Pace(**json.loads(recorded))
    return {**recipe, "precision": pace.precision}, {
        **settings,
        "workers": settings.get("workers") or pace.workers or None,
    }


def fastest(rates: Mapping[tuple[Precision, int], float]) -> tuple[Precision, int]:
    """Precision and workers to take, of images a second of all workers together."""
    best = max(rates, key=lambda each: rates[each])
    exact = {each: rate for each, rate in rates.items() if each[0] == "float32"}
    if not exact:
        return best
    plain = max(exact, key=lambda each: exact[each])
    return best if rates[best] >= LEAST_GAIN * rates[plain] else plain


def _divisions() -> list[int]:
    """Worker counts to try: one a GPU, or one with all cores and one a core."""
    gpus = visible_gpus(os.environ)
    if gpus:
        return [len(gpus)]
    return sorted({1, cores()})
