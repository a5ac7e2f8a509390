"""Owns `podium compress`: a run's model with its small weights removed, at several shares, beside the original."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from podium.answer import Answer
from podium.errors import InvalidInput, PodiumError, Refused
from podium.packager.logged_model import check_file
from podium.recipe import Recipe
from podium.session.candidate import Candidate, find_candidate
from podium.session.champion import TrainedOn, data_of_run
from podium.session.pruned_file import Pruned, prune
from podium.stores import Stores, stores_here
from podium.tracking import query
from podium.tracking.artifacts import fetch, log_files, log_text
from podium.tracking.made_run import log_results, made_run
from podium.tracking.run_record import RECIPE_FILE, read_recipe, read_run
from podium.tracking.runs import prepare_store
from podium.training.stock_keras import archive_faults

MODEL_FILE, TABLE_FILE = "best.keras", "compression.json"
MOST_LOST = 0.01
DATA_TAGS = ("podium.train_digest", "podium.split_digest", "podium.test_digest", "podium.source_digest")


@dataclass(frozen=True, kw_only=True)
class _Compression:
    """One call under way. `folder` is temporary; `model` lies in it, its hash and content checked."""

    stores: Stores
    candidate: Candidate
    recipe: Recipe
    data: TrainedOn
    model: Path
    folder: Path
    epochs: int


def compress(what: str | None, *, sparsities: Sequence[float], epochs: int) -> Answer:
    """Prune the model of a run (of a sweep: of the run that `podium promote` would take) to each share of zeros.

    Each share starts from the original, in a process of its own. Raises: InvalidInput if there is no such run;
    Refused if it has no Keras model; PodiumError if its file or data is not what is on record.
    """
    if not sparsities or not all(0.0 < each < 1.0 for each in sparsities):
        raise InvalidInput("--sparsity: give shares between 0 and 1, for example --sparsity 0.5 0.8 0.9.")
    stores = stores_here()
    stores.prepare()
    prepare_store(stores)
    candidate = find_candidate(stores, what)
    say = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="podium-compress-") as place:
        under_way = _open(stores, candidate, Path(place), epochs)
        with made_run(
            stores,
            experiment=query.experiment_name(stores, candidate.run_id),
            name=f"compress {candidate.run_id[:8]}",
            tags=_tags(candidate),
            parameters={"compress.epochs": epochs, "compress.sparsity": json.dumps(sorted(sparsities))},
        ) as run_id:
            made = []
            for share in sorted(set(sparsities)):
                say.print(
                    f"{share:.0%} of the weights to zero, {epochs} epochs of training on", highlight=False
                )
                made.append(_pruned(under_way, run_id, share))
            values = _values(candidate, run_id, epochs, made)
            log_text(stores, run_id, json.dumps(values, indent=1), TABLE_FILE)
    return Answer(values=values, shown=_shown(values), warnings=_warnings(values))


def _open(stores: Stores, candidate: Candidate, folder: Path, epochs: int) -> _Compression:
    run_id = candidate.run_id
    recorded = candidate.tags.get("podium.model_sha256")
    if candidate.tags.get("podium.kind") == "ensemble":
        raise Refused(
            f"run {run_id} is an ensemble: there is no recipe by which it could be trained on.",
            remedy="Compress one of its members: its tag podium.members names them.",
        )
    if recorded is None:
        reason = candidate.tags.get("podium.not_promotable", "it was not trained to its end")
        raise Refused(f"run {run_id} has no Keras model to compress: {reason}.")
    data = data_of_run(stores, run_id, f"run {run_id}")
    model = fetch(stores, run_id, MODEL_FILE, folder)
    if model is None:
        raise PodiumError(f"run {run_id}'s {MODEL_FILE} is missing.")
    check_file(model, recorded)
    if faults := archive_faults(model):
        raise PodiumError(f"run {run_id}'s model must not be loaded: {'; '.join(faults)}.")
    return _Compression(
        stores=stores,
        candidate=candidate,
        recipe=read_recipe(stores, read_run(stores, run_id)),
        data=data,
        model=model,
        folder=folder,
        epochs=epochs,
    )


def _pruned(under_way: _Compression, run_id: str, share: float) -> Pruned:
    """One pruned file, kept on the run as soon as it is there, in a folder of its own."""
    name = f"sparsity-{share:g}"
    folder = under_way.folder / name
    folder.mkdir()
    made = prune(
        under_way.model,
        under_way.data.arrays,
        under_way.recipe,
        sparsity=share,
        epochs=under_way.epochs,
        out=folder / MODEL_FILE,
    )
    recipe = fetch(under_way.stores, under_way.candidate.run_id, RECIPE_FILE, folder)
    assert recipe is not None, "it has just been read"
    log_files(under_way.stores, run_id, sorted(folder.iterdir()), name)
    log_results(
        under_way.stores,
        run_id,
        metrics={
            f"{name}/val_accuracy": made.measures.accuracy,
            f"{name}/gzip_bytes": float(made.measures.gzip_bytes),
        },
        tags={f"podium.model_sha256.{name}": made.sha256},
    )
    return made


def _tags(candidate: Candidate) -> dict[str, str]:
    """Without a parent run: what was compressed is no trial, and must not be ranked among a sweep's."""
    return {
        **{name: candidate.tags[name] for name in DATA_TAGS if name in candidate.tags},
        "podium.kind": "compress",
        "podium.sweep": candidate.sweep,
        "podium.compressed_run": candidate.run_id,
        "podium.command": f"podium compress {candidate.run_id}",
    }


