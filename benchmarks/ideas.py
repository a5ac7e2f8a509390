"""Owns a table of ideas: recipes that each differ from one in a part, trained on the same seeds and compared with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from arms import arguments, draw_bars, keep_row, refuse, rows_of, short_digest, sources_digest
from images import arrays_of
from matplotlib.axes import Axes
from trainings import Trained, train_here

from podium.recipe import Recipe
from podium.reporting.style import DARK, finish, new_figure, plain, to_png
from podium.result import TrainingResult

WORKERS = 2
INCHES_AN_IDEA = 0.28


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

    def run(self, path: Path, *, seeds: int, only: Sequence[str] = ()) -> None:
        """Measure what the file of lines lacks; print the table, and write it and its picture beside the lines."""
        rows = self.measure(path, seeds=seeds, only=only)
        text = self.table(rows)
        print(text)
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        path.with_suffix(".png").write_bytes(self.picture(rows))

    def measure(self, path: Path, *, seeds: int, only: Sequence[str] = ()) -> pd.DataFrame:
        """Train what the file lacks, all ideas on one seed before the next; all rows of these ideas and seeds.

        `only`: parts of names; the first idea is trained in any case. Ends the program if the file holds a row of another
        recipe, of other images or of another program.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        ideas = {(idea.name, seed): idea for seed in range(seeds) for idea in self.ideas}
        recipes = {key: self.recipe_of(idea, key[1]) for key, idea in ideas.items()}
        arrays = arrays_of(next(iter(recipes.values())))
        common = {
            "sources": sources_digest(),
            "train_digest": arrays.train_digest,
            "split_digest": arrays.split_digest,
        }
        made = {key: {**common, "recipe": settings_digest(recipe)} for key, recipe in recipes.items()}
        known = {(row["arm"], row["seed"]): row.get("made") for row in rows_of(path)}
        if any(known[key] != made[key] for key in known.keys() & made.keys()):
            refuse(path)
        todo = [
            key
            for key in recipes
            if key not in known
            and (not only or key[0] == self.baseline or any(part in key[0] for part in only))
        ]
        chosen = {number: recipes[key] for number, key in enumerate(todo)}
        if chosen:
            for trained in train_here(chosen, arrays, path.with_suffix(".work"), workers=WORKERS):
                name, seed = key = todo[trained.number]
                keep_row(path, {"arm": name, "seed": seed, **measurements(trained), "made": made[key]})
        return pd.DataFrame([row for row in rows_of(path) if (row["arm"], row["seed"]) in ideas])

    def picture(self, rows: pd.DataFrame) -> bytes:
        """Of each idea but the first, the difference from it on the same seed: a bar for the mean, a dot for a seed."""
        values = _percent(rows)
        apart = {idea.name: self._apart(values, idea.name) for idea in self.ideas[1:] if idea.name in values}
        shown = {name: found for name, found in apart.items() if len(found)}
        figure = new_figure(1.2 + INCHES_AN_IDEA * len(shown))
        axes: Axes = figure.subplots()
        draw_bars(axes, shown)
        axes.axvline(0.0, color=DARK, linewidth=1.0)
        unit = f"points of validation accuracy to {self.baseline} (bar: mean, dots: seeds)"
        finish(axes, title=self.title, x=plain(unit), y="")
        return to_png(figure)

    def table(self, rows: pd.DataFrame) -> str:
        """Markdown: mean and spread over the seeds, the difference from the first on the same seed, the fastest training."""
        values = _percent(rows)
        seconds = rows.groupby("arm")["seconds"].min()
        headings = [
            *(self.heading, self.claims, "val_accuracy % (smallest to largest)"),
            *(f"to {self.baseline}, points", "seconds, fastest"),
        ]
        lines = [headings, ["---" for _ in headings]]
        for idea in self.ideas:
            if idea.name not in values:
                continue
            found = values[idea.name].dropna()
            shown = f"{found.mean():.1f} ({found.min():.1f} to {found.max():.1f})" if len(found) else ""
            tried = int((rows["arm"] == idea.name).sum())
            if len(found) < tried:
                shown += f" {tried - len(found)} of {tried} failed"
            apart = self._apart(values, idea.name)
            difference = "" if idea.name == self.baseline or apart.empty else _difference(apart)
            took = "" if pd.isna(seconds[idea.name]) else f"{seconds[idea.name]:.0f}"
            lines.append([idea.name, idea.claim, shown, difference, took])
        if not self.claims:
            lines = [[first, *others] for first, _, *others in lines]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def _apart(self, values: pd.DataFrame, name: str) -> pd.Series:
        """Points to the first idea on the seeds that both have."""
        if self.baseline not in values:
            return values[name][:0]
        return (values[name] - values[self.baseline]).dropna()


def settings_digest(recipe: Recipe) -> str:
    """Digest of a recipe without its data, which have digests of their own."""
    return short_digest(recipe.model_dump_json(exclude={"data"}).encode())


def run_command(text: str, name: str, comparison: Callable[..., Comparison]) -> None:
    """The command of a table. `text` is its help, `comparison` takes the images' reference and `quick`."""
    parser = arguments(text)
    parser.add_argument("images")
    parser.add_argument("--only", nargs="*", default=[], help="parts of names; the first row stays")
    chosen = parser.parse_args()
    path = chosen.out / (f"{name}-quick.jsonl" if chosen.quick else f"{name}.jsonl")
    comparison(chosen.images, quick=chosen.quick).run(path, seeds=chosen.seeds, only=chosen.only)


def measurements(trained: Trained) -> dict[str, Any]:
    """The best epoch's accuracy, as a sweep counts it, the last epoch's, and the rest of a line."""
    if not isinstance(trained.outcome, TrainingResult):
        return {"failed": trained.outcome.cause}
    curve = [epoch.metrics["val_accuracy"] for epoch in trained.epochs]
    return {
        "val_accuracy": max(curve),
        "last_val_accuracy": curve[-1],
        "accuracy": trained.epochs[-1].metrics["accuracy"],
        "parameters": trained.outcome.parameters,
        "seconds": round(trained.outcome.seconds, 1),
        "curve": [round(value, 4) for value in curve],
    }


def _percent(rows: pd.DataFrame) -> pd.DataFrame:
    """Validation accuracy in percent: a row a seed, a column an idea; NaN where a training failed."""
    return 100 * rows.pivot_table(index="seed", columns="arm", values="val_accuracy", dropna=False)


def _difference(apart: pd.Series) -> str:
    return f"{apart.mean():+.1f} ({apart.min():+.1f} to {apart.max():+.1f})"
