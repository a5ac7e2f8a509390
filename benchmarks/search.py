"""Compares search methods on recorded curves: each is replayed with other seeds, by Podium's own engines.

    python benchmarks/search.py [TABLE] [--repeats 50] [--only PART-OF-NAME ...]

TABLE comes from benchmarks/record_points.py; half of it does as well. A proposal takes the nearest recorded point that
the search did not have yet, and the engine learns from that point's parameters. One trial at a time; a method's best
value is that of its complete trials. Budget: the epochs of 40 trials of the whole length, fewer where the table has
fewer than 200 points. Writes search.csv, search.json and search.png beside the table.
Target: the default of sweeps/cifar10.yaml reaches the final value of TPE without pruning within 1/5 of its epochs, with at
most 0.5 points of regret, and is not behind the one-epoch rule nor random search with the same pruner.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
from points_table import Table, read_table
from replay import Trace, recorded_sweep, replay_engine, replay_one_epoch_rule
from rich.console import Console
from rich.table import Table as Shown
from search_methods import Method, Methods, methods_for
from search_picture import picture
from search_summary import REGRET_POINTS, SHARE, Target, curves, summary, target

from podium.reporting.style import to_png
from podium.sweep_file import Sweep, read_sweep

HERE = Path(__file__).parent
SWEEP = HERE.parent / "sweeps" / "cifar10.yaml"
TRIALS, POINTS_A_TRIAL = 40, 5
FEWEST_POINTS = SHARE * POINTS_A_TRIAL  # a fifth of the budget is one whole training
SLOWEST = "bayesian"


def budget_for(table: Table, sweep: Sweep) -> int:
    """Epochs of a search: so many whole trainings that a method which prunes does not soon run out of points."""
    trials = min(TRIALS, len(table.points) // POINTS_A_TRIAL)
    return trials * sweep.recipe.training.epochs


def replay(table: Table, sweep: Sweep, method: Method, *, seed: int, budget: int) -> Trace:
    """One search by one method."""
    if method.settings is None:
        epochs = sweep.recipe.training.epochs
        return replay_one_epoch_rule(table, first=method.first, seed=seed, budget=budget, epochs=epochs)
    return replay_engine(table, sweep, method.settings, seed=seed, budget=budget)


def replay_all(
    table: Table, sweep: Sweep, methods: Sequence[Method], *, repeats: int, budget: int, console: Console
) -> dict[str, list[Trace]]:
    """All repeats of all methods, on all cores."""
    traces: dict[str, dict[int, Trace]] = {method.name: {} for method in methods}
    slowest_first = sorted(methods, key=lambda method: SLOWEST not in method.name)
    workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = {
            pool.submit(replay, table, sweep, method, seed=seed, budget=budget): (method.name, seed)
            for method in slowest_first
            for seed in range(repeats)
        }
        with console.status("replaying") as status:
            for done, job in enumerate(as_completed(jobs), start=1):
                name, seed = jobs[job]
                traces[name][seed] = job.result()
                status.update(f"replaying: {done} of {len(jobs)}")
    return {name: [found[seed] for seed in sorted(found)] for name, found in traces.items()}


def show(console: Console, rows: pd.DataFrame, methods: Methods, found: Target, *, budget: int) -> None:
    """The summary as a table, the verdict below it."""
    shown = Shown(title=f"best val_accuracy %, after {found.epochs} and after {budget} epochs")
    columns = "method mean sd quartiles regret mean sd regret within reaches trials moved"
    for name in columns.split():
        shown.add_column(name, justify="left" if name == "method" else "right")
    for _, row in rows.iterrows():
        shown.add_row(
            row["method"],
            *(_number(row[f"fifth_{key}"]) for key in ("mean", "sd")),
            f"{_number(row['fifth_q25'])} to {_number(row['fifth_q75'])}",
            _number(row["regret_at_fifth"]),
            *(_number(row[key]) for key in ("end_mean", "end_sd", "regret_at_end")),
            *(_number(row[key], 0) for key in ("epochs_to_allowed", "epochs_to_reach")),
            _number(row["trials"], 0) + ("*" if row["ran_out"] else ""),
            f"{_number(row['moved_at_fifth'])}, {_number(row['moved'])}",
            style="bold" if row["method"] == methods.default else "",
        )
    console.print(shown)
    console.print(
        f"regret: points below {100 * found.final:.2f} %, the final mean of '{methods.unpruned_tpe}'.\n"
        f"within, reaches: epochs until the mean curve is {REGRET_POINTS} points below that, and there.\n"
        "moved: mean distance from proposal to recorded point in the unit cube, in the first "
        f"{found.epochs} epochs and over all.\n*: some repeats ran out of points and ended early."
    )
    for reason in methods.left_out:
        console.print(f"left out: {reason}")
    console.print(
        f"The default, '{methods.default}', at {found.epochs} epochs: regret {found.regret:.2f} points (95 % from "
        f"{found.regret_low:.2f} to {found.regret_high:.2f}); allowed: {REGRET_POINTS}."
    )
    for each in (*found.comparisons, *found.at_end):
        console.print(f"  {each.in_words()}")
    console.print(f"The target {'holds' if found.holds else 'DOES NOT HOLD'}.", style="bold")


def _number(value: float, digits: int = 2) -> str:
    return "-" if pd.isna(value) or math.isinf(value) else f"{value:.{digits}f}"


def write(
    folder: Path, rows: pd.DataFrame, lines: pd.DataFrame, found: Target, facts: Mapping[str, object]
) -> None:
    """search.csv (curves), search.json (summary and verdict)."""
    lines.round(5).to_csv(folder / "search.csv", index=False)
    document = {
        **facts,
        "target": {**asdict(found), "holds": found.holds},
        "methods": json.loads(rows.round(4).to_json(orient="records")),
    }
    (folder / "search.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path, nargs="?", default=HERE / "data" / "cifar10_points.jsonl")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--only", nargs="*", default=[], help="parts of methods' names; references stay")
    arguments = parser.parse_args()
    if arguments.repeats < 2:
        parser.error(f"--repeats: got {arguments.repeats}, need 2 or more for a spread.")
    # Before the workers start: one thread each, for the cores are shared out among them.
    os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # or each worker says that they are on
    console = Console()
    start = time.monotonic()
    table = read_table(arguments.table)
    sweep = recorded_sweep(table, read_sweep(SWEEP))
    budget = budget_for(table, sweep)
    if budget // SHARE < sweep.recipe.training.epochs:
        parser.error(f"{arguments.table} has {len(table.points)} points; {FEWEST_POINTS} are needed.")
    methods = methods_for(sweep, points=len(table.points), early=budget // SHARE, only=tuple(arguments.only))
    console.print(
        f"{len(table.points)} recorded points; {arguments.repeats} repeats of {len(methods.all)} methods, "
        f"{budget} epochs each"
    )
    traces = replay_all(table, sweep, methods.all, repeats=arguments.repeats, budget=budget, console=console)
    rows, found = summary(traces, methods, budget=budget), target(traces, methods, budget=budget)
    lines = curves(traces, budget=budget, every=sweep.recipe.training.epochs)
    show(console, rows, methods, found, budget=budget)
    if len(table.points) < TRIALS * POINTS_A_TRIAL:
        console.print(f"Preliminary: {len(table.points)} of {TRIALS * POINTS_A_TRIAL} points or more.")
    facts = {
        "points": len(table.points),
        "repeats": arguments.repeats,
        "budget": budget,
        "default": methods.default,
    }
    write(arguments.table.parent, rows, lines, found, facts)
    png = to_png(picture(lines, rows, methods, found))
    (arguments.table.parent / "search.png").write_bytes(png)
    console.print(
        f"{time.monotonic() - start:.0f} s; search.csv, search.json, search.png: {arguments.table.parent}"
    )


if __name__ == "__main__":
    main()
