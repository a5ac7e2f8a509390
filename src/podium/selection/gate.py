"""Owns the gate: what must hold before a run may become the champion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from podium.result import Goal, better
from podium.selection.checks import Check, failed

Override = Literal["--unconfirmed", "--anyway"]


class Standing(StrEnum):
    """What a confirmation says of a run."""

    MEDIAN_SEED = "the median seed run of the confirmed winner"
    OTHER_SEED = "a seed run of the confirmed winner, but not the median one"
    NOT_WINNER = "not of the confirmed winner's configuration"
    TRIAL = "a trial of a confirmed sweep, but not a seed run of its winner"
    UNCONFIRMED = "of a sweep that was not confirmed"
    SINGLE = "a single training, not confirmed over fresh seeds"
    ENSEMBLE = (
        "an average of trials that were chosen by their validation score, not confirmed over fresh seeds"
    )


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The present champion's record. `mean` is its configuration's validation mean of `metric`."""

    version: str
    run_id: str
    metric: str
    mean: float | None
    train_digest: str
    test_digest: str | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that the gate looks at; gathered by the caller, nothing is read here.

    `status`: MLflow's status of the run. `metrics`: the run's, of which none may be missing or not finite.
    `mean`: validation mean of `metric` over the configuration's seed runs, the run's own value if there
    are none. `recorded_sha256`: the model file's hash on the run; `actual_sha256`: of the file as it lies
    there now, None where it is missing. `train_digest`, `test_digest`: on the run; `opened_train_digest`,
    `opened_test_digest`: of the data that would be evaluated now; None where there is no test part.
    `not_promotable`: why the model cannot load without its own code, None where it can.
    `checks`: the recipe's own, of the training and, once it was looked at, of the test.
    `unconfirmed`, `anyway`: the reasons given with the flags of these names.
    """

    run_id: str
    status: str
    metric: str
    goal: Goal
    metrics: Mapping[str, float]
    mean: float | None
    standing: Standing
    recorded_sha256: str | None
    actual_sha256: str | None
    train_digest: str
    test_digest: str | None
    opened_train_digest: str
    opened_test_digest: str | None
    champion: Champion | None = None
    not_promotable: str | None = None
    checks: Sequence[Check] = ()
    unconfirmed: str | None = None
    anyway: str | None = None


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One reason against promotion. `override` is the flag that waives it, None where nothing does."""

    code: str
    message: str
    override: Override | None = None


def check(evidence: Evidence) -> list[Refusal]:
    """The refusals that stand, in the order of the checks; none means that the run may be promoted."""
    return [refusal for refusal in _refusals(evidence) if _reason(evidence, refusal) is None]


def waived(evidence: Evidence) -> list[tuple[Refusal, str]]:
    """The refusals that a flag waived, each with the reason that was given; they belong on the record."""
    pairs = [(refusal, _reason(evidence, refusal)) for refusal in _refusals(evidence)]
    return [(refusal, reason) for refusal, reason in pairs if reason is not None]


def _reason(evidence: Evidence, refusal: Refusal) -> str | None:
    given = {"--unconfirmed": evidence.unconfirmed, "--anyway": evidence.anyway}
    reason = given[refusal.override] if refusal.override else None
    return (reason or "").strip() or None  # a flag without a reason waives nothing


def _refusals(evidence: Evidence) -> list[Refusal]:
    return [
        *_run_refusals(evidence),
        *_standing_refusals(evidence),
        *_data_refusals(evidence),
        *_champion_refusals(evidence),
        *_check_refusals(evidence),
        *_model_refusals(evidence),
    ]


