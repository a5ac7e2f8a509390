"""Owns `podium ensemble`: the best trials' models as one that averages their probabilities, and is a version."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from podium.answer import Answer
from podium.conversion.average import average
from podium.datasets.splits import load_split
from podium.errors import PodiumError
from podium.packager.logged_model import log_model, sha256_of
from podium.session.candidate import sweep_name as name_of_sweep
from podium.session.champion import TrainedOn, data_of_run
from podium.session.ensemble_members import (
    MODEL_FILE,
    PREDICTIONS_FILE,
    Member,
    choose_members,
    fetch_files,
    mean_predictions,
)
from podium.session.publication import class_name_tags
from podium.session.recorded_sweep import sweep_name
from podium.stores import Stores, stores_here
from podium.tracking import query, registry
from podium.tracking.artifacts import fetch, fetch_model, log_files
from podium.tracking.made_run import log_results, made_run
from podium.tracking.run_record import RECIPE_FILE, RunRecord, read_run
from podium.tracking.runs import prepare_store
from podium.verification.clean_process import CleanProcess, VerificationRefused

# Members' probabilities were recorded on the machine that trained them; a mean of them adds no error.
TOLERANCE = 1e-5
KEPT_PARAMETERS = ("data.", "checks.")
MEASURED = {"val_accuracy": "maximize", "val_loss": "minimize"}


@dataclass(frozen=True, kw_only=True)
class _Ensemble:
    """One ensemble under way. `folder` is temporary; the model and its predictions lie in it."""

    stores: Stores
    parent: RunRecord
    sweep: str
    members: Sequence[Member]
    data: TrainedOn
    folder: Path
    sha256: str
    parameters: int

    @property
    def run_ids(self) -> list[str]:
        """The members' runs, best first."""
        return [member.run_id for member in self.members]


def ensemble(sweep: str | None, *, top: int) -> Answer:
    """Average the best `top` complete trials of a sweep (default: the latest), and register that as a version.

    No alias moves: `podium promote` has its own gate, and looks at the test set.
    Raises: InvalidInput if there are too few trials; Refused if they do not share a split; PodiumError if a model's
    file or the data is not what is on record, or the average does not predict what the members recorded.
    """
    stores = stores_here()
    stores.prepare()
    prepare_store(stores)
    parent = read_run(stores, query.find_parent(stores, sweep_name(sweep)))
    members, passed_over = choose_members(stores, parent.run_id, top)
    data = data_of_run(stores, members[0].run_id, f"run {members[0].run_id}")
    with tempfile.TemporaryDirectory(prefix="podium-ensemble-") as place:
        folder = Path(place)
        files = [fetch_files(stores, each, folder / str(number)) for number, each in enumerate(members)]
        parameters = average([each.model for each in files], folder / MODEL_FILE)
        mean_predictions(files, folder / PREDICTIONS_FILE)
        made = _Ensemble(
            stores=stores,
            parent=parent,
            sweep=name_of_sweep(stores, parent.run_id),
            members=members,
            data=data,
            folder=folder,
            sha256=sha256_of(folder / MODEL_FILE),
            parameters=parameters,
        )
        with made_run(
            stores,
            experiment=parent.experiment,
            name=f"ensemble of {top}",
            tags=_run_tags(made),
            parameters=_parameters(made),
        ) as run_id:
            values = _record(made, run_id)
    return Answer(values=values, shown=_shown(made, values), warnings=passed_over)


def _record(made: _Ensemble, run_id: str) -> dict[str, Any]:
    """Keep the files, prove and measure the model, register it; answers the command's JSON keys."""
    stores, folder = made.stores, made.folder
    recipe = fetch(stores, made.members[0].run_id, RECIPE_FILE, folder)
    assert recipe is not None, "the data were opened by it"
    log_files(stores, run_id, [recipe, folder / MODEL_FILE, folder / PREDICTIONS_FILE], "")
    model_id = log_model(stores, run_id=run_id, model_file=folder / MODEL_FILE, sha256=made.sha256)
    proof, found = _measure(made, model_id)
    best = max(member.val_accuracy for member in made.members)
    log_results(
        stores,
        run_id,
        metrics={
            "best_val_accuracy": found["accuracy"],
            "best_val_loss": found["loss"],
            "parameters": float(made.parameters),
        },
    )
    version = registry.create_version(
        stores,
        model=made.sweep,
        model_id=model_id,
        run_id=run_id,
        tags=_version_tags(made, run_id, proof, found),
        description=_description(made, found),
    )
    return {
        "sweep": made.sweep,
        "run_id": run_id,
        "model": made.sweep,
        "version": version,
        "alias": None,
        "members": [
            {
                "run_id": member.run_id,
                "trial": member.trial,
                "value": member.value,
                "val_accuracy": member.val_accuracy,
            }
            for member in made.members
        ],
        "val_accuracy": found["accuracy"],
        "val_loss": found["loss"],
        "best_member_val_accuracy": best,
        "gain": found["accuracy"] - best,
        "images": found["images"],
        "parameters": made.parameters,
        "bytes": (folder / MODEL_FILE).stat().st_size,
        "model_sha256": made.sha256,
        "largest_difference": proof["largest_difference"],
    }


