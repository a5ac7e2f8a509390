"""Owns `podium confirm`: train a sweep's leaders and its baseline again on fresh seeds, and say who won."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from podium import live
from podium.answer import Answer
from podium.coordinator.trial import Budget, Plan
from podium.datasets.splits import load_split
from podium.engines.base import Engine, Proposal
from podium.engines.listed import ListedEngine
from podium.engines.study import list_studies, prepare_storage
from podium.errors import Interrupted, Refused
from podium.selection.confirm import Confirmation, SeedRuns
from podium.selection.confirm import confirm as compare
from podium.selection.verdict import verdict_text
from podium.session.assembly import (
    Crew,
    crew,
    make_plan,
    run_loop,
    threads_each,
    undisturbed,
)
from podium.session.confirm_plan import Candidate, candidates_of, fingerprint, fresh_seeds, proposals
from podium.session.confirmation_table import confirmation_table
from podium.session.material import Material, gather
from podium.session.progress import Progress
from podium.session.recorded_sweep import RecordedSweep, read_recorded_sweep
from podium.stores import Stores, stores_here
from podium.tracking import query
from podium.tracking.artifacts import log_text
from podium.tracking.run_record import capture_source, keep_source, recorded_code
from podium.tracking.runs import prepare_store

DELIVERY_SECONDS = 300.0
RESULT_FILE = "confirmation.json"


def confirm(sweep: str | None, *, top: int | None = None, seeds: int | None = None) -> Answer:
    """Confirm a sweep's winner; goes on where it was stopped, and only shows a finished confirmation."""
    stores = stores_here()
    stores.prepare()
    recorded = read_recorded_sweep(stores, sweep)
    settings = recorded.file.confirm
    candidates = candidates_of(recorded, top or settings.top)
    study = f"{recorded.study}-confirm-{fingerprint(candidates)}"
    folder = stores.sweeps / study
    with live.locked(folder), tempfile.TemporaryDirectory(prefix="podium-code-") as code_folder:
        prepare_store(stores)
        prepare_storage(stores.study_url)
        code = recorded_code(stores, recorded.parent, Path(code_folder))
        recipe = recorded.recipe.model_copy(update={"code": str(code) if code else None})
        material = gather(recipe, code=code, largest_batch=_largest_batch(recorded, candidates))
        _refuse_other_data(recorded, material)
        # More seeds than asked for may be on record; what is on record counts.
        finished = _finished_seeds(stores, study)
        seed_list = fresh_seeds(recorded, max(finished, seeds or settings.seeds))
        engine = ListedEngine(
            proposals(candidates, seed_list),
            study_name=study,
            study_url=stores.study_url,
            goal=recorded.file.epoch_objective.goal,
        )
        try:
            if finished < len(seed_list):
                command = _command(recorded, top, seeds)
                _train(recorded, candidates, seed_list, stores, engine, material, study, command)
            run_id = str(engine.recall("parent_run_id"))
            result = _result(recorded, candidates, seed_list, stores, engine, material)
        finally:
            engine.close()
    return _answer(recorded, result, run_id, candidates, top or settings.top)


def _train(
    recorded: RecordedSweep,
    candidates: Sequence[Candidate],
    seeds: Sequence[int],
    stores: Stores,
    engine: Engine,
    material: Material,
    study: str,
    command: str,
) -> None:
    """Train what is not trained yet, then put the result on the confirmation's run."""
    workers = recorded.file.workers or 1
    objective, folder = recorded.file.epoch_objective, stores.sweeps / study
    total = len(candidates) * len(seeds)
    ended = sum(trial.state != "running" for trial in engine.trials()[:total])
    with crew(
        stores,
        experiment=recorded.parent.experiment,
        workers=workers,
        threads=threads_each(workers),
        log_folder=folder / "logs",
        spool_folder=folder / "spool",
    ) as hands:
        plan = make_plan(
            material=material,
            recipe=recorded.recipe,
            metric=objective.metric,
            goal=objective.goal,
            folder=stores.checkpoints / study,
            packager=hands.packager,
            tags={"podium.kind": "confirm_seed", "podium.sweep": recorded.file.name, "podium.study": study},
        )
        plan = replace(
            plan,
            run_name=lambda proposal: _run_name(candidates, proposal),
            run_tags=lambda proposal: _run_tags(candidates, proposal),
        )
        about = {**plan.tags, **material.data_tags(), "podium.command": command}
        with ExitStack() as held:
            held.enter_context(undisturbed())
            run_id = _open_run(hands, recorded, seeds, engine, study, about)
            try:
                held.close()
                if engine.recall("source_kept") is None:
                    keep_source(stores, run_id, capture_source(None))
                    engine.remember("source_kept", True)
                progress = Progress(
                    console=Console(stderr=True),
                    metric=objective.metric,
                    goal=objective.goal,
                    total=total,
                    status_folder=folder,
                )
                progress.take_over(ended=ended, best=None, best_trial=None)
                with progress:
                    run_loop(
                        hands,
                        engine=engine,
                        plan=plan,
                        budget=Budget(),
                        observer=progress,
                        resume_command=command,
                    )
                failures = hands.packaged(engine, plan, DELIVERY_SECONDS)
                hands.deliver(DELIVERY_SECONDS)
                result = _result(recorded, candidates, seeds, stores, engine, material)
                _conclude(hands, engine, plan, result, failures)
            except BaseException as error:
                hands.recorder.end_parent(status="KILLED", metrics={}, tags={"podium.state": "interrupted"})
                if isinstance(error, KeyboardInterrupt):
                    raise Interrupted("interrupted.", resume_command=command) from error
                raise


