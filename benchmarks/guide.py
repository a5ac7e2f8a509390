"""What each idea of the guide changes: the same network, trained with it and without it on the same seeds.

    python benchmarks/guide.py cifar10-images.zip [--seeds 3] [--only PART-OF-NAME ...] [--quick]

10,000 training images, 5,000 validation images, 15 epochs, none ended early; two workers with one thread each, bfloat16
where a row does not say otherwise. One JSON line a training: a killed one goes on with what is missing. Writes
guide.jsonl, guide.md (the table of docs/guide.md) and guide.png into --out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from arms import arguments, bars, keep_row, rows_of
from images import arrays_of
from trainings import Trained, train_here

from podium.recipe import Recipe, read_recipe
from podium.result import TrainingResult

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
BASELINE = "the guide's CNN"
KERAS_MOMENTUM = 0.99  # the guide's; baseline.yaml has 0.9
PLATEAU_OFF = {"callbacks.reduce_lr_on_plateau": None}


@dataclass(frozen=True, kw_only=True)
class Idea:
    """A row: what the guide says of it, and the recipe's keys that it sets."""

    name: str
    claim: str
    values: Mapping[str, Any]
    recipe: str = "baseline.yaml"


def _schedule(name: str, **settings: float) -> dict[str, Any]:
    return {**PLATEAU_OFF, "optimizer.schedule": {"name": name, **settings}}


IDEAS = (
    Idea(name=BASELINE, claim="75 to 80 % (all images, 50 epochs)", values={}),
    Idea(name="without augmentation", claim="lower", values={"augmentation.strength": 0.0}),
    Idea(name="half the augmentation", claim="", values={"augmentation.strength": 0.5}),
    Idea(name="without dropout", claim="lower", values={"model.dropout": 0.0, "model.dense_dropout": 0.0}),
    Idea(name="without ReduceLROnPlateau", claim="lower", values=PLATEAU_OFF),
    Idea(name="float32", claim="as good, slower", values={"precision": "float32"}),
    Idea(name="residual connections", claim="+2 to 5 points", values={"model.residual": True}),
    Idea(name="channel attention", claim="+1 to 3 points", values={"model.attention": {"ratio": 16}}),
    Idea(name="mixup", claim="+3 to 5 points", values={"augmentation.mixup": {"alpha": 0.2}}),
    Idea(name="CutMix", claim="+3 to 5 points", values={"augmentation.cutmix": {"factor": 1.0}}),
    Idea(name="RandAugment", claim="+3 to 5 points", values={"augmentation.randaugment": {"factor": 0.3}}),
    Idea(name="random contrast", claim="more variety", values={"augmentation.contrast": 0.1}),
    Idea(name="random erasing", claim="", values={"augmentation.erasing": 0.5}),
    Idea(name="label smoothing", claim="", values={"training.label_smoothing": 0.1}),
    Idea(name="cosine schedule", claim="+1 to 2 points", values=_schedule("cosine", warmup_epochs=1.0)),
    Idea(name="one cycle", claim="", values=_schedule("one_cycle", warmup_epochs=3.0)),
    Idea(name="exponential decay", claim="", values=_schedule("exponential")),
    Idea(name="gradient clipping", claim="steadier", values={"optimizer.clipnorm": 1.0}),
    Idea(name="faster moving averages", claim="", values={"model.normalization_momentum": 0.9}),
    Idea(name="multilayer perceptron", claim="about 50 %", values={}, recipe="classical/mlp.yaml"),
    Idea(name="svm", claim="about 60 %", values={}, recipe="classical/svm.yaml"),
    Idea(name="random forest", claim="about 55 %", values={}, recipe="classical/random_forest.yaml"),
    Idea(
        name="logistic regression",
        claim="about 40 %",
        values={},
        recipe="classical/logistic_regression.yaml",
    ),
)


def recipe_of(idea: Idea, images: str, seed: int, *, quick: bool) -> Recipe:
    """An idea's recipe on a seed."""
    values = {
        "data.reference": images,
        "data.train_limit": 1000 if quick else 10000,
        "training.seed": seed,
        "callbacks.early_stopping": None,
    }
    if not idea.recipe.startswith("classical/"):
        values |= {"precision": "bfloat16", "model.normalization_momentum": KERAS_MOMENTUM}
    recipe = read_recipe(EXPERIMENTS / idea.recipe, values | idea.values)
    epochs = 1 if recipe.classical is not None else 2 if quick else 15
    return recipe.with_values({"training.epochs": epochs})


