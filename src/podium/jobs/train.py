"""Owns `podium train`: one recipe, one training, one run."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from podium import live
from podium.answer import Answer
from podium.coordinator.bookkeeping import trained
from podium.coordinator.trial import Budget
from podium.engines.base import TrialRecord
from podium.engines.listed import ListedEngine
from podium.errors import SweepError
from podium.packager.packager import PackageRequest
from podium.recipe import Recipe
from podium.session.assembly import cores, crew, make_plan, run_loop
from podium.session.material import Material, gather
from podium.session.pace import is_open, measure
from podium.session.progress import Progress
from podium.stores import stores_here
from podium.sweep_file import recipe_with_assignments
from podium.tracking.run_record import capture_source, keep_source
from podium.tracking.runs import prepare_store

DELIVERY_SECONDS = 120.0
METRIC = "val_accuracy"


def train(path: Path, assignments: Sequence[str], *, data: str | None, seed: int | None) -> Answer:
    """Train a recipe as one run of the experiment named after its file, and log its model."""
    recipe = recipe_with_assignments(path, assignments, data=data, seed=seed)
    material = gather(
        recipe, code=Path(recipe.code) if recipe.code else None, largest_batch=recipe.training.batch_size
    )
    if is_open(recipe):
        recipe = in_best_precision(recipe, material)
    stores = stores_here()
    stores.prepare()
    prepare_store(stores)
    name = f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = stores.sweeps / name
    engine = ListedEngine([{}], study_name=name)
    source = capture_source(material.code)
    with (
        live.locked(folder),
        crew(
            stores,
            experiment=path.stem,
            workers=1,
            threads=cores(),
            log_folder=folder / "logs",
            spool_folder=folder / "spool",
        ) as hands,
    ):
        plan = make_plan(
            material=material,
            recipe=recipe,
            metric=METRIC,
            goal="maximize",
            folder=stores.checkpoints / name,
            packager=hands.packager,
            tags={
                "podium.kind": "train",
                "podium.recipe": str(path),
                "podium.command": f"podium train {path}",
            },
        )
        with Progress(console=Console(stderr=True), metric=METRIC, goal="maximize", total=1) as progress:
            run_loop(
                hands,
                engine=engine,
                plan=plan,
                budget=Budget(),
                observer=progress,
                resume_command="the same command (a single training starts anew)",
            )
        record = engine.trials()[0]
        run_id = hands.recorder.wait_for_run_id(0, DELIVERY_SECONDS)
        keep_source(stores, run_id, source)
        attempt = plan.attempt_folder(0, int(record.attributes.get("attempts") or 1))
        if (attempt / "best.keras").is_file():
            sha256 = trained(record).get("model_sha256")
            model = PackageRequest(run_id=run_id, folder=attempt, kind="model", model_sha256=sha256)
            hands.packager.submit(model)
        failures = hands.packager.drain(DELIVERY_SECONDS)
        hands.deliver(DELIVERY_SECONDS)
        if not failures:
            shutil.rmtree(plan.folder, ignore_errors=True)
    return _answer(record, run_id, failures)


def in_best_precision(recipe: Recipe, material: Material) -> Recipe:
    """The recipe in the precision that one worker with all cores trains it fastest in."""
    pace = measure(
        recipe, material, metric=METRIC, goal="maximize", workers=1, say=Console(stderr=True).print
    )
    return recipe.with_values({"precision": pace.precision})


def _answer(record: TrialRecord, run_id: str, failures: Sequence[str]) -> Answer:
    if record.state != "complete":
        raise SweepError(
            f"the training failed ({record.cause}): {record.message}", remedy=f"See run {run_id}."
        )
    result = trained(record)
    keys = (
        "val_accuracy", "val_loss", "best_epoch", "epochs", "seconds", "images_per_second",
        "weights_sha256", "final_weights_sha256", "seed",
    )  # fmt: skip
    values = {"run_id": run_id, **{key: result.get(key) for key in keys}}
    shown = [
        f"val_accuracy {result['val_accuracy']:.4f}, val_loss {result['val_loss']:.4f} after epoch "
        f"{result['best_epoch']} of {result['epochs']} ({result['seconds']:.0f} s, "
        f"{result['images_per_second']:.0f} images/s)",
        f"run {run_id}",
        f"next: podium rerun {run_id}, or `make ui` to look at it",
    ]
    return Answer(values=values, shown=shown, warnings=failures)