def _values(candidate: Candidate, run_id: str, epochs: int, made: Sequence[Pruned]) -> dict[str, Any]:
    original = made[0].original
    return {
        "run_id": run_id,
        "compressed_run_id": candidate.run_id,
        "epochs": epochs,
        "images": original.images,
        "original": {
            "bytes": original.bytes,
            "gzip_bytes": original.gzip_bytes,
            "accuracy": original.accuracy,
            "loss": original.loss,
        },
        "files": [
            {
                "sparsity": each.sparsity,
                "sparsity_found": each.found,
                "bytes": each.measures.bytes,
                "gzip_bytes": each.measures.gzip_bytes,
                "times_smaller": original.gzip_bytes / each.measures.gzip_bytes,
                "accuracy": each.measures.accuracy,
                "accuracy_lost": original.accuracy - each.measures.accuracy,
                "loss": each.measures.loss,
                "sha256": each.sha256,
                "artifact": f"sparsity-{each.sparsity:g}/{MODEL_FILE}",
            }
            for each in made
        ],
    }


def _warnings(values: Mapping[str, Any]) -> list[str]:
    return [
        f"sparsity {each['sparsity']:g} loses {100 * each['accuracy_lost']:.1f} points of accuracy."
        for each in values["files"]
        if each["accuracy_lost"] > MOST_LOST
    ]


def _shown(values: Mapping[str, Any]) -> list[object]:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("sparsity")
    for heading in ("zeros in the file", "bytes", "after gzip", "smaller", "accuracy", "lost"):
        table.add_column(heading, justify="right", no_wrap=True)
    first = values["original"]
    table.add_row(
        "original", "", f"{first['bytes']:,}", f"{first['gzip_bytes']:,}", "", f"{first['accuracy']:.4f}", ""
    )
    for each in values["files"]:
        table.add_row(
            f"{each['sparsity']:g}",
            f"{each['sparsity_found']:.1%}",
            f"{each['bytes']:,}",
            f"{each['gzip_bytes']:,}",
            f"{each['times_smaller']:.2f}x",
            f"{each['accuracy']:.4f}",
            f"{each['accuracy_lost']:+.4f}",
        )
    return [
        table,
        f"run {values['compressed_run_id']}, on {values['images']} validation images; the files are artifacts of "
        f"run {values['run_id']}",
    ]
