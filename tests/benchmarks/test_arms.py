"""Arms in turns: what is on file is not measured again, and nothing is compared that was made otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from arms import Benchmark
from time_to_accuracy import FAST, picture, sooner
from time_to_quality import PODIUM, REFERENCE, compared, curve, times_sooner


class Two:
    """A benchmark of two arms, and the calls that they got."""

    def __init__(self, **made: Any) -> None:
        self.calls: list[tuple[str, int]] = []
        arms = {name: self._arm(name) for name in ("one", "two")}
        self.benchmark = Benchmark(name="two", arms=arms, made=made)

    def _arm(self, name: str) -> Any:
        def measure(seed: int) -> dict[str, int]:
            self.calls.append((name, seed))
            return {"value": seed}

        return measure


def test_arms_take_turns_and_are_measured_once(tmp_path: Path) -> None:
    two = Two()
    rows = two.benchmark.run(tmp_path, range(2))
    assert two.calls == [("one", 0), ("two", 0), ("two", 1), ("one", 1)]
    assert two.benchmark.run(tmp_path, range(2)).equals(rows)
    assert len(two.calls) == 4


def test_some_arms_go_into_the_rows_of_all(tmp_path: Path) -> None:
    two = Two()
    assert set(two.benchmark.run(tmp_path, range(2), ["one"])["arm"]) == {"one"}
    assert len(two.benchmark.run(tmp_path, range(2), ["two"])) == 4
    assert two.calls == [("one", 0), ("one", 1), ("two", 0), ("two", 1)]


def test_rows_made_otherwise_are_refused(tmp_path: Path) -> None:
    Two(minutes=1).benchmark.run(tmp_path, range(1))
    with pytest.raises(SystemExit, match="made otherwise"):
        Two(minutes=2).benchmark.run(tmp_path, range(1))


def test_all_arms_of_a_seed_are_measured_on_one_processor(tmp_path: Path) -> None:
    two = Two()
    two.benchmark.run(tmp_path, range(1))
    two.benchmark.run(tmp_path, range(2), ["one"])
    path = tmp_path / "two.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["processor"] = "another"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SystemExit, match="seed 1 was begun on another processor"):
        two.benchmark.run(tmp_path, range(2))
    assert len(two.benchmark.run(tmp_path, [0])) == 2  # of which nothing is missing
    two.benchmark.run(tmp_path, [2])
    assert two.calls[-2:] == [("one", 2), ("two", 2)]


def test_times_sooner_are_of_one_seed_and_say_what_is_a_bound() -> None:
    rows = pd.DataFrame(
        [
            {"arm": FAST, "seed": 0, "to": 10.0, "seconds": 50.0},
            {"arm": "baseline", "seed": 0, "to": 80.0, "seconds": 90.0},
            {"arm": FAST, "seed": 1, "to": 10.0, "seconds": 50.0},
            {"arm": "baseline", "seed": 1, "to": None, "seconds": 90.0},
            {"arm": FAST, "seed": 2, "to": None, "seconds": 50.0},
            {"arm": "baseline", "seed": 2, "to": 80.0, "seconds": 90.0},
            {"arm": FAST, "seed": 3, "to": 10.0, "seconds": 50.0},
        ]
    )
    assert sooner(rows, "to", "baseline") == [(8.0, False), (9.0, True), (None, False)]


def test_curves_of_several_lengths_make_a_picture() -> None:
    rows = pd.DataFrame(
        [
            {"arm": FAST, "seed": 0, "epoch_seconds": [1.0, 2.0], "val_accuracy": [0.5, 0.6]},
            {"arm": "baseline", "seed": 0, "epoch_seconds": [3.0], "val_accuracy": [0.4]},
        ]
    )
    assert picture(rows).startswith(b"\x89PNG")


def test_a_curve_ends_with_the_time_and_rises_only() -> None:
    found = curve([30.0, 10.0, 20.0, 50.0], [0.4, 0.3, 0.2, 0.9], seconds=40.0)
    assert found["rises"] == [[10.0, 0.3], [30.0, 0.4]]
    assert (found["best"], found["epochs"]) == (0.4, 3)
    with pytest.raises(RuntimeError, match="first epoch ended after 50 s"):
        curve([50.0], [0.9], seconds=40.0)


def test_times_to_quality_are_paired_by_seed() -> None:
    def row(arm: str, seed: int, *rises: tuple[float, float]) -> dict[str, Any]:
        return {"arm": arm, "seed": seed, "best": rises[-1][1], "rises": rises}

    rows = pd.DataFrame(
        [
            row(REFERENCE, 0, (10.0, 0.3), (90.0, 0.5)),
            row("other", 0, (20.0, 0.4)),
            row(PODIUM, 0, (9.0, 0.6)),
            row(REFERENCE, 2, (80.0, 0.7)),
            row("other", 2, (40.0, 0.7)),
            row(PODIUM, 2, (20.0, 0.8)),
            row(PODIUM, 3, (5.0, 0.8)),  # without the plain arm there is nothing to reach
            row(REFERENCE, 4, (50.0, 0.9)),
            row("other", 4, (60.0, 0.5)),
            row(PODIUM, 4, (50.0, 0.2)),
        ]
    )
    found = times_sooner(compared(rows), 100.0, PODIUM)
    assert found[REFERENCE] == {0: (10.0, False), 2: (4.0, False), 4: (0.0, False)}
    assert found["other"] == {0: (pytest.approx(100 / 9), True), 2: (2.0, False), 4: (0.0, False)}
    assert PODIUM not in found