def _open_run(
    hands: Crew,
    recorded: RecordedSweep,
    seeds: Sequence[int],
    engine: Engine,
    study: str,
    tags: Mapping[str, str],
) -> str:
    """Make the confirmation's run under the sweep's, or take it up again; answers its id."""
    known = engine.recall("parent_run_id")
    if known is not None:
        hands.recorder.reopen_parent(str(known))
        return str(known)
    run_id = hands.recorder.open_parent(
        name=f"confirm {recorded.file.name}",
        parameters={"seeds": len(seeds), "sweep_study": recorded.study},
        tags={
            **tags,
            "podium.kind": "confirm",
            "podium.state": "running",
            "podium.key": f"{recorded.parent.run_id}/{study}",
            "mlflow.parentRunId": recorded.parent.run_id,
        },
    )
    engine.remember("parent_run_id", run_id)
    return run_id


def _conclude(hands: Crew, engine: Engine, plan: Plan, result: Confirmation, failures: Sequence[str]) -> None:
    """Put the result on the confirmation's run, and drop what only another start would need."""
    run_id = str(engine.recall("parent_run_id"))
    log_text(hands.stores, run_id, json.dumps(result.document(), indent=1), RESULT_FILE)
    winner = result.winner
    tags = {
        "podium.state": "finished",
        "podium.winner": winner.name,
        "podium.winner_run_ids": json.dumps(list(winner.run_ids)),
        "podium.winner_values": json.dumps(list(winner.values)),
        "podium.winner_mean": json.dumps(winner.mean),
        "podium.winner_std": json.dumps(winner.std),
        "podium.baseline_run_ids": json.dumps(list(result.baseline.run_ids)),
        "podium.significant": json.dumps(result.significant),
        "podium.seeds": json.dumps(list(result.seeds)),
        "podium.finding": " ".join(verdict_text(result)),
    }
    if failures:
        tags["podium.packaging_failures"] = "\n".join(failures)
    metrics = {
        f"winner_{name}": value for name in ("mean", "std") if (value := getattr(winner, name)) is not None
    }
    hands.recorder.end_parent(status="FINISHED", metrics=metrics, tags=tags)
    hands.deliver(DELIVERY_SECONDS)
    if not failures:
        shutil.rmtree(plan.folder, ignore_errors=True)
    engine.remember("finished", len(result.seeds))


def _result(
    recorded: RecordedSweep,
    candidates: Sequence[Candidate],
    seeds: Sequence[int],
    stores: Stores,
    engine: Engine,
    material: Material,
) -> Confirmation:
    """The statistics over the study's values; a seed run that failed has none."""
    objective = recorded.file.epoch_objective
    runs = query.children(stores, str(engine.recall("parent_run_id")))
    run_ids = dict(zip(runs["trial"], runs["run_id"], strict=True))
    trials = engine.trials()
    groups = []
    for place, candidate in enumerate(candidates):
        own = [trials[place + number * len(candidates)] for number in range(len(seeds))]
        groups.append(
            SeedRuns(
                name=candidate.name,
                params=candidate.parameters,
                run_ids=[str(run_ids[trial.number]) for trial in own],
                values=[trial.value if trial.state == "complete" else None for trial in own],
            )
        )
    train, validation = load_split(material.arrays.split)
    return compare(
        groups[0],
        groups[1:],
        metric=objective.metric,
        goal=objective.goal,
        seeds=seeds,
        n_validation=len(validation),
        n_train=len(train),
    )


def _answer(
    recorded: RecordedSweep,
    result: Confirmation,
    run_id: str,
    candidates: Sequence[Candidate],
    top: int,
) -> Answer:
    values = {
        "sweep": recorded.file.name,
        "parent_run_id": recorded.parent.run_id,
        "run_id": run_id,
        **result.document(),
    }
    found = sum(candidate.trial is not None for candidate in candidates)
    warnings = []
    if found < top:
        warnings.append(
            f"{found} of the {top} leaders asked for: there are no more different complete trials."
        )
    next_command = f"next: podium promote {recorded.file.name}"
    shown: list[object] = [confirmation_table(result), *verdict_text(result), next_command]
    return Answer(values=values, shown=shown, warnings=warnings)


def _run_name(candidates: Sequence[Candidate], proposal: Proposal) -> str:
    seed = proposal.parameters["training.seed"]
    return f"{candidates[proposal.number % len(candidates)].name}, seed {seed}"


def _run_tags(candidates: Sequence[Candidate], proposal: Proposal) -> dict[str, str]:
    return {
        "podium.confirm_candidate": candidates[proposal.number % len(candidates)].name,
        "podium.confirm_seed": str(proposal.parameters["training.seed"]),
    }


def _finished_seeds(stores: Stores, study: str) -> int:
    """On how many seeds this confirmation was finished; 0 if it was not."""
    facts = {known.name: known.facts for known in list_studies(stores.study_url)}
    return int(facts.get(study, {}).get("finished") or 0)


def _largest_batch(recorded: RecordedSweep, candidates: Sequence[Candidate]) -> int:
    return max(recorded.recipe.with_values(candidate.changes).training.batch_size for candidate in candidates)


def _refuse_other_data(recorded: RecordedSweep, material: Material) -> None:
    expected, actual = recorded.parent.tags.get("podium.train_digest"), material.dataset.train_digest
    if expected != actual:
        raise Refused(
            f"the data '{material.dataset.reference}' is not what sweep {recorded.file.name} was searched on: its "
            f"train digest is {actual}, and the sweep's is {expected}.",
            remedy="Put the recorded data back in its place, or run the sweep again on the new data.",
        )


def _command(recorded: RecordedSweep, top: int | None, seeds: int | None) -> str:
    words = ["podium", "confirm", recorded.parent.run_id]
    for name, value in (("--top", top), ("--seeds", seeds)):
        words += [name, str(value)] if value is not None else []
    return " ".join(words)
