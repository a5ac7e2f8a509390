"""Owns `podium rerun`: repeat a run from its record alone, and say whether it is the same to the bit."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from rich.console import Console

from podium import live
from podium.answer import Answer
from podium.coordinator.trial import Budget
from podium.engines.listed import ListedEngine
from podium.errors import Refused, SweepError
from podium.recipe import Recipe
from podium.selection.rerun import RerunVerdict, Trained, judge
from podium.session.assembly import crew, make_plan, run_loop
from podium.session.material import Material, gather
from podium.session.progress import Progress
from podium.stores import Stores, stores_here
from podium.tracking import query
from podium.tracking.run_record import (
    RunRecord,
    capture_source,
    keep_source,
    read_recipe,
    read_run,
    recorded_code,
)

DELIVERY_SECONDS = 120.0
REPEATABLE = ("complete", "pruned")


def rerun(run_id: str) -> Answer:
    """Train a run again by its recorded recipe, data, code, seeds and threads; exit code 1 if it differs."""
    stores = stores_here()
    stores.prepare()
    record = read_run(stores, query.whole_run_id(stores, run_id))
    _refuse_what_cannot_be_repeated(record)
    recipe = read_recipe(stores, record)
    name = f"rerun-{record.run_id[:8]}-{time.strftime('%Y%m%d-%H%M%S')}"
    with tempfile.TemporaryDirectory(prefix="podium-code-") as folder:
        code = recorded_code(stores, record, Path(folder))
        recipe = recipe.model_copy(update={"code": str(code) if code else None})
        material = gather(recipe, code=code, largest_batch=recipe.training.batch_size)
        _refuse_other_data(record, material)
        repeat, verdict, failures = _repeat(stores, record, recipe, material, name)
    values = {
        "verdict": verdict.verdict,
        "original_run_id": record.run_id,
        "run_id": repeat.run_id,
        "differences": verdict.document(),
    }
    shown = [*verdict.sentences(), f"original {record.run_id}, repeat {repeat.run_id}"]
    exit_code = 1 if verdict.verdict == "differs" else 0
    return Answer(values=values, shown=shown, warnings=failures, exit_code=exit_code)


def _repeat(
    stores: Stores, record: RunRecord, recipe: Recipe, material: Material, name: str
) -> tuple[RunRecord, RerunVerdict, list[str]]:
    """Train as a run of the same experiment and put the verdict on it."""
    folder = stores.sweeps / name
    # A pruned training is repeated as far as it went.
    epochs = record.epochs if record.state == "pruned" else record.epochs_planned
    engine = ListedEngine([{}], study_name=name, goal=record.goal, epochs=epochs)
    source = capture_source(material.code)
    with (
        live.locked(folder),
        crew(
            stores,
            experiment=record.experiment,
            workers=1,
            threads=int(record.tags["podium.threads"]),
            log_folder=folder / "logs",
            spool_folder=folder / "spool",
        ) as hands,
    ):
        plan = make_plan(
            material=material,
            recipe=recipe,
            metric=record.metric,
            goal=record.goal,
            folder=stores.checkpoints / name,
            packager=hands.packager,
            tags={
                "podium.kind": "rerun",
                "podium.rerun_of": record.run_id,
                "podium.command": f"podium rerun {record.run_id}",
            },
        )
        with Progress(
            console=Console(stderr=True), metric=record.metric, goal=record.goal, total=1
        ) as progress:
            run_loop(
                hands,
                engine=engine,
                plan=plan,
                budget=Budget(),
                observer=progress,
                resume_command=f"podium rerun {record.run_id}",
            )
        repeat_id = hands.recorder.wait_for_run_id(0, DELIVERY_SECONDS)
        keep_source(stores, repeat_id, source)
        hands.deliver(DELIVERY_SECONDS)
        trial = engine.trials()[0]
        if trial.state != "complete":
            raise SweepError(
                f"the repeat failed ({trial.cause}), and run {record.run_id} had not: {trial.message}",
                remedy=f"See run {repeat_id}.",
            )
        repeat = read_run(stores, repeat_id)
        verdict = judge(_trained(record), _trained(repeat))
        hands.recorder.annotate(
            repeat_id,
            {"podium.rerun_verdict": verdict.verdict, "podium.finding": " ".join(verdict.sentences())},
        )
        failures = hands.packager.drain(DELIVERY_SECONDS)
        hands.deliver(DELIVERY_SECONDS)
        if not failures:
            shutil.rmtree(plan.folder, ignore_errors=True)
    return repeat, verdict, failures


def _trained(record: RunRecord) -> Trained:
    return Trained(
        curve=record.curve,
        epochs=record.epochs,
        weights_sha256=record.tags.get("podium.weights_sha256"),
        final_weights_sha256=record.tags.get("podium.final_weights_sha256"),
        facts={
            name.removeprefix("podium."): value
            for name, value in record.tags.items()
            if name.startswith("podium.")
        },
    )


def _refuse_what_cannot_be_repeated(record: RunRecord) -> None:
    if record.kind in ("sweep", "confirm"):
        raise Refused(
            f"run {record.run_id} is a {record.kind}'s parent run: it trained nothing itself.",
            remedy="Give the id of one of its child runs: podium compare lists them.",
        )
    if twin := record.tags.get("podium.duplicate_of"):
        raise Refused(
            f"run {record.run_id} trained nothing: its trial is a duplicate of trial {twin}.",
            remedy=f"Repeat the run of trial {twin} instead.",
        )
    if record.state not in REPEATABLE or not record.curve:
        reason = record.tags.get("podium.reason", "").partition("\n")[0]
        raise Refused(
            f"run {record.run_id} is {record.state}{f' ({reason})' if reason else ''}: "
            "it has no final weights to compare a repeat with.",
            remedy="Only a run that was trained to its end, or pruned, can be repeated.",
        )
    needed = ("podium.threads", "podium.train_digest", "podium.split_digest", "podium.final_weights_sha256")
    missing = [name for name in needed if name not in record.tags]
    if missing or record.epochs is None or record.epochs_planned is None:
        raise Refused(
            f"run {record.run_id} was not recorded by this version of Podium: "
            f"{', '.join(missing) or 'its number of epochs'} is not on record."
        )


def _refuse_other_data(record: RunRecord, material: Material) -> None:
    now = {
        "train_digest": material.dataset.train_digest,
        "split_digest": material.arrays.split_digest,
        "test_digest": material.dataset.test_digest,
    }
    for name, actual in now.items():
        recorded = record.tags.get(f"podium.{name}")
        if recorded != actual:
            raise Refused(
                f"the data '{material.dataset.reference}' is not what run {record.run_id} was trained on: its "
                f"{name.replace('_', ' ')} is {actual}, and the run's is {recorded}.",
                remedy="Put the recorded data back in its place; a repeat on other data proves nothing.",
            )
