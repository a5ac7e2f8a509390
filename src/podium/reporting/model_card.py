"""Owns the model card: what is said of a published model, whole as Markdown and short as its description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

LONGEST_SUMMARY = 4_400


@dataclass(frozen=True, kw_only=True)
class TestFacts:
    """What a test came to. `class_accuracy`: (class, accuracy), None for a class without images."""

    images: int
    accuracy: float
    loss: float
    calibration_error: float
    class_accuracy: Sequence[tuple[str, float | None]]


@dataclass(frozen=True, kw_only=True)
class Card:
    """All that a card says. `test` is None where the data has no test part.

    Tables (`data`, `validation`, `settings`) are name to text; `ledger` says how often the test set was
    looked at; `confirmed` how the winner was found; `waived` each refusal that was set aside, with its reason.
    """

    model: str
    what: str
    run_id: str
    confirmed: str
    data: Mapping[str, str]
    validation: Mapping[str, str]
    test: TestFacts | None
    ledger: str
    settings: Mapping[str, str]
    checks: Sequence[str]
    waived: Sequence[str]
    limits: Sequence[str]
    shape: str
    class_names: Sequence[str]
    tracking_uri: str
    model_place: str


def render(card: Card) -> str:
    """The card as Markdown."""
    environment = Environment(
        loader=PackageLoader("podium", "reporting"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_in_a_cell,
    )
    return environment.get_template("model_card.md").render(card=card, summary=_findings(card))


def summary(card: Card) -> str:
    """The card in short, for the version's description: Markdown, at most 4,400 characters."""
    data = "; ".join(f"{name}: {value}" for name, value in card.data.items() if "digest" not in name)
    parts = [
        card.what,
        _findings(card),
        f"Data: {data}.",
        *card.waived,
        f'Load it without Podium: `mlflow.keras.load_model("models:/{card.model}@champion")`. '
        f"Images are uint8, {card.shape}.",
        f"Run {card.run_id}; the whole card is its artifact promotion/model_card.md.",
    ]
    text = "\n\n".join(parts)
    return text if len(text) <= LONGEST_SUMMARY else text[: LONGEST_SUMMARY - 1] + "…"


def _findings(card: Card) -> str:
    tested = "Test accuracy: none, the data has no test part."
    if card.test is not None:
        tested = f"Test accuracy {card.test.accuracy:.4f} on {card.test.images} images. {card.ledger}"
    return f"{card.confirmed} {tested}"


def _in_a_cell(value: object) -> object:
    """A value that neither ends a table's cell nor its row."""
    return value.replace("|", "\\|").replace("\n", " ") if isinstance(value, str) else value
