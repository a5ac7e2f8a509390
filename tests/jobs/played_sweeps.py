"""Owns sweeps on record whose trials are a formula: real engine, real study, real MLflow store, no training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from toy_sweeps import toy_sweep

from podium.coordinator.attempts import ATTEMPTS, HISTORY, history_text
from podium.coordinator.bookkeeping import Bookkeeper
from podium.coordinator.outcomes import DUPLICATE, RESULT
from podium.coordinator.trial import Plan
from podium.engines.base import Engine, Outcome, Proposal, TrialRecord
from podium.engines.make import make_engine
from podium.result import EpochEvent, FailureCause
from podium.stores import Stores
from podium.sweep_file import Sweep
from podium.tracking.runs import Recorder

EPOCHS = 4
SPACE: dict[str, Any] = {
    "optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "scale": "log"},
    "model.filters": {"type": "int", "low": 8, "high": 64},
    "model.depth": {"type": "int", "low": 1, "high": 4},
}


@dataclass(frozen=True, kw_only=True)
class Played:
    """What a formula says of a trial. `measures` hold val_accuracy, val_loss, parameters and seconds."""

    measures: Mapping[str, float] = field(default_factory=dict)
    state: Literal["complete", "pruned", "failed"] = "complete"
    cause: FailureCause | None = None
    message: str = ""
    duplicate_of: int | None = None
    epochs: int = EPOCHS


def record_sweep(
    stores: Stores,
    folder: Path,
    formula: Callable[[Proposal], Played],
    *,
    name: str,
    trials: int,
    engine: Mapping[str, Any] | None = None,
    **more: Any,
) -> str:
    """Play a sweep and put it on record as `podium sweep` does; answers the parent run's id."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = engine or {"name": "optuna", "sampler": "random", "pruner": "none", "seed": 5}
    spec = toy_sweep(
        folder, settings, space=SPACE, recipe={"training": {"epochs": EPOCHS}}, name=name, **more
    )
    study = make_engine(spec, study_name=f"{name}-1", study_url=stores.study_url, epochs=EPOCHS, create=True)
    recorder = Recorder(stores, experiment=name, spool_folder=folder / "spool")
    study.remember("document", json.dumps(spec.document()))
    parent = recorder.open_parent(
        name=f"{name}-1",
        parameters={
            f"space.{key}": json.dumps(value.model_dump(exclude_defaults=True))
            for key, value in spec.file.space.items()
        },
        tags={
            "podium.sweep": name,
            "podium.study": f"{name}-1",
            "podium.metric": spec.file.epoch_objective.metric,
            "podium.goal": spec.file.epoch_objective.goal,
        },
    )
    book = Bookkeeper(recorder, _plan(spec, folder))
    for record in _play(study, spec, formula, trials):
        book.write_again(record, spec.recipe.with_values(record.parameters))
    recorder.end_parent(status="FINISHED", metrics={}, tags={"podium.state": "finished"})
    assert recorder.flush(60)
    recorder.close()
    study.close()
    return parent


def _play(
    study: Engine, spec: Sweep, formula: Callable[[Proposal], Played], trials: int
) -> list[TrialRecord]:
    metric = spec.file.epoch_objective.metric
    for _ in range(trials):
        proposal = study.ask()
        assert isinstance(proposal, Proposal)
        played = formula(proposal)
        best = {name: played.measures[name] for name in ("val_accuracy", "val_loss") if played.measures}
        events = {
            epoch: EpochEvent(
                epoch=epoch,
                metrics={
                    "loss": 2.0 / epoch,
                    "accuracy": 1.0 - 0.5 / epoch,
                    "learning_rate": 1e-3,
                    **{name: value * (1.0 - 0.5**epoch) for name, value in best.items()},
                },
                seconds=1.0,
                images=100,
            )
            for epoch in range(1, played.epochs + 1 if best else 1)
        }
        for epoch, event in events.items():
            study.report(proposal.number, epoch, event.metrics[metric])
        study.note(proposal.number, ATTEMPTS, 1)
        study.note(proposal.number, HISTORY, history_text(events))
        study.tell(proposal.number, _outcome(played, best, metric))
    return study.trials()


def _outcome(played: Played, best: Mapping[str, float], metric: str) -> Outcome:
    result: dict[str, Any] = {"metrics": dict(best), "epochs_planned": EPOCHS}
    if best:
        result |= {"best_epoch": played.epochs, "epochs": played.epochs, "images_per_second": 100.0}
        result |= {name: played.measures[name] for name in ("parameters", "seconds")}
    attributes: dict[str, Any] = {RESULT: json.dumps(result)}
    if played.duplicate_of is not None:
        attributes[DUPLICATE] = played.duplicate_of
    return Outcome(
        state=played.state,
        value=best.get(metric),
        measures=played.measures,
        cause=played.cause,
        message=played.message,
        attributes=attributes,
    )


def _plan(spec: Sweep, folder: Path) -> Plan:
    def nothing(*_: Any) -> Any:
        raise AssertionError("a played sweep trains nothing and packages nothing")

    return Plan(
        recipe=spec.recipe,
        metric=spec.file.epoch_objective.metric,
        goal=spec.file.epoch_objective.goal,
        folder=folder,
        job=nothing,
        package=nothing,
        tags={"podium.kind": "trial"},
        inputs=[],
    )
