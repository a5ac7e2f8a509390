"""Owns replaying a search on recorded curves: the engine is Podium's own, the training is looked up."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from points_table import Point, Table
from pydantic import TypeAdapter
from substitution import substitute
from unit_cube import Coordinates, coordinates, distances

from podium.engines.base import Done, Engine, Outcome, Proposal, Scalar, Wait
from podium.engines.make import make_engine
from podium.engines.study import IN_MEMORY
from podium.recipe import Recipe
from podium.search_space import Parameter, Space
from podium.sweep_file import EngineSettings, Sweep

ENGINE: TypeAdapter[Any] = TypeAdapter(EngineSettings)
SPACE: TypeAdapter[Any] = TypeAdapter(Space)


@dataclass
class Trace:
    """What one replayed search did.

    `steps`: (epochs spent in all, best value so far), one each time that a trial ended and was better. A
    trial counts once it is complete, as in Podium's own results: a pruned trial is no candidate, and a running one
    not yet. `moved`: for each new configuration, the epochs spent before it and its distance to the recorded point.
    `ran_out`: every recorded point was used before the budget was. `seconds`: processor time of the replay.
    """

    steps: list[tuple[int, float]] = field(default_factory=list)
    moved: list[tuple[int, float]] = field(default_factory=list)
    epochs: int = 0
    pruned: int = 0
    promoted: int = 0
    failed: int = 0
    ran_out: bool = False
    seconds: float = 0.0

    def complete(self, value: float) -> None:
        """Count a complete trial's value, in epochs spent until now."""
        if not self.steps or value > self.steps[-1][1]:
            self.steps.append((self.epochs, value))

    def curve(self, budget: int) -> Coordinates:
        """Best value of complete trials after 0, 1, ... `budget` epochs; NaN while there is none."""
        best = np.full(budget + 1, math.nan)
        for spent, value in self.steps:
            best[spent:] = value
        return best


class Recorded:
    """The points of a table as a search meets them: each is trained once at most."""

    def __init__(self, table: Table, space: Mapping[str, Parameter]) -> None:
        self._space = space
        self._points = list(table.points.values())
        self._coordinates = np.stack([coordinates(space, point.parameters) for point in self._points])
        self._unused = np.ones(len(self._points), dtype=bool)

    @property
    def left(self) -> int:
        """How many points have not been taken."""
        return int(self._unused.sum())

    def take(self, parameters: Mapping[str, Scalar]) -> tuple[Point, float]:
        """The nearest point that was not taken, and how far it is."""
        gaps = self._distances(coordinates(self._space, parameters))
        nearest = int(np.argmin(np.where(self._unused, gaps, np.inf)))
        self._unused[nearest] = False
        return self._points[nearest], float(gaps[nearest])

    def _distances(self, place: Coordinates) -> Coordinates:
        return distances(self._space, self._coordinates, place)


def recorded_sweep(table: Table, sweep: Sweep) -> Sweep:
    """The sweep over the space and with the recipe that the table was recorded with."""
    recipe = Recipe.model_validate(
        {**table.made["recipe"], "data": {**table.made["recipe"]["data"], "reference": "recorded"}}
    )
    space = SPACE.validate_python(table.made["space"])
    return replace(sweep, recipe=recipe, file=sweep.file.model_copy(update={"space": space}))


def replay_engine(
    table: Table, sweep: Sweep, settings: Mapping[str, Any], *, seed: int, budget: int
) -> Trace:
    """Search with an engine until `budget` epochs are spent, the points run out, or it has no more to propose.

    `sweep`: as `recorded_sweep` gives it. `settings`: `engine:` of a sweep file, less the seed. One trial at a time.
    """
    engine_settings = ENGINE.validate_python({**settings, "seed": seed})
    space, epochs = sweep.file.space, sweep.recipe.training.epochs
    start = time.process_time()
    engine = make_engine(
        replace(sweep, file=sweep.file.model_copy(update={"engine": engine_settings})),
        study_name="replay",
        study_url=IN_MEMORY,
        epochs=epochs,
        create=True,
    )
    trace, recorded = Trace(), Recorded(table, space)
    trained: dict[int, Point] = {}
    while trace.epochs < budget:
        if not recorded.left:
            trace.ran_out = True
            break
        proposal = engine.ask()
        if isinstance(proposal, Done):
            break
        assert not isinstance(proposal, Wait), "the engine waits although no trial is running"
        if proposal.parent is not None:
            point = trained[proposal.parent]
            assert proposal.parameters == point.parameters, "a promoted trial has its parent's parameters"
            trace.promoted += 1
        else:
            point, gap = recorded.take(proposal.parameters)
            trace.moved.append((trace.epochs, gap))
            if gap > 0:
                substitute(engine, space, proposal.number, point.parameters)
        trained[proposal.number] = point
        _train(engine, proposal, point, trace, epochs=proposal.epochs or epochs, budget=budget)
    engine.close()
    trace.seconds = time.process_time() - start
    return trace


def _train(
    engine: Engine, proposal: Proposal, point: Point, trace: Trace, *, epochs: int, budget: int
) -> None:
    """Feed the engine the point's curve, an epoch at a time, as the coordinator does."""
    number = proposal.number
    for epoch in range(proposal.first_epoch + 1, epochs + 1):
        if trace.epochs == budget:
            return
        trace.epochs += 1
        if epoch > len(point.val_accuracy):
            trace.failed += 1
            message = f"loss is nan after epoch {epoch}."
            engine.tell(number, Outcome(state="failed", cause="nan", message=message))
            return
        stop = engine.report(number, epoch, point.val_accuracy[epoch - 1])
        if stop and epoch < epochs:
            trace.pruned += 1
            value = max(point.val_accuracy[:epoch])
            engine.tell(number, Outcome(state="pruned", value=value, measures=_measures(point)))
            return
    value = max(point.val_accuracy[:epochs])
    engine.tell(number, Outcome(state="complete", value=value, measures=_measures(point)))
    trace.complete(value)


def replay_one_epoch_rule(table: Table, *, first: int, seed: int, budget: int, epochs: int) -> Trace:
    """Train the baseline and other random points, `first` in all, for one epoch; then the best ones to the end.

    Points are continued in the order of their first epoch until the budget is spent, equal ones in a random order.
    """
    generator = np.random.default_rng(seed)
    others = generator.permutation([number for number in table.points if number != 0])
    chosen = [table.points[number] for number in [0, *others.tolist()][:first]]
    trace = Trace(moved=[(0, 0.0)] * len(chosen), epochs=min(len(chosen), budget))
    shuffled = [chosen[index] for index in generator.permutation(len(chosen))]
    for point in sorted(shuffled, key=lambda each: -max(each.val_accuracy[:1], default=0.0)):
        seen = len(point.val_accuracy)
        cost = min(seen + 1, epochs) - 1  # a failure shows in the epoch after the last one
        if trace.epochs + cost > budget:
            trace.epochs = budget
            break
        trace.epochs += cost
        if seen < epochs:
            trace.failed += 1
        else:
            trace.complete(max(point.val_accuracy))
    return trace


def _measures(point: Point) -> dict[str, float]:
    return {} if point.size is None else {"parameters": float(point.size)}
