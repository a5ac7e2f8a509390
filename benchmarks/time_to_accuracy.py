"""Wall seconds of one training until it reaches a validation accuracy: fast.yaml, and baseline.yaml in two precisions.

    python benchmarks/time_to_accuracy.py cifar10-images.zip [--seeds 3] [--quick] [--limit-minutes 60] [--only ARM ...]

CIFAR-10, JPEG copy: 45,000 training and 5,000 validation images, the whole machine for each. Seconds from handing the
job to a warm worker: tracing, validation and checkpoints are in them. fast.yaml trains its whole recipe, once more
with a longer schedule, meant for 90 %, and once more with more filters as well, meant for 92 %; a baseline until it has
passed 80 %. An arm that does not get there within its recipe or the limit counts as a lower bound, and is called so.
Target: 75 and 80 % at least 6 times sooner, and 90 % within 45 minutes on 2 cores.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from arms import Benchmark, arguments, digest, lines, machine, write_summary
from images import arrays_of

from podium.executors.base import Attempt, Ended, EpochDone
from podium.executors.local import LocalExecutor
from podium.executors.placement import usable_cores
from podium.recipe import read_recipe
from podium.result import Failure, TrainingJob, Verdict

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
GOALS = (0.75, 0.80, 0.85, 0.90, 0.92)
COMPARED = (0.75, 0.80)
QUICK_GOALS = (0.40, 0.50)
TARGET = 6.0
# float32 is the guide's; bfloat16 is what `precision: auto` takes on a processor that has it.
BASELINES = {"baseline, float32": "float32", "baseline, bfloat16": "bfloat16"}
FAST, LONG, WIDE = "fast", "fast, long", "fast, wide"
# Larger batches and a longer warm-up are slower at first, and more accurate at the end.
LONGER = {
    "training.epochs": 27,
    "training.batch_size": 256,
    "optimizer.learning_rate": 0.035,
    "optimizer.weight_decay": 0.1,
    "optimizer.schedule.warmup_epochs": 2.5,
    "augmentation.shift": 3,
}
WIDER = {**LONGER, "model.late_filters": 256}


def curve(
    name: str,
    seed: int,
    *,
    images: str,
    limit_seconds: float,
    goals: Sequence[float],
    until: float,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """Train a recipe until it has passed an accuracy.

    Answers seconds until each of the goals up to that (None: not reached), and the curve.
    """
    values = {"data.reference": images, "training.seed": seed, **more}
    recipe = read_recipe(EXPERIMENTS / f"{name}.yaml", values)
    arrays = arrays_of(recipe)
    seconds: list[float] = []
    accuracies: list[float] = []
    with (
        tempfile.TemporaryDirectory() as place,
        closing(
            LocalExecutor(workers=1, threads=len(usable_cores()), log_folder=Path(place) / "logs")
        ) as executor,
    ):
        while not executor.free:
            executor.events(1.0)
        began = time.perf_counter()
        job = TrainingJob(
            recipe=recipe, arrays=arrays, folder=Path(place) / "job", epochs=recipe.training.epochs
        )
        executor.submit(Attempt(key="1", job=job))
        over = False
        while not over:
            for event in executor.events(1.0):
                if isinstance(event, EpochDone):
                    seconds.append(round(time.perf_counter() - began, 1))
                    accuracies.append(round(event.epoch.metrics["val_accuracy"], 4))
                    enough = seconds[-1] > limit_seconds or accuracies[-1] >= until
                    executor.answer(event.key, Verdict.PRUNE if enough else Verdict.CONTINUE)
                elif isinstance(event, Ended):
                    if isinstance(event.outcome, Failure):
                        raise RuntimeError(f"{name}: {event.outcome.message}")
                    over = True
    reached = {
        f"seconds_to_{goal:.0%}": next(
            (when for when, accuracy in zip(seconds, accuracies, strict=True) if accuracy >= goal), None
        )
        for goal in goals
        if goal <= until
    }
    return {
        **reached,
        "seconds": seconds[-1],
        "best": max(accuracies),
        "epoch_seconds": seconds,
        "val_accuracy": accuracies,
    }


def sooner(rows: pd.DataFrame, column: str, than: str) -> list[tuple[float | None, bool]]:
    """How many times sooner fast.yaml is than an arm, by seed, and whether that is a lower bound only.

    None where fast.yaml did not get there.
    """
    found: list[tuple[float | None, bool]] = []
    for _, pair in rows.groupby("seed"):
        by_arm = pair.set_index("arm")
        if not {FAST, than} <= set(by_arm.index):
            continue
        if pd.isna(by_arm.loc[FAST, column]):
            found.append((None, False))
            continue
        slow = by_arm.loc[than, column]
        bound = bool(pd.isna(slow))
        found.append(
            (
                float((by_arm.loc[than, "seconds"] if bound else slow) / by_arm.loc[FAST, column]),
                bound,
            )
        )
    return found


def picture(rows: pd.DataFrame) -> bytes:
    """Validation accuracy against seconds: a line a seed, a colour an arm."""
    return lines(
        rows,
        lambda row: (row["epoch_seconds"], row["val_accuracy"]),
        title="Validation accuracy of one training",
    )


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("images")
    parser.add_argument("--limit-minutes", type=float, default=60.0)
    parser.add_argument(
        "--only", nargs="*", default=[], choices=[FAST, LONG, WIDE, *BASELINES], help="arms to run"
    )
    chosen = parser.parse_args()
    more: dict[str, Any] = {"data.validation.seed": 2}  # fast.yaml was chosen on 0 and 1
    goals, compared = GOALS, COMPARED
    if chosen.quick:
        goals = compared = QUICK_GOALS
        more |= {"data.train_limit": 10000}
    measured = partial(curve, images=chosen.images, limit_seconds=60 * chosen.limit_minutes, goals=goals)
    name = "time_to_accuracy-quick" if chosen.quick else "time_to_accuracy"
    fast = {"precision": "bfloat16", **more}
    if chosen.quick:
        fast |= {"training.epochs": 3}
    arms = {
        FAST: partial(measured, "fast", more=fast, until=1.0),
        LONG: partial(measured, "fast", more={**LONGER, **fast}, until=1.0),
        WIDE: partial(measured, "fast", more={**WIDER, **fast}, until=1.0),
        **{
            name: partial(measured, "baseline", more={**more, "precision": precision}, until=max(compared))
            for name, precision in BASELINES.items()
        },
    }
    only = chosen.only or ([FAST, "baseline, bfloat16"] if chosen.quick else [])
    data = read_recipe(EXPERIMENTS / "fast.yaml", {"data.reference": chosen.images, **more})
    made = {
        "train_digest": arrays_of(data).train_digest,
        "recipes": digest(*(EXPERIMENTS / f"{each}.yaml" for each in ("fast", "baseline"))),
        "limit_minutes": chosen.limit_minutes,
        "longer": LONGER,
        "wider": WIDER,
        **more,
    }
    rows = Benchmark(name=name, arms=arms, made=made).run(chosen.out, range(chosen.seeds), only)
    columns = [f"seconds_to_{goal:.0%}" for goal in goals]
    shown = rows.reindex(columns=["arm", "seed", *columns, "seconds", "best"])
    print(shown.to_string(index=False, na_rep=""))
    found = {}
    for goal, than in itertools.product(compared, BASELINES):
        times = sooner(rows, f"seconds_to_{goal:.0%}", than)
        if not times:
            continue
        found[f"{goal:.0%} than {than}"] = times
        told = ", ".join(
            "fast.yaml not there" if each is None else f"{'at least ' if bound else ''}{each:.1f}"
            for each, bound in times
        )
        print(f"{goal:.0%}: times sooner than {than}, by seed: {told}; target {TARGET:.0f}")
    write_summary(chosen.out, name, {"machine": machine(), "times_sooner": found, "target": TARGET})
    (chosen.out / f"{name}.png").write_bytes(picture(rows))


if __name__ == "__main__":
    main()
