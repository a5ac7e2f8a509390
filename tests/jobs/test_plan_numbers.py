"""The arithmetic of `podium sweep --plan`: corners, trials, epochs, seconds, memory, disk, and how they are shown."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter
from rich.console import Console

from podium.recipe import Recipe
from podium.result import Failure
from podium.search_space import Space
from podium.session.calibration import Calibration, Measured
from podium.session.corner_sizes import Built, NotBuilt
from podium.session.model_corners import MAX_CORNERS, extreme, largest_batch, listed_models, model_corners
from podium.session.plan_costs import disk_bytes, memory_bytes, rates, seconds, within_hours
from podium.session.plan_document import SweepPlan, document, doubts, shown
from podium.session.plan_extent import Span, extent
from podium.session.space_survey import (
    BASELINE,
    LEAST,
    MOST,
    OUT_OF_MEMORY,
    Corner,
    Survey,
    extremes,
    judged,
)
from podium.sweep_file import Sweep, read_sweep

RATE = {"type": "float", "low": 1e-4, "high": 1e-2, "scale": "log"}
EPOCHS = 12
OPEN: dict[str, Any] = {"optimizer.learning_rate": RATE}


def space_of(content: Mapping[str, Any]) -> Space:
    return TypeAdapter(Space).validate_python(content)


def sweep_of(
    folder: Path,
    *,
    space: Mapping[str, Any] = OPEN,
    engine: Mapping[str, Any] | None = None,
    budget: Mapping[str, Any] | None = None,
    stopping: Mapping[str, Any] | None = None,
    **more: Any,
) -> Sweep:
    recipe = {"training": {"epochs": EPOCHS}, "callbacks": {"early_stopping": stopping}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    content = {
        "name": "planned",
        "question": "How [many]?",
        "recipe": "recipe.yaml",
        "engine": engine or {"name": "optuna", "sampler": "random", "pruner": "none"},
        "budget": budget or {"trials": 10},
        "space": space,
        **more,
    }
    (folder / "planned.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return read_sweep(folder / "planned.yaml")


def measured(epoch: float, *, start: float = 2.0, parameters: int = 1000, peak: int = 10**9) -> Measured:
    return Measured(
        images=512,
        images_per_second=100.0,
        epoch_seconds=epoch,
        start_seconds=start,
        peak_bytes=peak,
        parameters=parameters,
        kept_bytes=50_000,
        checkpoint_bytes=80_000,
        device="a processor",
        threads=1,
    )


class TestCorners:
    def test_conditions_are_kept_and_what_changes_no_shape_is_left_out(self) -> None:
        space = space_of(
            {
                **OPEN,
                "model.depth": {"type": "int", "low": 1, "high": 3},
                "model.dropout": {"type": "float", "low": 0.0, "high": 0.5},
                "model.dense_units": {
                    "type": "categorical",
                    "choices": [64, 128],
                    "when": {"model.depth": [3]},
                },
            }
        )
        corners, count = model_corners(space, Recipe())
        assert corners == [
            {"model.depth": 1},
            {"model.depth": 2},
            {"model.depth": 3, "model.dense_units": 64},
            {"model.depth": 3, "model.dense_units": 128},
        ]
        assert count == 4

    def test_of_many_values_the_ends_and_what_conditions_name_are_looked_at(self) -> None:
        space = space_of(
            {
                "model.filters": {"type": "int", "low": 8, "high": 62, "step": 8},
                "model.dense_units": {"type": "int", "low": 10, "high": 99, "when": {"model.filters": [24]}},
            }
        )
        corners, _ = model_corners(space, Recipe())
        assert corners == [
            {"model.filters": 8},
            {"model.filters": 56},
            {"model.filters": 24, "model.dense_units": 10},
            {"model.filters": 24, "model.dense_units": 99},
        ]

    def test_where_that_is_too_many_the_ends_are_enough(self) -> None:
        names = ["model.depth", "model.filters", "model.dense_units"]
        space = space_of({name: {"type": "int", "low": 2, "high": 4} for name in names})
        assert model_corners(space, Recipe())[1] == 27
        recipe = Recipe().with_values({"model.builder": "a:b", "model.parameters": {"width": 2, "rank": 2}})
        more = {
            f"model.parameters.{name}": {"type": "int", "low": 2, "high": 4} for name in ("width", "rank")
        }
        space = {**space, **space_of(more)}
        corners, count = model_corners(space, recipe)
        assert count == 2**5
        assert {value for corner in corners for value in corner.values()} == {2, 4}

    def test_a_condition_on_another_section_gives_both_models(self) -> None:
        space = space_of(
            {
                "augmentation.flip": {"type": "categorical", "choices": [True, False]},
                "model.dense_units": {
                    "type": "categorical",
                    "choices": [64],
                    "when": {"augmentation.flip": [True]},
                },
            }
        )
        assert model_corners(space, Recipe())[0] == [{"model.dense_units": 64}, {}]

    def test_a_space_without_model_keys_has_the_recipes_model_alone(self) -> None:
        assert model_corners(space_of(OPEN), Recipe()) == ([{}], 1)

    def test_of_a_list_its_own_models_are_looked_at(self) -> None:
        space = space_of({**OPEN, "model.depth": {"type": "int", "low": 1, "high": 4}})
        points = [{"model.depth": depth, "optimizer.learning_rate": 1e-3} for depth in (3, 2, 3)]
        assert listed_models(space, Recipe(), points) == [{"model.depth": 3}, {"model.depth": 2}]

    def test_too_many_corners_are_spread_and_counted(self) -> None:
        names = [f"p{index}" for index in range(20)]
        recipe = Recipe().with_values({"model.builder": "a:b", "model.parameters": dict.fromkeys(names, 0.0)})
        space = space_of({f"model.parameters.{name}": {**RATE, "scale": "linear"} for name in names})
        corners, count = model_corners(space, recipe)
        assert (len(corners), count) == (MAX_CORNERS, 2**20)
        assert set(corners[0].values()) == {1e-4}
        assert set(corners[-1].values()) == {1e-2}

    def test_the_slow_end_has_small_batches_and_the_fast_end_no_augmentation(self) -> None:
        space = space_of(
            {
                "training.batch_size": {"type": "categorical", "choices": [32, 256, 16]},
                "augmentation.strength": {"type": "float", "low": 0.0, "high": 2.0},
            }
        )
        slow = extreme(Recipe(), space, {"model.depth": 2}, fast=False)
        fast = extreme(Recipe(), space, {}, fast=True)
        assert (slow.training.batch_size, slow.augmentation.strength, slow.model.depth) == (16, 2.0, 2)
        assert (fast.training.batch_size, fast.augmentation.strength) == (256, 0.0)
        assert largest_batch(space, Recipe()) == 256


class TestExtent:
    def test_without_pruning_every_trial_trains_in_full(self, tmp_path: Path) -> None:
        found = extent(sweep_of(tmp_path))
        assert (found.trials, found.epochs) == (Span(least=10, most=10), Span(least=120, most=120))

    def test_early_stopping_needs_its_patience_and_an_epoch(self, tmp_path: Path) -> None:
        found = extent(sweep_of(tmp_path, stopping={"patience": 3}))
        assert found.epochs == Span(least=10 * 4, most=120)

    @pytest.mark.parametrize("pruner", ["hyperband", "successive_halving"])
    def test_pruning_gives_a_range_in_which_the_baseline_is_whole(self, pruner: str, tmp_path: Path) -> None:
        engine = {"name": "optuna", "sampler": "random", "pruner": pruner}
        found = extent(sweep_of(tmp_path, engine=engine))
        assert found.epochs is not None
        assert EPOCHS + 9 <= found.epochs.least < 100
        assert found.epochs.most == 120

    def test_epochs_that_are_swept_count_at_their_ends(self, tmp_path: Path) -> None:
        space = {**OPEN, "training.epochs": {"type": "int", "low": 5, "high": 20}}
        assert extent(sweep_of(tmp_path, space=space)).epochs == Span(
            least=EPOCHS + 9 * 5, most=EPOCHS + 9 * 20
        )

    def test_a_budget_of_epochs_is_never_passed(self, tmp_path: Path) -> None:
        both = extent(sweep_of(tmp_path, budget={"trials": 10, "epochs": 50}))
        assert (both.trials, both.epochs) == (Span(least=5, most=10), Span(least=50, most=50))
        alone = extent(sweep_of(tmp_path, budget={"epochs": 50}))
        assert (alone.trials, alone.epochs) == (Span(least=5, most=5), Span(least=50, most=50))

    def test_no_improvement_may_end_it_early(self, tmp_path: Path) -> None:
        found = extent(sweep_of(tmp_path, stop_when={"no_improvement": 4}))
        assert (found.trials, found.epochs) == (Span(least=5, most=10), Span(least=60, most=120))

    def test_hours_alone_leave_both_open(self, tmp_path: Path) -> None:
        found = extent(sweep_of(tmp_path, budget={"hours": 1.0}))
        assert (found.trials, found.epochs) == (None, None)

    def test_equal_points_are_trained_once_and_the_baseline_may_lie_beside_them(self, tmp_path: Path) -> None:
        choices = {"type": "categorical", "choices": [16, 32, 64]}
        inside = sweep_of(tmp_path, space={"training.batch_size": choices})
        assert extent(inside).trials == Span(least=3, most=3)
        beside = sweep_of(tmp_path, space={"training.batch_size": {**choices, "choices": [16, 32]}})
        assert extent(beside).trials == Span(least=3, most=3)

    def test_a_list_has_its_own_trials_equal_ones_once(self, tmp_path: Path) -> None:
        engine = {
            "name": "listed",
            "trials": [
                {"training.batch_size": 16},
                {"training.batch_size": 128},
                {"training.batch_size": 16},
            ],
        }
        space = {"training.batch_size": {"type": "categorical", "choices": [16, 64, 128]}}
        found = extent(sweep_of(tmp_path, engine=engine, space=space))
        assert (found.trials, found.epochs) == (Span(least=3, most=3), Span(least=36, most=36))


class TestCosts:
    def test_seconds_lie_between_all_fast_and_all_slow(self, tmp_path: Path) -> None:
        wanted = extent(sweep_of(tmp_path))
        rate = rates(measured(2.0), [measured(1.0), measured(4.0, start=3.0)])
        span = seconds(wanted, rate, workers=2, hours=None, warm_seconds=5.0)
        assert span.least == 5 + (12 * 2 + 108 * 1 + 10 * 2) / 2
        assert span.most == 5 + (12 * 2 + 108 * 4 + 10 * 3) / 2 + (12 * 4 + 3) / 2

    def test_one_worker_after_the_other_waits_for_no_last_trial(self, tmp_path: Path) -> None:
        wanted = extent(sweep_of(tmp_path))
        span = seconds(wanted, rates(measured(2.0), []), workers=1, hours=None, warm_seconds=0.0)
        assert span.least == span.most == 120 * 2 + 10 * 2

    def test_hours_end_a_trial_after_the_epoch_it_is_in(self, tmp_path: Path) -> None:
        wanted = extent(sweep_of(tmp_path))
        rate = rates(measured(60.0, start=0.0), [measured(30.0, start=0.0), measured(90.0, start=0.0)])
        span = seconds(wanted, rate, workers=1, hours=0.5, warm_seconds=0.0)
        assert (span.least, span.most) == (1800.0, 1800.0 + 90.0)
        trials, epochs = within_hours(wanted, rate, workers=1, hours=0.5)
        assert epochs == Span(least=1800 // 90, most=61)
        assert trials == Span(least=1, most=6)

    def test_hours_alone_give_time_and_epochs(self, tmp_path: Path) -> None:
        wanted = extent(sweep_of(tmp_path, budget={"hours": 1.0}))
        rate = rates(measured(10.0, start=0.0), [])
        assert within_hours(wanted, rate, workers=2, hours=1.0)[1] == Span(least=720, most=722)
        assert seconds(wanted, rate, workers=2, hours=1.0, warm_seconds=3.0).least == 3600.0

    def test_memory_starts_from_what_was_measured(self) -> None:
        small = Built(parameters=10, state_bytes=1_000, activation_bytes=100, multiply_adds=1)
        large = Built(parameters=20, state_bytes=5_000, activation_bytes=300, multiply_adds=1)
        anchor = measured(1.0, peak=50_000)
        found = memory_bytes(large, 64, anchor=anchor, anchor_network=small, anchor_batch=32)
        assert found == 50_000 + (5_000 + 2 * 64 * 300) - (1_000 + 2 * 32 * 100)
        untold = Built(parameters=20, state_bytes=5_000, activation_bytes=None, multiply_adds=None)
        assert memory_bytes(untold, 64, anchor=anchor, anchor_network=small, anchor_batch=32) is None

    def test_disk_holds_files_twice_and_checkpoints_while_training(self) -> None:
        found = disk_bytes(10, [measured(1.0)], parameters=1000, workers=2, continued=False)
        assert found == 2 * 10 * 50_000 + 2 * 80_000
        larger = disk_bytes(10, [measured(1.0)], parameters=3000, workers=2, continued=False)
        assert larger == 2 * 10 * (50_000 + 4 * 2000) + 2 * 240_000
        assert disk_bytes(10, [measured(1.0)], parameters=1000, workers=2, continued=True) > found


class TestSurvey:
    def network(self, work: int | None, *, outputs: int = 10) -> Built:
        return Built(parameters=work or 7, state_bytes=0, activation_bytes=outputs, multiply_adds=work)

    def test_what_works_least_and_most_is_measured_if_it_fits(self) -> None:
        points = [{"model.depth": depth} for depth in range(1, 5)]
        built = [self.network(30), NotBuilt("no"), self.network(20), self.network(90, outputs=10_000)]
        fitting = extremes(points, built, batch=32, room=64_000)
        assert fitting == {LEAST: {"model.depth": 3}, MOST: {"model.depth": 1}}
        assert extremes(points, built, batch=32, room=None)[MOST] == {"model.depth": 4}
        assert extremes(points, [NotBuilt("no")] * 4, batch=32, room=None) == {}

    def test_without_multiply_adds_parameters_decide(self) -> None:
        points = [{"model.depth": 1}, {"model.depth": 2}]
        built = [self.network(3), self.network(None)]  # of 3 and of 7 parameters
        assert extremes(points, built, batch=1, room=None)[MOST] == {"model.depth": 2}

    def test_a_corner_that_cannot_be_built_trained_or_held_says_so(self) -> None:
        network = self.network(5)
        assert judged({}, network, needed=10, room=10, failure=None).problem is None
        assert judged({}, network, needed=11, room=10, failure=None).problem == OUT_OF_MEMORY
        assert judged({}, network, needed=11, room=None, failure=None).problem is None
        assert judged({}, network, needed=None, room=10, failure="loss is nan").problem == "loss is nan"
        assert judged({}, NotBuilt("too deep"), needed=None, room=10, failure=None).problem == "too deep"


def planned(folder: Path, *, workers: int = 2, free_bytes: int = 10**12) -> SweepPlan:
    space = {
        **OPEN,
        "model.depth": {"type": "int", "low": 1, "high": 3},
        "model.dense_units": {
            "type": "categorical",
            "choices": [64, 128],
            "when": {"model.depth": [2, 3]},
        },
    }
    spec = sweep_of(folder, space=space, constraints={"parameters": {"at_most": 2500}}, workers=workers,
                    engine={"name": "optuna", "sampler": "random", "pruner": "hyperband"})  # fmt: skip
    networks = [Built(parameters=size, state_bytes=1, activation_bytes=1, multiply_adds=size)
                for size in (3000, 2000, 1000)]  # fmt: skip
    corners = [
        Corner(parameters={"model.depth": depth}, built=network, memory_bytes=10**9, problem=None)
        for depth, network in enumerate(networks, start=1)
    ]
    reason = "model.depth: got [bold]4"
    corners.append(
        Corner(parameters={"model.depth": 4}, built=NotBuilt(reason), memory_bytes=None, problem=reason)
    )
    survey = Survey(
        corners=corners,
        corner_count=4,
        batch=64,
        calibration=Calibration(
            measured={BASELINE: measured(1.0)},
            failed={MOST: Failure(cause="memory", message="out of memory: no room")},
            warm_seconds=4.0,
        ),
        changes={BASELINE: {}, MOST: {"model.depth": 3}},
        workers=2,
        worker_bytes=2 * 10**9,
    )
    return SweepPlan(spec=spec, survey=survey, threads=1, free_bytes=free_bytes, filled_cache=Path("/cache"))


class TestAnswer:
    def test_people_see_space_corners_and_what_it_takes(self, tmp_path: Path) -> None:
        console = Console(file=io.StringIO(), width=160)
        for part in shown(planned(tmp_path)):
            console.print(part, markup=not isinstance(part, str), soft_wrap=isinstance(part, str))
        assert isinstance(console.file, io.StringIO)
        text = console.file.getvalue()
        rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
        assert "How [many]?" in text
        assert "model.depth is 2 or 3" in rows["model.dense_units"]
        assert "combinations: continuous" in text
        assert "largest; infeasible: above 2,500 parameters" in rows["depth=1"]
        assert "smallest" in rows["depth=3"]
        assert "model.depth: got [bold]4" in rows["depth=4"]
        assert "to 120" in rows["epochs"]
        assert "2 of 1 thread each" in rows["workers"]
        assert "decoded into /cache" in text

    def test_json_has_the_fixed_keys(self, tmp_path: Path) -> None:
        found = document(planned(tmp_path))["plan"]
        assert set(found) >= {"space", "combinations", "corners", "epochs", "seconds", "disk_bytes"} | {
            "images_per_second",
            "workers",
            "threads",
        }
        assert found["space"]["model.dense_units"]["when"] == {"model.depth": [2, 3]}
        assert [corner["trainable"] for corner in found["corners"]] == [True, True, True, False]
        assert [corner["feasible"] for corner in found["corners"]] == [False, True, True, None]
        assert found["corners"][-1]["reason"] == "model.depth: got [bold]4"
        assert set(found["epochs"]) == set(found["seconds"]) == {"min", "max"}

    def test_what_is_doubtful_is_a_warning(self, tmp_path: Path) -> None:
        found = doubts(planned(tmp_path, workers=4, free_bytes=1000))
        assert "1 of 4 models looked at cannot be trained" in found[0]
        assert "most work" in found[1]
        assert "no room" in found[1]
        assert "the disk has 1.0 kB left" in found[2]
        assert "4 workers are asked for, 2 can run" in found[3]
        assert len(found) == 4
