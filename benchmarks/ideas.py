"""Owns a table of ideas: recipes that each differ from one in a part, trained on the same seeds and compared with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from arms import bars, keep_row, rows_of
from images import arrays_of
from trainings import Trained, train_here

from podium.recipe import Recipe
from podium.result import TrainingResult

WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class Idea:
    """A row: what is claimed of it, and the recipe's keys that it sets."""

    name: str
    values: Mapping[str, Any]
    claim: str = ""
    recipe: str = "baseline.yaml"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Ideas, the first of which is what the others are compared with; `recipe_of` takes an idea and a seed.

    `heading` is that of their names, `claims` that of what is claimed of them.
    """

    title: str
    heading: str
    claims: str = ""
    ideas: tuple[Idea, ...]
    recipe_of: Callable[[Idea, int], Recipe]

    @property
    def baseline(self) -> str:
        """The name of the first idea."""
        return self.ideas[0].name

    def only(self, parts: list[str]) -> Comparison:
        """Those whose names contain one of the parts, and the first; all if there is no part."""
        ideas = self.ideas[:1] + tuple(
            idea for idea in self.ideas[1:] if not parts or any(part in idea.name for part in parts)
        )
        return replace(self, ideas=ideas)

    def run(self, path: Path, *, seeds: int) -> None:
        """Measure what the file of lines lacks; print the table, and write it and its picture beside the lines."""
        rows = self.measure(path, seeds=seeds)
        text = self.table(rows)
        print(text)
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        bars(
            rows,
            "val_accuracy",
            title=self.title,
            unit="validation accuracy (bar: mean, dots: seeds)",
            path=path.with_suffix(".png"),
        )

    def measure(self, path: Path, *, seeds: int) -> pd.DataFrame:
        """Train what the file lacks, all ideas on one seed before the next; all rows of these ideas and seeds."""
        path.parent.mkdir(parents=True, exist_ok=True)
        known = {(row["arm"], row["seed"]) for row in rows_of(path)}
        todo = [
            (idea, seed) for seed in range(seeds) for idea in self.ideas if (idea.name, seed) not in known
        ]
        if todo:
            recipes = {number: self.recipe_of(idea, seed) for number, (idea, seed) in enumerate(todo)}
            arrays = arrays_of(recipes[0])
            for trained in train_here(recipes, arrays, path.with_suffix(".work"), workers=WORKERS):
                keep_row(path, row_of(*todo[trained.number], trained))
        names = {idea.name for idea in self.ideas}
        return pd.DataFrame([row for row in rows_of(path) if row["arm"] in names and row["seed"] < seeds])

    def table(self, rows: pd.DataFrame) -> str:
        """Markdown: mean and spread over the seeds, the difference from the first on the same seed, the fastest training."""
        values = rows.pivot_table(index="seed", columns="arm", values="val_accuracy", dropna=False)
        seconds = rows.groupby("arm")["seconds"].min()
        headings = [
            *(self.heading, self.claims, "val_accuracy % (smallest to largest)"),
            *(f"to {self.baseline}, points", "seconds, fastest"),
        ]
        lines = [headings, ["---" for _ in headings]]
        for idea in self.ideas:
            if idea.name not in values:
                continue
            found = 100 * values[idea.name].dropna()
            shown = f"{found.mean():.1f} ({found.min():.1f} to {found.max():.1f})" if len(found) else ""
            tried = int((rows["arm"] == idea.name).sum())
            if len(found) < tried:
                shown += f" {tried - len(found)} of {tried} failed"
            apart = (found - 100 * values[self.baseline]).dropna() if self.baseline in values else found[:0]
            difference = "" if idea.name == self.baseline or apart.empty else _difference(apart)
            lines.append([idea.name, idea.claim, shown, difference, f"{seconds[idea.name]:.0f}"])
        if not self.claims:
            lines = [[first, *others] for first, _, *others in lines]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


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


def _difference(apart: pd.Series) -> str:
    return f"{apart.mean():+.1f} ({apart.min():+.1f} to {apart.max():+.1f})"
