"""Owns `podium promote`: check a run, prove its model, look at the test set once, make it the champion."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from podium.answer import Answer
from podium.datasets.prepare import Dataset, prepare
from podium.errors import DatasetError, PodiumError, Refused
from podium.packager.logged_model import log_model, sha256_of
from podium.recipe_sections import DataSettings
from podium.selection import checks, gate
from podium.selection.gate import Champion, Evidence, Refusal
from podium.session.candidate import Candidate, find_candidate, sweep_name
from podium.session.publication import Publication, description, version_tags, write_artifacts
from podium.session.training_checks import recorded_settings
from podium.stores import Stores, dataset_cache, stores_here
from podium.tracking import registry
from podium.tracking.artifacts import fetch, fetch_model, log_files
from podium.tracking.ledger import Ledger
from podium.tracking.runs import prepare_store
from podium.verification.clean_process import CleanProcess, VerificationRefused

MODEL_FILE, PREDICTIONS_FILE = "best.keras", "predictions.npz"
ARTIFACT_FOLDER = "promotion"
TOLERANCE, REDUCED_TOLERANCE = 1e-5, 1e-2


class PromotionRefused(Refused):
    """A gate said no; `values` are the command's JSON keys."""

    def __init__(self, refusals: Sequence[Refusal], values: Mapping[str, Any]) -> None:
        # What no flag waives comes first: waiving the others would be in vain.
        ordered = sorted(refusals, key=lambda refusal: refusal.override is not None)
        flags = " ".join(dict.fromkeys(f'{each.override} "WHY"' for each in ordered if each.override))
        all_waivable = all(each.override for each in ordered)
        super().__init__(
            "\n".join(each.message for each in ordered),
            remedy=f"If it is worth it all the same, say why: {flags}" if all_waivable else None,
        )
        self.values = {**values, "refusals": [asdict(each) for each in ordered]}


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """One promotion under way. `folder` is temporary; `model_file` and `predictions` lie in it."""

    stores: Stores
    model: str
    candidate: Candidate
    evidence: Evidence
    dataset: Dataset
    folder: Path
    predictions: Path | None
    model_file: Path | None
    again: str | None

    @property
    def sha256(self) -> str:
        """Of the model file. The gate has seen to it that there is one."""
        assert self.evidence.actual_sha256 is not None
        return self.evidence.actual_sha256


def promote(
    what: str | None,
    *,
    model: str | None = None,
    unconfirmed: str | None = None,
    anyway: str | None = None,
    again: str | None = None,
) -> Answer:
    """Make the run that `what` stands for (default: of the latest sweep) the champion of `model`.

    Raises: PromotionRefused; the aliases are then where they were, as after any other error.
    """
    stores = stores_here()
    stores.prepare()
    prepare_store(stores)
    candidate = find_candidate(stores, what)
    with tempfile.TemporaryDirectory(prefix="podium-promote-") as folder:
        promotion = _gather(stores, candidate, model, Path(folder), unconfirmed, anyway, again)
        refusals = gate.check(promotion.evidence)
        if refusals:
            raise PromotionRefused(refusals, _values(promotion.model, candidate.run_id))
        ledger = Ledger(stores)
        try:
            version = registry.find_version(
                stores, model=promotion.model, run_id=candidate.run_id, model_sha256=promotion.sha256
            )
            known = version is not None
            if version is None:
                promotion, version = _publish(promotion, ledger)
            registry.set_champion(stores, promotion.model, version)
            return _answer(promotion, ledger, version, known)
        finally:
            ledger.close()


def rollback(what: str | None, *, model: str | None = None) -> Answer:
    """Swap champion and challenger of a model (default: the one named after the sweep)."""
    stores = stores_here()
    stores.prepare()
    prepare_store(stores)
    name = model or sweep_name(stores, what)
    try:
        now, before = registry.rollback(stores, name)
    except Refused as error:
        refusal = Refusal(code="nothing-before", message=error.message)
        raise PromotionRefused([refusal], _values(name, None)) from error
    tags = registry.read_version(stores, name, now).tags
    values = {
        **_values(name, tags.get("podium.run_id")),
        "version": now,
        "alias": registry.CHAMPION,
        "previous_version": before,
        "test_accuracy": json.loads(tags.get("podium.test_accuracy", "null")),
        "ledger_count": json.loads(tags.get("podium.ledger_count", "null")),
    }
    return Answer(
        values=values, shown=[f"{name}: version {now} is the champion again, version {before} the challenger"]
    )


