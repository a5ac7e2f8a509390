"""Owns `podium promote`: check a run, prove its model, look at the test set once, make it the champion."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from podium.answer import Answer
from podium.errors import PodiumError, Refused
from podium.packager.logged_model import log_model
from podium.selection import checks, gate
from podium.selection.gate import Refusal
from podium.session.candidate import find_candidate, sweep_name
from podium.session.promotion import (
    PREDICTIONS_FILE,
    Promotion,
    PromotionRefused,
    check_name,
    gather,
    looks,
    promotion_values,
    refusal_of,
)
from podium.session.publication import Publication, description, version_tags, write_artifacts
from podium.session.training_checks import recorded_settings
from podium.stores import stores_here
from podium.tracking import registry
from podium.tracking.artifacts import fetch_model, log_files
from podium.tracking.ledger import Ledger
from podium.tracking.runs import prepare_store
from podium.verification.clean_process import CleanProcess, VerificationRefused

ARTIFACT_FOLDER = "promotion"
TOLERANCE, REDUCED_TOLERANCE = 1e-5, 1e-2


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
    check_name(model)
    stores = stores_here()
    stores.prepare()
    prepare_store(stores)
    candidate = find_candidate(stores, what)
    with tempfile.TemporaryDirectory(prefix="podium-promote-") as folder:
        promotion = gather(stores, candidate, model, Path(folder), unconfirmed, anyway, again)
        refusals = gate.check(promotion.evidence)
        if refusals:
            raise PromotionRefused(refusals, promotion_values(promotion.model, candidate.run_id))
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
    check_name(model)
    stores = stores_here()
    stores.prepare()
    prepare_store(stores)
    name = model or sweep_name(stores, what)
    try:
        now, before = registry.rollback(stores, name)
    except Refused as error:
        refusal = Refusal(code="nothing-before", message=error.message)
        raise PromotionRefused([refusal], promotion_values(name, None)) from error
    tags = registry.read_version(stores, name, now).tags
    values = {
        **promotion_values(name, tags.get("podium.run_id")),
        "version": now,
        "alias": registry.CHAMPION,
        "previous_version": before,
        "test_accuracy": json.loads(tags.get("podium.test_accuracy", "null")),
        "ledger_count": json.loads(tags.get("podium.ledger_count", "null")),
    }
    return Answer(
        values=values, shown=[f"{name}: version {now} is the champion again, version {before} the challenger"]
    )


def _publish(promotion: Promotion, ledger: Ledger) -> tuple[Promotion, int]:
    """Package, prove, test, describe, create; answers the promotion with the test's check in its evidence, and
    the new version, which no alias points at yet."""
    candidate, stores = promotion.candidate, promotion.stores
    if promotion.predictions is None:
        raise refusal_of(
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
            raise refusal_of(promotion, ledger, refusal.code, str(refusal)) from refusal
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
        ledger_count=looks(promotion, ledger),
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
        values = promotion_values(promotion.model, promotion.candidate.run_id)
        values |= {"ledger_count": looks(promotion, ledger), "test_accuracy": accuracy}
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
        raise refusal_of(promotion, ledger, "foreign-model", error.message) from error


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
        refusal = refusal_of(promotion, ledger, "looked-before", error.message)
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
    count = looks(promotion, ledger)
    waived = gate.waived(promotion.evidence)
    values = {
        **promotion_values(promotion.model, candidate.run_id),
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
