"""Owns sweeps whose trials are a formula: every kind of parameter, no training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from podium.engines.base import Done, Engine, Outcome, Proposal, Scalar, Wait
from podium.engines.make import make_engine
from podium.engines.study import IN_MEMORY
from podium.sweep_file import Sweep, read_sweep

EPOCHS = 9
SPACE: dict[str, Any] = {
    "optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "scale": "log"},
    "model.dropout": {"type": "float", "low": 0.0, "high": 0.6},
    "augmentation.strength": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.3},
    "model.depth": {"type": "int", "low": 1, "high": 4},
    "model.filters": {"type": "int", "low": 8, "high": 60, "step": 8},
    "training.batch_size": {"type": "int", "low": 16, "high": 256, "scale": "log"},
    "augmentation.flip": {"type": "categorical", "choices": [True, False]},
    "optimizer.clipnorm": {"type": "categorical", "choices": [None, 1.0]},
    "optimizer.name": {"type": "categorical", "choices": ["adam", "sgd"]},
    "optimizer.momentum": {"type": "float", "low": 0.0, "high": 0.9, "when": {"optimizer.name": ["sgd"]}},
    "model.dense_units": {
        "type": "categorical",
        "choices": [128, 256],
        "when": {"model.depth": [3, 4], "augmentation.flip": [True]},
    },
}
FINITE_SPACE: dict[str, Any] = {
    "model.depth": {"type": "int", "low": 1, "high": 3},
    "optimizer.name": {"type": "categorical", "choices": ["adam", "sgd"]},
    "augmentation.strength": {
        "type": "float",
        "low": 0.0,
        "high": 1.0,
        "step": 0.5,
        "when": {"optimizer.name": ["sgd"]},
    },
}


def toy_sweep(
    folder: Path,
    engine: Mapping[str, Any],
    *,
    space: Mapping[str, Any] = SPACE,
    recipe: Mapping[str, Any] | None = None,
    **more: Any,
) -> Sweep:
    """A sweep file and its recipe, written and read as a user's."""
    recipe_content = {
        "training": {"epochs": EPOCHS, "batch_size": 64},
        "augmentation": {"strength": 0.6},
        **(recipe or {}),
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe_content))
    content = {
        "name": "toy",
        "recipe": "recipe.yaml",
        "engine": dict(engine),
        "budget": {"trials": 1000},
        "space": dict(space),
        **more,
    }
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return read_sweep(path)


def toy_engine(
    sweep: Sweep, *, name: str = "toy", url: str = IN_MEMORY, create: bool = True, **more: Any
) -> Engine:
    """The engine of a sweep, in memory unless `url` says otherwise."""
    return make_engine(sweep, study_name=name, study_url=url, epochs=EPOCHS, create=create, **more)


def quality(parameters: Mapping[str, Scalar], epoch: int) -> float:
    """Accuracy after an epoch: best at a learning rate of 0.01 and a dropout of 0.3."""
    rate = float(parameters.get("optimizer.learning_rate") or 0.01)
    dropout = float(parameters.get("model.dropout") or 0.3)
    reached = 1.0 - 0.2 * abs(math.log10(rate) + 2.0) - abs(dropout - 0.3)
    return reached * (1.0 - 0.5 / epoch)


@dataclass
class Played:
    """What a played sweep came to: proposals, the epochs that each trained, why it ended."""

    proposals: list[Proposal] = field(default_factory=list)
    epochs: dict[int, int] = field(default_factory=dict)
    ended: Done | Wait | None = None


def outcome_of(engine: Engine, proposal: Proposal, *, goal: str = "maximize") -> Outcome:
    """Train a proposal by formula; reports its epochs."""
    sign = 1.0 if goal == "maximize" else -1.0
    value = math.nan
    for epoch in range(proposal.first_epoch + 1, (proposal.epochs or EPOCHS) + 1):
        value = sign * quality(proposal.parameters, epoch)
        if engine.report(proposal.number, epoch, value):
            return Outcome(state="pruned", value=value)
    size = 1000.0 * int(proposal.parameters.get("model.filters") or 32)
    return Outcome(state="complete", value=value, measures={"parameters": size, "seconds": 1.0})


def play(engine: Engine, trials: int, *, goal: str = "maximize") -> Played:
    """Ask, train and tell one trial after the other."""
    played = Played()
    for _ in range(trials):
        proposal = engine.ask()
        if not isinstance(proposal, Proposal):
            played.ended = proposal
            break
        outcome = outcome_of(engine, proposal, goal=goal)
        engine.tell(proposal.number, outcome)
        played.proposals.append(proposal)
        record = engine.trials()[proposal.number]
        played.epochs[proposal.number] = len(record.curve)
    return played