def _gather(
    stores: Stores,
    candidate: Candidate,
    model: str | None,
    folder: Path,
    unconfirmed: str | None,
    anyway: str | None,
    again: str | None,
) -> Promotion:
    """Everything that the gate looks at: run, champion, files and data as they are now."""
    name = model or candidate.sweep
    try:
        dataset = prepare(_data_settings(candidate.params), cache=dataset_cache())
    except DatasetError as error:
        refusal = Refusal(
            code="missing-data", message=f"the data of run {candidate.run_id} cannot be read: {error}"
        )
        raise PromotionRefused([refusal], _values(name, candidate.run_id)) from error
    model_file = fetch(stores, candidate.run_id, MODEL_FILE, folder)
    evidence = Evidence(
        run_id=candidate.run_id,
        status=candidate.status,
        metric=candidate.metric,
        goal=candidate.goal,
        metrics=candidate.metrics,
        mean=candidate.mean,
        standing=candidate.standing,
        recorded_sha256=candidate.tags.get("podium.model_sha256"),
        actual_sha256=sha256_of(model_file) if model_file is not None else None,
        train_digest=candidate.tags["podium.train_digest"],
        test_digest=candidate.tags.get("podium.test_digest"),
        opened_train_digest=dataset.train_digest,
        opened_test_digest=dataset.test_digest,
        champion=_champion(stores, name),
        not_promotable=candidate.tags.get("podium.not_promotable"),
        checks=checks.of_training(recorded_settings(candidate.params), _best_epoch(candidate.metrics)),
        unconfirmed=unconfirmed,
        anyway=anyway,
    )
    return Promotion(
        stores=stores,
        model=name,
        candidate=candidate,
        evidence=evidence,
        dataset=dataset,
        folder=folder,
        model_file=model_file,
        predictions=fetch(stores, candidate.run_id, PREDICTIONS_FILE, folder),
        again=again,
    )


def _publish(promotion: Promotion, ledger: Ledger) -> tuple[Promotion, int]:
    """Package, prove, test, describe, create; answers the promotion with the test's check in its evidence, and
    the new version, which no alias points at yet."""
    candidate, stores = promotion.candidate, promotion.stores
    if promotion.predictions is None:
        raise _refused(
            promotion, ledger, "missing-artifact", f"run {candidate.run_id}'s {PREDICTIONS_FILE} is missing."
        )
    model_id = _package(promotion, ledger)
    reduced = candidate.params.get("precision", "float32") != "float32"
    with CleanProcess() as process:
        try:
            proof = process.verify(
                folder=fetch_model(stores, model_id, promotion.folder / "package"),
                sha256=promotion.sha256,
                predictions=promotion.predictions,
                tolerance=REDUCED_TOLERANCE if reduced else TOLERANCE,
                same_classes=reduced,
            )
        except VerificationRefused as refusal:
            raise _refused(promotion, ledger, refusal.code, str(refusal)) from refusal
        look, test = _test(promotion, ledger, process)
    promotion = _with_test_check(promotion, ledger, None if test is None else test["accuracy"])
    published = Publication(
        model=promotion.model,
        candidate=candidate,
        dataset=promotion.dataset,
        waived=gate.waived(promotion.evidence),
        proof=proof,
        test=test,
        look=look,
        ledger_count=_count(promotion, ledger),
        tracking_uri=stores.tracking_uri,
        checks=[each.sentence for each in promotion.evidence.checks],
    )
    files = write_artifacts(published, promotion.folder / ARTIFACT_FOLDER)
    log_files(stores, candidate.run_id, files, ARTIFACT_FOLDER)
    version = registry.create_version(
        stores,
        model=promotion.model,
        model_id=model_id,
        run_id=candidate.run_id,
        tags=version_tags(published),
        description=description(published),
    )
    return promotion, version


def _with_test_check(promotion: Promotion, ledger: Ledger, accuracy: float | None) -> Promotion:
    """The promotion with the recipe's check of the test accuracy among its evidence. Raises: PromotionRefused.

    The look stays on record: with a reason, the next call goes on from its result and looks no second time.
    """
    settings = recorded_settings(promotion.candidate.params)
    of_test = checks.of_test(settings, accuracy)
    if not of_test:
        return promotion
    evidence = replace(promotion.evidence, checks=[*promotion.evidence.checks, *of_test])
    refusals = gate.check(evidence)
    if refusals:
        values = _values(promotion.model, promotion.candidate.run_id)
        values |= {"ledger_count": _count(promotion, ledger), "test_accuracy": accuracy}
        raise PromotionRefused(refusals, values)
    return replace(promotion, evidence=evidence)