def _run_refusals(evidence: Evidence) -> list[Refusal]:
    refusals = []
    if evidence.status != "FINISHED":
        message = f"run {evidence.run_id} is {evidence.status}, only a FINISHED run can be promoted."
        refusals.append(Refusal(code="not-finished", message=message))
    wrong = sorted(name for name, value in evidence.metrics.items() if not math.isfinite(value))
    if wrong:
        message = f"run {evidence.run_id} has metrics that are not finite: {', '.join(wrong)}."
        refusals.append(Refusal(code="not-finite", message=message))
    if evidence.metric not in wrong and (evidence.mean is None or not math.isfinite(evidence.mean)):
        message = f"run {evidence.run_id} has no finite value of {evidence.metric}."
        refusals.append(Refusal(code="no-value", message=message))
    return refusals


def _standing_refusals(evidence: Evidence) -> list[Refusal]:
    if evidence.standing is Standing.MEDIAN_SEED:
        return []
    return [
        Refusal(
            code="unconfirmed",
            message=f"run {evidence.run_id} is {evidence.standing.value}.",
            override="--unconfirmed",
        )
    ]


def _data_refusals(evidence: Evidence) -> list[Refusal]:
    refusals = []
    for part, recorded, opened in (
        ("training", evidence.train_digest, evidence.opened_train_digest),
        ("test", evidence.test_digest, evidence.opened_test_digest),
    ):
        if recorded != opened:
            message = (
                f"the {part} data is not what run {evidence.run_id} was made with: "
                f"recorded {_short(recorded)}, found {_short(opened)}."
            )
            refusals.append(Refusal(code=f"wrong-{part}-data", message=message))
    return refusals


def _champion_refusals(evidence: Evidence) -> list[Refusal]:
    champion = evidence.champion
    if champion is None or champion.run_id == evidence.run_id:
        return []  # the champion typed again is answered from the record, not weighed against itself
    if (champion.train_digest, champion.test_digest) != (evidence.train_digest, evidence.test_digest):
        message = (
            f"champion version {champion.version} was trained or tested on other data "
            f"(training {_short(champion.train_digest)}, test {_short(champion.test_digest)}) than run "
            f"{evidence.run_id} (training {_short(evidence.train_digest)}, "
            f"test {_short(evidence.test_digest)}), so the two cannot be compared."
        )
        return [Refusal(code="other-data", message=message, override="--anyway")]
    if champion.metric != evidence.metric or champion.mean is None or not math.isfinite(champion.mean):
        message = (
            f"champion version {champion.version} has no validation mean of {evidence.metric}, "
            "so the two cannot be compared."
        )
        return [Refusal(code="not-comparable", message=message, override="--anyway")]
    if evidence.mean is not None and not better(evidence.mean, champion.mean, evidence.goal):
        message = (
            f"run {evidence.run_id} has a mean {evidence.metric} of {evidence.mean:.4f}, not better than "
            f"{champion.mean:.4f} of champion version {champion.version}."
        )
        return [Refusal(code="not-better", message=message, override="--anyway")]
    return []


def _check_refusals(evidence: Evidence) -> list[Refusal]:
    missed = failed(evidence.checks)
    if not missed:
        return []
    message = (
        f"run {evidence.run_id} fails checks of its recipe: {', '.join(each.sentence for each in missed)}."
    )
    return [Refusal(code="failed-checks", message=message, override="--anyway")]


def _model_refusals(evidence: Evidence) -> list[Refusal]:
    if evidence.not_promotable is not None:
        message = f"run {evidence.run_id}'s model does not load in plain Keras: {evidence.not_promotable}"
        return [Refusal(code="not-promotable", message=message)]
    if evidence.recorded_sha256 is None or evidence.actual_sha256 is None:
        what = "file is missing" if evidence.actual_sha256 is None else "hash was never recorded"
        message = f"run {evidence.run_id}'s model {what}."
        return [Refusal(code="missing-artifact", message=message)]
    if evidence.recorded_sha256 != evidence.actual_sha256:
        message = (
            f"run {evidence.run_id}'s model file was changed: SHA-256 recorded "
            f"{_short(evidence.recorded_sha256)}, found {_short(evidence.actual_sha256)}."
        )
        return [Refusal(code="tampered-artifact", message=message)]
    return []


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"
