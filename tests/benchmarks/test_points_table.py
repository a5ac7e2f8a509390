"""How recorded points are kept, and how a recorder goes on with what a table lacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from synthetic_points import ARRAYS, cut_short, made_up_point, made_up_table, small_sweep

from podium.executors.local import LocalExecutor
from podium.recipe import Recipe
from podium.recipe_sections import ModelSettings, TrainingSettings
from podium.search_space import fits

# isort: split
from points_table import Point, appending, read_table
from record_points import parameters_of, point_of
from toy_trainers import FOLDER, TOY
from trainings import Trainings

MADE = {"epochs": 9, "space": {"a": (1, 2)}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "points.jsonl"


def test_points_are_there_when_the_table_is_opened_again(path: Path) -> None:
    first, second = (made_up_point(number, {"a": number}, best=0.5) for number in (0, 1))
    with appending(path, MADE) as appender:
        appender.append(first)
    with appending(path, MADE) as appender:
        assert appender.recorded == {0}
        appender.append(second)
        with pytest.raises(ValueError, match="point 0 is in the table already"):
            appender.append(first)
    table = read_table(path)
    assert list(table.points) == [0, 1]
    assert table.points[1].parameters == {"a": 1}
    assert list(table.points[1].val_accuracy) == list(second.val_accuracy)


def test_line_that_a_kill_cut_short_is_dropped(path: Path) -> None:
    with appending(path, MADE) as appender:
        appender.append(made_up_point(0, {}, best=0.5))
    whole = path.read_text()
    path.write_text(whole + '{"point": 1, "parame')
    assert list(read_table(path).points) == [0]
    with appending(path, MADE) as appender:
        assert appender.recorded == {0}
        assert path.read_text() == whole
        appender.append(made_up_point(1, {}, best=0.5))
    assert list(read_table(path).points) == [0, 1]


def test_second_recorder_is_refused(path: Path) -> None:
    with appending(path, MADE), pytest.raises(BlockingIOError), appending(path, MADE):
        pass


def test_table_made_in_another_way_is_refused_with_the_difference(path: Path) -> None:
    with appending(path, MADE):
        pass
    with pytest.raises(ValueError, match="epochs: table 9, now 27"), appending(path, {**MADE, "epochs": 27}):
        pass


def test_file_that_is_no_table_is_refused(path: Path) -> None:
    path.write_text("number,value\n1,2\n")
    with pytest.raises(ValueError, match="not a table of"):
        read_table(path)


def test_points_are_the_baseline_and_a_sequence_that_grows() -> None:
    sweep = small_sweep()
    few, many = parameters_of(sweep, 5), parameters_of(sweep, 40)
    assert many[: len(few)] == few
    assert few[0]["optimizer.learning_rate"] == 1e-3
    assert len(few) == 6
    assert all(fits(sweep.file.space, values) for values in many)
    assert {values["model.depth"] for values in many} == {1, 2, 3, 4}


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[LocalExecutor]:
    with closing(
        LocalExecutor(workers=1, threads=1, log_folder=tmp_path / "logs", trainer=TOY, paths=[FOLDER])
    ) as made:
        yield made


def recorded(executor: LocalExecutor, folder: Path, *behaviours: str) -> list[Point]:
    """Points of two epochs by the toy trainer, each with a behaviour."""
    model = ModelSettings(parameters={"behaviour": "learn", "seconds": 0.0})
    recipe = Recipe(model=model, training=TrainingSettings(epochs=2))
    values = [{"model.parameters.behaviour": name} for name in behaviours]
    recipes = {number: recipe.with_values(each) for number, each in enumerate(values)}
    trainings = Trainings(recipes, ARRAYS, folder)
    return [point_of(each, values[each.number]) for each in trainings.run(executor)]


@pytest.mark.slow
def test_recorder_keeps_whole_curves_and_failures(tmp_path: Path, executor: LocalExecutor) -> None:
    folder = tmp_path / "work"
    learned, diverged = recorded(executor, folder, "learn", "diverge")
    assert learned.val_accuracy == (0.5, 0.666667)
    assert (learned.failed, learned.size) == (None, 0)
    assert (diverged.failed, diverged.val_accuracy) == ("nan", ())
    assert list(folder.iterdir()) == []
    with pytest.raises(RuntimeError, match=r"training 0 failed in attempt 3: .*code 7"):
        recorded(executor, folder, "crash")


def test_failed_point_keeps_the_epochs_that_it_had(path: Path) -> None:
    table = cut_short(made_up_table(2), 1, epochs=3)
    with appending(path, table.made) as appender:
        appender.append(table.points[1])
    assert len(read_table(path).points[1].val_accuracy) == 3
    assert read_table(path).points[1].failed == "nan"