def _measure(made: _Ensemble, model_id: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What a process without Podium finds: that the package gives the members' mean, and the validation accuracy."""
    folder = made.folder
    images, labels = _validation(made.data, folder)
    with CleanProcess() as process:
        try:
            proof = process.verify(
                folder=fetch_model(made.stores, model_id, folder / "package"),
                sha256=made.sha256,
                predictions=folder / PREDICTIONS_FILE,
                tolerance=TOLERANCE,
                same_classes=False,
            )
        except VerificationRefused as refusal:
            raise PodiumError(f"the ensemble is not what its members recorded: {refusal}") from refusal
        return proof, process.evaluate(images=images, labels=labels, out=folder / "validation.npz")


def _validation(data: TrainedOn, folder: Path) -> tuple[Path, Path]:
    """The validation images and labels as files."""
    _, validation = load_split(data.arrays.split)
    places = []
    for name, source in (("images", data.arrays.images), ("labels", data.arrays.labels)):
        place = folder / f"validation_{name}.npy"
        np.save(place, np.load(source, mmap_mode="r", allow_pickle=False)[validation])
        places.append(place)
    return places[0], places[1]


def _run_tags(made: _Ensemble) -> dict[str, str]:
    """Without a parent run: an ensemble is no trial, and must not be ranked among a sweep's."""
    metric = made.parent.metric if made.parent.metric in MEASURED else "val_accuracy"
    return {
        **made.members[0].data,
        "podium.kind": "ensemble",
        "podium.sweep": made.sweep,
        "podium.ensemble_of": made.parent.run_id,
        "podium.members": json.dumps(made.run_ids),
        "podium.metric": metric,
        "podium.goal": MEASURED[metric],
        "podium.model_sha256": made.sha256,
        "podium.command": f"podium ensemble {made.parent.run_id} --top {len(made.members)}",
    }


def _parameters(made: _Ensemble) -> dict[str, object]:
    """What is the same for all members: their data, and what their recipe asks of a model."""
    row = query.run_frame(made.stores, made.run_ids[:1]).iloc[0]
    found = {str(name).removeprefix("params."): value for name, value in row.items()}
    kept = {name: value for name, value in found.items() if name.startswith(KEPT_PARAMETERS)}
    return {**kept, "ensemble.top": len(made.members), "precision": "float32"}


def _version_tags(
    made: _Ensemble, run_id: str, proof: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, str]:
    return {
        **made.members[0].data,
        "podium.run_id": run_id,
        "podium.sweep": made.sweep,
        "podium.kind": "ensemble",
        "podium.members": json.dumps(made.run_ids),
        "podium.val_accuracy": json.dumps(found["accuracy"]),
        "podium.verified": json.dumps(proof),
        registry.SHA256_TAG: made.sha256,
        **class_name_tags(made.data.dataset.class_names),
    }


def _description(made: _Ensemble, found: Mapping[str, Any]) -> str:
    return (
        f"The mean of the class probabilities of {len(made.members)} trials of sweep {made.sweep}: validation "
        f"accuracy {found['accuracy']:.4f} on {found['images']} images, by which the trials were chosen. It was not "
        "promoted: no test set was looked at for it."
    )


def _shown(made: _Ensemble, values: Mapping[str, Any]) -> list[object]:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model")
    table.add_column("val_accuracy", justify="right")
    table.add_column("run")
    for member in made.members:
        table.add_row(f"trial {member.trial}", f"{member.val_accuracy:.4f}", member.run_id)
    table.add_row("ensemble", f"{values['val_accuracy']:.4f}", values["run_id"])
    return [
        table,
        f"{values['gain']:+.4f} against its best member, on the {values['images']} validation images by which the "
        "members were chosen",
        f"{values['parameters']:,} parameters, {values['bytes']:,} bytes: an image takes as long as by all members "
        "one after another",
        f"{values['model']}: version {values['version']}; no alias was moved. To make it the champion: "
        f'podium promote {values["run_id"]} --unconfirmed "WHY"',
    ]
