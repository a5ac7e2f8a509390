"""Owns what is put on record of a promotion: a version's tags, its description, the card and the pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from podium.datasets.prepare import Dataset
from podium.packager.logged_model import MODEL_PLACE
from podium.reporting import model_card
from podium.reporting.evaluation_plots import Example, confusion_matrix, prediction_grid
from podium.reporting.model_card import Card, TestFacts
from podium.reporting.style import to_png
from podium.selection.gate import Refusal, Standing
from podium.session.candidate import Candidate
from podium.stores import redacted

LONGEST_TAG = 4_000
LONGEST_VERSION_TAG = 100_000
CLASS_NAMES_TAG = "podium.class_names"
CARD_FILE = "model_card.md"


@dataclass(frozen=True, kw_only=True)
class Publication:
    """All that is known when a version is about to be created.

    `proof` is what the clean process found; `test` the test's result, None where the data has no test part;
    `look` its number in the ledger; `ledger_count` how often the sweep has looked at this test set; `checks` what the
    recipe's checks came to, in words.
    """

    model: str
    candidate: Candidate
    dataset: Dataset
    waived: Sequence[tuple[Refusal, str]]
    proof: Mapping[str, Any]
    test: Mapping[str, Any] | None
    look: int | None
    ledger_count: int
    tracking_uri: str
    checks: Sequence[str] = ()


def version_tags(published: Publication) -> dict[str, str]:
    """The evidence of every step, as tags of the version."""
    candidate, dataset, test = published.candidate, published.dataset, published.test
    tags: dict[str, object] = {
        "run_id": candidate.run_id,
        "sweep": candidate.sweep,
        "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "standing": candidate.standing.value,
        "metric": candidate.metric,
        "goal": candidate.goal,
        "mean": candidate.mean,
        "std": candidate.std,
        "values": json.dumps(candidate.values),
        "train_digest": dataset.train_digest,
        "split_digest": candidate.tags.get("podium.split_digest"),
        "test_digest": dataset.test_digest,
        "source_digest": dataset.source_digest,
        "model_sha256": published.proof["sha256"],
        "waived": json.dumps([{"code": refusal.code, "why": why} for refusal, why in published.waived]),
        "verified": json.dumps(published.proof),
        "ledger_look": published.look,
        "ledger_count": published.ledger_count,
        "test_accuracy": "null" if test is None else json.dumps(test["accuracy"]),
    }
    if test is not None:
        for name in ("images", "loss", "class_accuracy", "calibration_error"):
            tags[f"test_{name}"] = json.dumps(test[name])
    texts = {f"podium.{name}": str(value)[:LONGEST_TAG] for name, value in tags.items() if value is not None}
    return {**texts, **class_name_tags(dataset.class_names)}


def class_name_tags(class_names: Sequence[str]) -> dict[str, str]:
    """The class names as a version's tag; none if they are longer than MLflow takes, since half a list is wrong."""
    text = json.dumps(class_names)
    return {CLASS_NAMES_TAG: text} if len(text) <= LONGEST_VERSION_TAG else {}


def description(published: Publication) -> str:
    """The card's summary."""
    return model_card.summary(_card(published))


def write_artifacts(published: Publication, folder: Path) -> list[Path]:
    """Write the card, and with a test its result and two pictures, into `folder`; answers all files there."""
    folder.mkdir(exist_ok=True)
    (folder / CARD_FILE).write_text(model_card.render(_card(published)), encoding="utf-8")
    test, dataset = published.test, published.dataset
    if test is not None:
        (folder / "test.json").write_text(json.dumps(test, indent=1), encoding="utf-8")
        title = f"{published.model} on the {test['images']} test images: accuracy {test['accuracy']:.4f}"
        matrix = confusion_matrix(np.array(test["confusion"]), dataset.class_names, title=title)
        (folder / "confusion_matrix.png").write_bytes(to_png(matrix))
        (folder / "predictions.png").write_bytes(to_png(prediction_grid(_examples(published), title=title)))
    return sorted(folder.iterdir())


def _examples(published: Publication) -> list[Example]:
    test, dataset = published.test, published.dataset
    assert test is not None
    assert dataset.test_images is not None
    images = np.load(dataset.test_images, mmap_mode="r", allow_pickle=False)
    return [
        Example(
            image=np.asarray(images[example["index"]]),
            label=dataset.class_names[example["label"]],
            predicted=dataset.class_names[example["predicted"]],
            confidence=example["confidence"],
        )
        for example in test["examples"]
    ]


def _card(published: Publication) -> Card:
    candidate, dataset, test = published.candidate, published.dataset, published.test
    height, width, channels = dataset.image_shape
    return Card(
        model=published.model,
        what=(
            f"A Keras network that tells {len(dataset.class_names)} classes of {dataset.name} apart, from "
            f"images of {height}x{width} pixels."
        ),
        run_id=candidate.run_id,
        confirmed=_confirmed(candidate),
        data=_data(candidate, dataset),
        validation=_validation(candidate),
        test=None if test is None else _test_facts(test, dataset),
        ledger=_ledger(published),
        settings=candidate.params,
        checks=_checks(published),
        waived=[f"Set aside: {refusal.message} Reason given: {why}" for refusal, why in published.waived],
        limits=_limits(published),
        shape=f"shape (n, {height}, {width}, {channels})",
        class_names=dataset.class_names,
        tracking_uri=redacted(published.tracking_uri),
        model_place=MODEL_PLACE,
    )


