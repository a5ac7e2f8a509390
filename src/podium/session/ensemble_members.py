"""Owns who is in an ensemble: a sweep's best trials that have a model of their own, and their files, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from podium.errors import InvalidInput, PodiumError, Refused
from podium.packager.logged_model import check_file
from podium.stores import Stores
from podium.tracking import query
from podium.tracking.artifacts import fetch
from podium.training.stock_keras import archive_faults

MODEL_FILE, PREDICTIONS_FILE = "best.keras", "predictions.npz"
DATA_TAGS = ("train_digest", "split_digest", "test_digest", "source_digest")
ALL_TRIALS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Member:
    """One trial of an ensemble. `value`: of the sweep's metric, `val_accuracy`: both at the trial's best epoch.

    `data`: the digests of what it was trained on, as tags.
    """

    run_id: str
    trial: int
    value: float
    val_accuracy: float
    model_sha256: str
    data: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class MemberFiles:
    """A member's model, and what its run recorded that it predicts, of which images."""

    model: Path
    indices: NDArray[np.int64]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]


def choose_members(stores: Stores, parent_id: str, top: int) -> tuple[list[Member], list[str]]:
    """The best `top` complete trials that have a model, best first; and why better ones are not among them.

    A trial equal to an earlier one has no model of its own and is passed over.
    Raises: InvalidInput if there are fewer; Refused if they were trained or validated on different images.
    """
    rows = {str(row["run_id"]): row for row in query.children(stores, parent_id).to_dict("records")}
    value_of = f"metrics.best_{_metric(stores, parent_id)}"
    chosen: list[Member] = []
    passed_over: list[str] = []
    for run_id in query.leaders(stores, parent_id, ALL_TRIALS):
        if len(chosen) == top:
            break
        row = rows[run_id]
        tags = {str(name): text for name, text in row.items() if isinstance(text, str)}
        if "tags.podium.duplicate_of" in tags:
            continue
        if "tags.podium.model_sha256" not in tags:
            reason = tags.get("tags.podium.not_promotable", "its run names no model file")
            passed_over.append(f"trial {row['trial']} (run {run_id}) is left out: {reason}.")
            continue
        chosen.append(
            Member(
                run_id=run_id,
                trial=int(row["trial"]),
                value=float(row[value_of]),
                val_accuracy=float(row["metrics.best_val_accuracy"]),
                model_sha256=tags["tags.podium.model_sha256"],
                data={
                    f"podium.{name}": tags[f"tags.podium.{name}"]
                    for name in DATA_TAGS
                    if f"tags.podium.{name}" in tags
                },
            )
        )
    _check(chosen, top)
    return chosen, passed_over


def fetch_files(stores: Stores, member: Member, folder: Path) -> MemberFiles:
    """A member's files in `folder`, the model's hash and content checked before anything loads it.

    Raises: PodiumError if one is missing, changed, or no model of stock Keras layers.
    """
    folder.mkdir()
    model = fetch(stores, member.run_id, MODEL_FILE, folder)
    predictions = fetch(stores, member.run_id, PREDICTIONS_FILE, folder)
    if model is None or predictions is None:
        missing = MODEL_FILE if model is None else PREDICTIONS_FILE
        raise PodiumError(f"run {member.run_id}'s {missing} is missing.")
    check_file(model, member.model_sha256)
    if faults := archive_faults(model):
        raise PodiumError(f"run {member.run_id}'s model must not be loaded: {'; '.join(faults)}.")
    with np.load(predictions, allow_pickle=False) as recorded:
        return MemberFiles(
            model=model,
            indices=recorded["indices"],
            images=recorded["images"],
            labels=recorded["labels"],
            probabilities=recorded["probabilities"],
        )


def mean_predictions(members: Sequence[MemberFiles], out: Path) -> None:
    """Write what the mean of the members' recorded probabilities is, as a training writes its own predictions."""
    first = members[0]
    probabilities = np.mean([each.probabilities for each in members], axis=0, dtype=np.float64)
    with out.open("wb") as file:
        np.savez(
            file,
            images=first.images,
            indices=first.indices,
            labels=first.labels,
            probabilities=probabilities.astype(np.float32),
        )


def _metric(stores: Stores, parent_id: str) -> str:
    row = query.run_frame(stores, [parent_id]).iloc[0]
    metric = row.get("tags.podium.metric")
    return metric if isinstance(metric, str) else "val_accuracy"


def _check(chosen: Sequence[Member], top: int) -> None:
    if len(chosen) < top:
        raise InvalidInput(
            f"--top: got {top}, but the sweep has {len(chosen)} complete trials with a model of their own."
        )
    for name in ("train_digest", "split_digest"):
        if len({member.data.get(f"podium.{name}") for member in chosen}) > 1:
            raise Refused(
                f"the trials' {name.replace('_', ' ')}s differ: one has trained on images that another is "
                "validated on, so no validation accuracy of their average would be true.",
                remedy="Average trials of a sweep that does not vary data.*.",
            )