def _package(promotion: Promotion, ledger: Ledger) -> str:
    assert promotion.model_file is not None
    try:
        return log_model(
            promotion.stores,
            run_id=promotion.candidate.run_id,
            model_file=promotion.model_file,
            sha256=promotion.sha256,
        )
    except PodiumError as error:  # it is about the file, never about the store
        raise _refused(promotion, ledger, "foreign-model", error.message) from error


def _test(
    promotion: Promotion, ledger: Ledger, process: CleanProcess
) -> tuple[int | None, Mapping[str, Any] | None]:
    """The look at the test set and its result: from the record if there is one, None without a test part."""
    dataset = promotion.dataset
    if dataset.test_digest is None or dataset.test_images is None or dataset.test_labels is None:
        return None, None
    known = ledger.find(test_digest=dataset.test_digest, model_sha256=promotion.sha256)
    if known is not None:
        return known.id, known.result
    try:
        look = ledger.intend(
            test_digest=dataset.test_digest,
            model_sha256=promotion.sha256,
            sweep=promotion.candidate.sweep,
            why=f"promote run {promotion.candidate.run_id} as {promotion.model}",
            again=promotion.again,
        )
    except Refused as error:
        refusal = _refused(promotion, ledger, "looked-before", error.message)
        refusal.remedy = error.remedy
        raise refusal from error
    probabilities = promotion.folder / ARTIFACT_FOLDER / "test_probabilities.npz"
    probabilities.parent.mkdir()
    result = process.evaluate(images=dataset.test_images, labels=dataset.test_labels, out=probabilities)
    ledger.record(look, result)
    return look, result


def _answer(promotion: Promotion, ledger: Ledger, version: int, known: bool) -> Answer:
    candidate = promotion.candidate
    tags = registry.read_version(promotion.stores, promotion.model, version).tags
    challenger = registry.challenger(promotion.stores, promotion.model)
    previous = challenger.version if challenger is not None else None
    accuracy = json.loads(tags["podium.test_accuracy"])
    count = _count(promotion, ledger)
    waived = gate.waived(promotion.evidence)
    values = {
        **_values(promotion.model, candidate.run_id),
        "version": version,
        "alias": registry.CHAMPION,
        "previous_version": previous,
        "test_accuracy": accuracy,
        "ledger_count": count,
    }
    shown = [
        f"{promotion.model}: version {version} is the champion"
        + (f", version {previous} the challenger" if previous is not None else ""),
        f"run {candidate.run_id}: {candidate.standing}",
        "the data has no test part, so there is no test accuracy"
        if accuracy is None
        else f"test accuracy {accuracy:.4f}"
        + (" (from the record; nothing was evaluated)" if known else "")
        + f"; looks of {candidate.sweep} at this test set: {count}",
        f"load it with: mlflow.keras.load_model('models:/{promotion.model}@{registry.CHAMPION}')",
    ]
    return Answer(
        values=values, shown=shown, warnings=[f"{refusal.message} Waived: {why}" for refusal, why in waived]
    )


def _refused(promotion: Promotion, ledger: Ledger, code: str, message: str) -> PromotionRefused:
    values = _values(promotion.model, promotion.candidate.run_id)
    values["ledger_count"] = _count(promotion, ledger)
    return PromotionRefused([Refusal(code=code, message=message)], values)


def _count(promotion: Promotion, ledger: Ledger) -> int:
    digest = promotion.dataset.test_digest
    return 0 if digest is None else ledger.count(test_digest=digest, sweep=promotion.candidate.sweep)


def _champion(stores: Stores, model: str) -> Champion | None:
    version = registry.champion(stores, model)
    if version is None:
        return None
    mean = version.tags.get("podium.mean")
    return Champion(
        version=str(version.version),
        run_id=version.run_id or "",
        metric=version.tags.get("podium.metric", ""),
        mean=float(mean) if mean else None,
        train_digest=version.tags.get("podium.train_digest", ""),
        test_digest=version.tags.get("podium.test_digest"),
    )


def _best_epoch(metrics: Mapping[str, float]) -> dict[str, float]:
    """A run's metrics of its best epoch, by the names that they have in an epoch."""
    prefix = "best_"
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}


def _data_settings(params: Mapping[str, str]) -> DataSettings:
    """What decides the pixels, from a run's recorded parameters."""
    size = params.get("data.image_size", "None")
    return DataSettings(
        reference=params.get("data.reference", "unknown"), image_size=None if size == "None" else int(size)
    )


def _values(model: str, run_id: str | None) -> dict[str, Any]:
    keys = ("version", "alias", "previous_version", "test_accuracy", "ledger_count")
    return {"model": model, "run_id": run_id, **dict.fromkeys(keys), "refusals": []}
