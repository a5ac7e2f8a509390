"""Owns what a promotion knows of its run: model, evidence for the gate, data, and how a refusal is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from podium.datasets.prepare import Dataset, prepare
from podium.errors import DatasetError, InvalidInput, Refused
from podium.packager.logged_model import sha256_of
from podium.recipe_sections import DataSettings
from podium.selection import checks
from podium.selection.gate import Champion, Evidence, Refusal
from podium.session.candidate import Candidate
from podium.session.training_checks import recorded_settings
from podium.stores import Stores, dataset_cache
from podium.tracking import registry
from podium.tracking.artifacts import fetch
from podium.tracking.ledger import Ledger

MODEL_FILE, PREDICTIONS_FILE = "best.keras", "predictions.npz"


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


def check_name(model: str | None) -> None:
    """Raises: InvalidInput for what MLflow takes for no model's name. That is found out before anything is tested."""
    if model is not None and (not model.strip() or set(model) & set("/:'\"\\")):
        raise InvalidInput(f"--model: got '{model}', need a name without / : \\ and quotes.")


def gather(
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
        raise PromotionRefused([refusal], promotion_values(name, candidate.run_id)) from error
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


def refusal_of(promotion: Promotion, ledger: Ledger, code: str, message: str) -> PromotionRefused:
    """A refusal with the keys of the command's JSON, the number of looks at the test set among them."""
    values = promotion_values(promotion.model, promotion.candidate.run_id)
    values["ledger_count"] = looks(promotion, ledger)
    return PromotionRefused([Refusal(code=code, message=message)], values)


def looks(promotion: Promotion, ledger: Ledger) -> int:
    """How often the sweep has looked at this test set."""
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


def promotion_values(model: str, run_id: str | None) -> dict[str, Any]:
    """All keys of the command's JSON, empty but for these two."""
    keys = ("version", "alias", "previous_version", "test_accuracy", "ledger_count")
    return {"model": model, "run_id": run_id, **dict.fromkeys(keys), "refusals": []}
