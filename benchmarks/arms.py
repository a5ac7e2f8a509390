"""Owns what benchmarks share: arms in turns (one JSON line each, so that a killed one goes on), tables, pictures, stores."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from matplotlib.axes import Axes
from scipy.stats import gmean

import podium
from podium.coordinator.trial import LiveTrial
from podium.engines.base import Outcome
from podium.engines.study import prepare_storage
from podium.reporting.style import BLUE, DARK, finish, line_styles, new_figure, plain, to_png
from podium.result import EpochEvent
from podium.stores import Stores
from podium.tracking.runs import prepare_store

Arm = Callable[[int], Mapping[str, Any]]
OUT = Path("build/bench")  # what docs/performance.md shows is kept in benchmarks/results
INCHES_AN_ARM = 0.7


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark's name and its arms; an arm takes a seed and answers its measurements. `made`: its settings."""

    name: str
    arms: Mapping[str, Arm]
    made: Mapping[str, Any]

    def run(self, folder: Path, seeds: Sequence[int], only: Sequence[str] = ()) -> pd.DataFrame:
        """Measure what `folder` lacks, arm after arm and beginning with another one for each seed; `only` some arms.

        Answers the rows of all arms. An arm that raises RuntimeError gets no row; the program ends with exit code 1 once
        all others have theirs. All arms of a seed are measured on one processor.
        """
        path = folder / f"{self.name}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        made = json.loads(json.dumps({**self.made, "sources": sources_digest()}))
        refuse_others(path, made)
        names, failed, here, kept = list(self.arms), [], processor(), rows_of(path)
        done = {(row["arm"], row["seed"]) for row in kept}
        elsewhere = {row["seed"] for row in kept if row["processor"] != here}
        for turn, seed in enumerate(seeds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                if (name, seed) in done or (only and name not in only):
                    continue
                if seed in elsewhere:
                    sys.exit(f"{path}: seed {seed} was begun on another processor, where it has to be ended")
                began, load = time.time(), os.getloadavg()[0]
                try:
                    values = dict(self.arms[name](seed))
                except RuntimeError as error:
                    failed.append(f"{name}, seed {seed}")
                    print(f"{failed[-1]}: {error}", flush=True)
                    continue
                row = {
                    "arm": name,
                    "seed": seed,
                    "took_seconds": round(time.time() - began, 1),
                    "load_before": load,
                    "processor": here,
                    **values,
                    "made": made,
                }
                keep_row(path, row)
        if failed:
            sys.exit("no row for: " + "; ".join(failed))
        rows = [row for row in rows_of(path) if row["arm"] in names and row["seed"] in seeds]
        return pd.DataFrame(rows)


def summary(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Mean, smallest and largest of each column, by arm, in the order in which the arms came."""
    order = list(dict.fromkeys(rows["arm"]))
    found = rows.groupby("arm")[list(columns)].agg(["mean", "min", "max"]).loc[order]
    found.insert(0, ("", "seeds"), rows.groupby("arm")["seed"].nunique())
    return found


def ratio(rows: pd.DataFrame, column: str, *, of: str, to: str) -> tuple[float, float, float]:
    """Geometric mean, smallest and largest quotient of two arms, by seed: what drifts with the machine falls out."""
    table = rows.pivot_table(index="seed", columns="arm", values=column)
    quotients = (table[of] / table[to]).dropna()
    return float(gmean(quotients)), float(quotients.min()), float(quotients.max())


def bars(rows: pd.DataFrame, column: str, *, title: str, unit: str, path: Path) -> None:
    """A picture of one column: a bar for the mean of each arm, a dot for each seed."""
    order = list(dict.fromkeys(rows["arm"]))
    figure = new_figure(1.2 + INCHES_AN_ARM * len(order))
    axes: Axes = figure.subplots()
    draw_bars(axes, {name: rows.loc[rows["arm"] == name, column] for name in order})
    finish(axes, title=title, x=unit, y="")
    path.write_bytes(to_png(figure))


def draw_bars(axes: Axes, values: Mapping[str, pd.Series]) -> None:
    """From top to bottom, of each name a bar for the mean and a dot for each value."""
    names = list(values)[::-1]
    for place, name in enumerate(names):
        axes.barh(place, values[name].mean(), color=BLUE, height=0.6)
        axes.plot(values[name], [place] * len(values[name]), "o", color=DARK, markersize=4)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])


def lines(
    rows: pd.DataFrame,
    points: Callable[[Mapping[str, Any]], tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    steps: bool = False,
) -> bytes:
    """A picture of validation accuracy against seconds, `points` of a row: a line a seed, a colour an arm."""
    figure = new_figure(5.0)
    axes: Axes = figure.subplots()
    drawn = "steps-post" if steps else "default"
    names = list(dict.fromkeys(rows["arm"]))
    for name, style in zip(names, line_styles(len(names)), strict=True):
        for index, row in enumerate(rows[rows["arm"] == name].to_dict("records")):
            label = plain(name) if index == 0 else None
            axes.plot(*points(row), drawstyle=drawn, label=label, **style)
    axes.legend(frameon=False, loc="lower right")
    finish(axes, title=title, x="seconds", y="val_accuracy")
    return to_png(figure)


def arguments(text: str) -> argparse.ArgumentParser:
    """A parser with what all benchmarks take."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0")
    parser.add_argument("--quick", action="store_true", help="small: a minute or two, for a first look")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of results; what is there is kept")
    return parser


def machine() -> dict[str, Any]:
    """What a figure depends on: processor, cores, versions."""
    import importlib.metadata

    from podium.training.device import device_name, thread_count

    versions = {name: importlib.metadata.version(name) for name in ("keras", "numpy")}
    return {
        "device": device_name(),
        "processor": processor(),
        "cores": thread_count(),
        "python": platform.python_version(),
        **versions,
    }


class Silent:
    """Watches a loop and says nothing."""

    def started(self, trial: LiveTrial) -> None:
        """Nothing to say."""

    def epoch(self, trial: LiveTrial, event: EpochEvent) -> None:
        """Nothing to say."""

    def ended(self, trial: LiveTrial, outcome: Outcome) -> None:
        """Nothing to say."""

    def message(self, text: str) -> None:
        """Nothing to say."""


def new_stores(folder: Path) -> Stores:
    """MLflow and study stores in SQLite, made and empty."""
    folder.mkdir(parents=True, exist_ok=True)
    stores = Stores(
        root=folder,
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
        artifact_uri=(folder / "artifacts").as_uri(),
        study_url=f"sqlite:///{folder / 'studies.db'}",
    )
    prepare_store(stores)
    prepare_storage(stores.study_url)
    return stores


def write_summary(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    """The benchmark's figures as JSON, beside its lines."""
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def processor() -> str:
    """Which processor this is: names alone, such as 'AMD EPYC', leave out how fast it is."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    words = [told.get(key, "") for key in ("model name", "cpu family", "model", "stepping")]
    return f"{' '.join(words)}, {os.cpu_count()} cores"


def sources_digest() -> str:
    """Digest of the program that is measured."""
    return digest(*sorted(Path(podium.__file__).parent.rglob("*.py")))


def digest(*files: Path) -> str:
    """Digest of files' contents, one after another."""
    return short_digest(b"".join(file.read_bytes() for file in files))


def short_digest(content: bytes) -> str:
    """Enough of a SHA-256 to tell settings apart."""
    return hashlib.sha256(content).hexdigest()[:16]


def refuse_others(path: Path, made: Mapping[str, Any]) -> None:
    """End the program if a file holds rows of other settings, or of another program: they cannot be in one table."""
    for row in rows_of(path):
        if row.get("made") != made:
            refuse(path)


def refuse(path: Path) -> NoReturn:
    """End the program: a file holds other rows."""
    sys.exit(
        f"{path} holds rows that were made otherwise. Move it away, or give another folder: --out FOLDER"
    )


def keep_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line to a file of results, and print it."""
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of results; none where there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