def _confirmed(candidate: Candidate) -> str:
    value = candidate.metrics[f"best_{candidate.metric}"]
    if candidate.standing is Standing.ENSEMBLE:
        return f"{candidate.metric} {value:.4f}, of {candidate.standing.value}."
    if candidate.std is None or candidate.mean is None:
        return f"{candidate.metric} {value:.4f}, one training: the spread over seeds is not known."
    spread = (
        f"{candidate.metric} {candidate.mean:.4f} ± {candidate.std:.4f} (mean and standard deviation over "
        f"{len(candidate.values)} fresh seeds); this run's is {value:.4f}."
    )
    if candidate.standing is Standing.MEDIAN_SEED:
        spread += " It is the median of them, not the luckiest."
    return f"{spread} {_against_baseline(candidate)}".strip()


def _against_baseline(candidate: Candidate) -> str:
    confirmation = candidate.confirmation
    if confirmation is None:
        return ""
    if not confirmation.get("significant"):
        return (
            "No configuration was significantly better than the baseline's, so the baseline's is the winner."
        )
    winner = confirmation.get("winner") or {}
    difference, interval = winner.get("difference"), winner.get("ci95_vs_baseline")
    if candidate.run_id not in winner.get("run_ids", ()) or difference is None or interval is None:
        return ""
    return f"Against the baseline: {difference:+.4f}, 95 % interval {interval[0]:+.4f} to {interval[1]:+.4f}."


def _data(candidate: Candidate, dataset: Dataset) -> dict[str, str]:
    facts = {
        "dataset": dataset.reference,
        "images of the training part": f"{dataset.train_count}, of which {_share(candidate)} to validate",
        "images of the test part": str(dataset.test_count) if dataset.test_digest else "none",
        "training digest (SHA-256)": dataset.train_digest,
        "split digest (SHA-256)": candidate.tags.get("podium.split_digest"),
        "test digest (SHA-256)": dataset.test_digest,
        "source digest (SHA-256)": dataset.source_digest,
    }
    limit = candidate.params.get("data.train_limit", "None")
    if limit != "None":
        facts["images trained on"] = f"{limit}, stratified"
    return {name: value for name, value in facts.items() if value is not None}


def _share(candidate: Candidate) -> str:
    return f"{float(candidate.params.get('data.validation.fraction', 'nan')):.0%}"


def _validation(candidate: Candidate) -> dict[str, str]:
    names = ("val_accuracy", "val_loss", "accuracy", "loss")
    epoch = candidate.metrics.get("best_epoch")  # an ensemble has none
    of_epoch = "" if epoch is None else f" (epoch {epoch:.0f})"
    facts = {
        f"{name}{of_epoch}": f"{candidate.metrics[f'best_{name}']:.4f}"
        for name in names
        if f"best_{name}" in candidate.metrics
    }
    if candidate.mean is not None and candidate.std is not None:
        facts[f"{candidate.metric}, mean over {len(candidate.values)} seeds"] = f"{candidate.mean:.4f}"
        facts["standard deviation over seeds"] = f"{candidate.std:.4f}"
        facts["by seed"] = ", ".join(f"{value:.4f}" for value in candidate.values)
    return facts


def _test_facts(test: Mapping[str, Any], dataset: Dataset) -> TestFacts:
    return TestFacts(
        images=test["images"],
        accuracy=test["accuracy"],
        loss=test["loss"],
        calibration_error=test["calibration_error"],
        class_accuracy=list(zip(dataset.class_names, test["class_accuracy"], strict=True)),
    )


def _ledger(published: Publication) -> str:
    if published.test is None:
        return "The data has no test part: no look was taken."
    count = published.ledger_count
    if count <= 1:
        return f"{published.candidate.sweep} has looked at this test set once: for this model."
    return (
        f"{published.candidate.sweep} has looked at this test set {count} times. Each look after the first makes the "
        "result a little too good."
    )


def _checks(published: Publication) -> list[str]:
    proof = published.proof
    libraries = ("python", "keras", "tensorflow", "tensorflow-cpu", "jax", "mlflow")
    versions = ", ".join(f"{name} {proof[name]}" for name in libraries if name in proof)
    return [
        f"SHA-256 of the model file: `{proof['sha256']}`, as its training recorded it.",
        "The file holds stock Keras objects alone and was loaded in safe mode.",
        f"Loaded where Podium cannot be imported ({versions}), it gave the recorded probabilities of "
        f"{proof['images']} images: largest difference {proof['largest_difference']:.2g} in Keras, "
        f"{proof['largest_difference_mlflow']:.2g} through MLflow; allowed {proof['tolerance']:g}.",
        "Digests of training and test data are those on the run.",
        *([f"Checks of its recipe: {', '.join(published.checks)}."] if published.checks else []),
    ]


def _limits(published: Publication) -> list[str]:
    candidate, dataset = published.candidate, published.dataset
    limits = [
        f"It knows these {len(dataset.class_names)} classes and answers one of them for any image.",
        f"It was measured on images like those of {dataset.name} alone; other sources may be harder.",
    ]
    if candidate.std is None and candidate.standing is not Standing.ENSEMBLE:
        limits.append("It was trained once: another seed may do better or worse.")
    if published.test is None:
        limits.append(
            "It was never tested: its validation accuracy is partly luck, since it was chosen by it."
        )
    else:
        error = published.test["calibration_error"]
        limits.append(f"Its confidence is off by {error:.1%} on average (expected calibration error).")
    return limits