def row_of(idea: Idea, seed: int, trained: Trained) -> dict[str, Any]:
    """One line: the best epoch's accuracy, as a sweep counts it, and the last epoch's."""
    row = {"arm": idea.name, "seed": seed}
    if not isinstance(trained.outcome, TrainingResult):
        return row | {"failed": trained.outcome.cause}
    curve = [epoch.metrics["val_accuracy"] for epoch in trained.epochs]
    return row | {
        "val_accuracy": max(curve),
        "last_val_accuracy": curve[-1],
        "accuracy": trained.epochs[-1].metrics["accuracy"],
        "parameters": trained.outcome.parameters,
        "seconds": round(trained.outcome.seconds, 1),
        "curve": [round(value, 4) for value in curve],
    }


def measure(ideas: Sequence[Idea], images: str, path: Path, *, seeds: int, quick: bool) -> pd.DataFrame:
    """Train what the file lacks, all ideas on one seed before the next; all rows of these ideas and seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {(row["arm"], row["seed"]) for row in rows_of(path)}
    todo = [(idea, seed) for seed in range(seeds) for idea in ideas if (idea.name, seed) not in known]
    if todo:
        recipes = {
            number: recipe_of(idea, images, seed, quick=quick) for number, (idea, seed) in enumerate(todo)
        }
        for trained in train_here(recipes, arrays_of(recipes[0]), path.with_suffix(".work"), workers=2):
            keep_row(path, row_of(*todo[trained.number], trained))
    names = {idea.name for idea in ideas}
    return pd.DataFrame([row for row in rows_of(path) if row["arm"] in names and row["seed"] < seeds])


def table(rows: pd.DataFrame, ideas: Sequence[Idea]) -> str:
    """Markdown: mean and spread over the seeds, the difference from the baseline on the same seed, the fastest training."""
    values = rows.pivot_table(index="seed", columns="arm", values="val_accuracy", dropna=False)
    seconds = rows.groupby("arm")["seconds"].min()
    lines = [
        "| idea | the guide says | val_accuracy % (smallest to largest) | to the guide's CNN, points | seconds, fastest |",
        "|---|---|---|---|---|",
    ]
    for idea in ideas:
        if idea.name not in values:
            continue
        found = 100 * values[idea.name].dropna()
        shown = f"{found.mean():.1f} ({found.min():.1f} to {found.max():.1f})" if len(found) else ""
        tried = int((rows["arm"] == idea.name).sum())
        if len(found) < tried:
            shown += f" {tried - len(found)} of {tried} failed"
        apart = (found - 100 * values[BASELINE]).dropna() if BASELINE in values else found.iloc[:0]
        difference = "" if idea.name == BASELINE or apart.empty else _difference(apart)
        lines.append(f"| {idea.name} | {idea.claim} | {shown} | {difference} | {seconds[idea.name]:.0f} |")
    return "\n".join(lines) + "\n"


def _difference(apart: pd.Series) -> str:
    return f"{apart.mean():+.1f} ({apart.min():+.1f} to {apart.max():+.1f})"


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("images")
    parser.add_argument("--only", nargs="*", default=[], help="parts of names; the baseline stays")
    chosen = parser.parse_args()
    ideas = [
        idea
        for idea in IDEAS
        if not chosen.only or idea.name == BASELINE or any(part in idea.name for part in chosen.only)
    ]
    name = "guide-quick" if chosen.quick else "guide"
    rows = measure(ideas, chosen.images, chosen.out / f"{name}.jsonl", seeds=chosen.seeds, quick=chosen.quick)
    text = table(rows, ideas)
    print(text)
    (chosen.out / f"{name}.md").write_text(text, encoding="utf-8")
    bars(
        rows,
        "val_accuracy",
        title="Ideas of the guide, 10,000 images, 15 epochs",
        unit="validation accuracy (bar: mean, dots: seeds)",
        path=chosen.out / f"{name}.png",
    )


if __name__ == "__main__":
    main()
