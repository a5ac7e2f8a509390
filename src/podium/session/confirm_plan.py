"""Owns which configurations of a recorded sweep are confirmed, and on which seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from podium.engines.base import Scalar, TrialRecord
from podium.errors import Refused
from podium.recipe import Recipe
from podium.search_space import project
from podium.session.recorded_sweep import RecordedSweep

BASELINE = "baseline"
# Tells these seeds from all others that come from the sweep's seed.
CONFIRM_KEY = 0xC0F1
SEED_BITS = 31
SEED_KEYS = ("training.seed", "data.validation.seed")
NAME_DIGITS = 10


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One configuration. `parameters` are for people; `changes` is what to change in the sweep's recipe.

    `trial` is its trial among the leaders, None for a baseline that is not one of them.
    """

    name: str
    parameters: Mapping[str, Scalar]
    changes: Mapping[str, Scalar]
    trial: int | None


def candidates_of(recorded: RecordedSweep, top: int) -> list[Candidate]:
    """The baseline first, then the other leaders, best first; trials of one configuration count once.

    Leaders are complete, feasible trials that were trained. Raises: Refused if there is none.
    """
    goal = recorded.file.epoch_objective.goal
    eligible = [trial for trial in recorded.trials if _is_eligible(trial)]
    eligible.sort(key=lambda trial: trial.value or 0.0, reverse=goal == "maximize")
    baseline_trial: int | None = None
    rivals: list[Candidate] = []
    seen: list[Recipe] = []
    for trial in eligible:
        if len(seen) == top:
            break
        recipe = recorded.recipe.with_values(trial.parameters)
        if recipe in seen:
            continue
        seen.append(recipe)
        if recipe == recorded.recipe:
            baseline_trial = trial.number
            continue
        parameters = dict(trial.parameters)
        rivals.append(
            Candidate(
                name=f"trial {trial.number}", parameters=parameters, changes=parameters, trial=trial.number
            )
        )
    if not seen:
        raise Refused(
            f"sweep {recorded.file.name} has no complete trial to confirm.",
            remedy="Go on with the sweep: pruned, failed and duplicate trials do not qualify.",
        )
    parameters = cast(dict[str, Scalar], project(recorded.file.space, recorded.recipe.flat()))
    return [Candidate(name=BASELINE, parameters=parameters, changes={}, trial=baseline_trial), *rivals]


def fresh_seeds(recorded: RecordedSweep, count: int) -> list[int]:
    """Seeds that the sweep did not train with, from the sweep's own; more seeds begin with the same ones."""
    taken = {recorded.recipe.training.seed, recorded.recipe.data.validation.seed}
    sequence = np.random.SeedSequence(recorded.file.engine.seed, spawn_key=(CONFIRM_KEY,))
    seeds: list[int] = []
    for word in sequence.generate_state(2 * count + len(taken)):
        seed = int(word) >> (32 - SEED_BITS)
        if seed not in taken and seed not in seeds:
            seeds.append(seed)
    assert len(seeds) >= count
    return seeds[:count]


def proposals(candidates: Sequence[Candidate], seeds: Sequence[int]) -> list[dict[str, Scalar]]:
    """Seed by seed, so that a later call with more seeds goes on with the same list."""
    return [
        {**candidate.changes, **dict.fromkeys(SEED_KEYS, seed)} for seed in seeds for candidate in candidates
    ]


def fingerprint(candidates: Sequence[Candidate]) -> str:
    """Short name of a list of configurations; seeds do not count."""
    content: Any = [dict(sorted(candidate.changes.items())) for candidate in candidates]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:NAME_DIGITS]


def _is_eligible(trial: TrialRecord) -> bool:
    return (
        trial.state == "complete"
        and trial.value is not None
        and trial.feasible
        and "duplicate_of" not in trial.attributes
    )
