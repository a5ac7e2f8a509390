"""What the comparison report and its table show, and what they say is missing."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from podium.reporting import failures, ranking
from podium.reporting.axis_scale import AxisScale, with_place_for_missing
from podium.reporting.report import ranked, render
from podium.reporting.sweep_plots import optimisation_history
from podium.reporting.sweep_record import SweepRecord

RATE, DEPTH, UNITS = "params.optimizer.learning_rate", "params.model.depth", "params.model.dense_units"


def trial(number, state="complete", value=np.nan, **changes):
    return {
        "trial": number,
        "run_id": f"run-{number}",
        "state": state,
        "value": value,
        "seconds": 60.0,
        "epochs": 6,
        "epochs_planned": 6,
        "cause": None,
        "message": None,
        "diagnosis": "healthy" if state == "complete" else None,
        RATE: 10.0 ** (-4 + number / 3),
        DEPTH: 1 + number % 4,
        UNITS: 128 if number % 4 >= 2 else None,
        **changes,
    }


TRIALS = pd.DataFrame(
    [
        trial(0, value=0.70),
        trial(1, value=0.75),
        trial(2, "pruned", value=0.90, epochs=2, seconds=20.0),
        trial(3, "failed", cause="nan", message="loss is <b>NaN</b> in epoch 2", epochs=1, seconds=np.nan),
        trial(4, value=0.72),
        trial(5, "running", value=0.3, epochs=1, seconds=10.0),
        trial(6, "failed", cause="nan", message="loss is <b>NaN</b> in epoch 2", epochs=0, seconds=1.0),
        trial(7, "pruned", value=0.4, epochs=4, seconds=40.0),
    ]
)
HISTORIES = pd.DataFrame(
    [
        {
            "run_id": f"run-{number}",
            "epoch": epoch,
            "loss": 2.0 / epoch,
            "accuracy": 0.1 * epoch,
            "val_loss": 2.2 / epoch,
            "val_accuracy": 0.1 * epoch,
            "learning_rate": 1e-3,
        }
        for number in range(8)
        for epoch in range(1, 5)
    ]
)
SWEEP = SweepRecord(
    name="digits",
    metric="val_accuracy",
    goal="maximize",
    trials=TRIALS,
    histories=HISTORIES,
    importances=pd.DataFrame(
        {"parameter": ["optimizer.learning_rate", "model.depth"], "importance": [0.7, 0.3]}
    ),
    importance_evaluator="Optuna's PED-ANOVA",
    commands=["podium sweep sweeps/quickstart.yaml --trials 8"],
    question="Is <i>depth</i> worth it?",
    compare_url="http://127.0.0.1:5000/#/compare-runs?runs=%5B%5D&experiments=%5B%5D",
    log_parameters=frozenset({"optimizer.learning_rate"}),
)


WITHOUT_PICTURES = replace(SWEEP, trials=TRIALS.head(0), histories=HISTORIES.head(0), importances=None)


class Page(HTMLParser):
    """The page's text, its pictures, and every address that it refers to."""

    def __init__(self, html):
        super().__init__()
        self.pieces, self.addresses, self.pictures, self.tags = [], [], [], []
        self.feed(html)
        self.close()
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "src":
                self.pictures.append(value)
            elif name in ("href", "srcset", "action"):
                self.addresses.append(value)

    def handle_data(self, data):
        self.pieces.append(data)


def page(*sweeps):
    return Page(render(sweeps, written="2026-01-31 12:00"))


@pytest.fixture(scope="module")
def html():
    return render([SWEEP], written="2026-01-31 12:00")


@pytest.fixture(scope="module")
def single(html):
    return Page(html)


def test_completed_trials_are_ranked_before_pruned_running_and_failed_ones():
    table = ranked([SWEEP])

    assert list(table["trial"]) == [1, 4, 0, 2, 7, 5, 3, 6]
    assert list(table["rank"].dropna()) == [1, 2, 3]


def test_lowest_value_ranks_first_where_the_goal_is_to_minimize():
    assert list(ranking.ranked_table(TRIALS, goal="minimize")["trial"])[:3] == [0, 4, 1]


def test_completed_trial_without_a_finite_value_has_no_rank():
    trials = pd.DataFrame([trial(0, value=np.inf), trial(1, value=0.5), trial(2)])

    table = ranking.ranked_table(trials, goal="maximize")

    assert list(table["trial"]) == [1, 0, 2]
    assert table["rank"].isna().tolist() == [False, True, True]


def test_account_sums_what_pruning_saved_and_counts_what_is_missing():
    spent = ranking.account(TRIALS)

    assert spent.epochs_saved == 4 + 2
    assert spent.hours_saved == pytest.approx((4 * 10 + 2 * 10) / 3600)
    assert spent.hours_spent == pytest.approx((3 * 60 + 20 + 10 + 1 + 40) / 3600)
    assert spent.epochs_trained == 6 * 3 + 2 + 1 + 1 + 0 + 4
    assert spent.without_seconds == 1
    assert spent.states == {"complete": 3, "pruned": 2, "failed": 2, "running": 1}


def test_what_a_continued_trial_took_over_is_not_counted_twice():
    begun = trial(0, state="pruned", value=0.5, seconds=20.0, epochs=2, epochs_planned=2)
    longer = trial(1, value=0.6, seconds=60.0, epochs=6, epochs_planned=6)
    trials = pd.DataFrame([begun, longer])

    spent = ranking.account(trials.assign(continues=[np.nan, 0.0]))

    assert (spent.epochs_trained, spent.hours_spent) == (6, pytest.approx(60 / 3600))
    twice = pd.concat([trials.assign(continues=[np.nan, 0.0]), trials.assign(continues=np.nan)])
    assert ranking.account(twice).epochs_trained == 6 + 8, "two runs of one trial"
    assert ranking.account(trials).epochs_trained == 8


def test_hours_saved_are_missing_where_no_time_is_on_record():
    assert ranking.account(TRIALS.assign(seconds=np.nan)).hours_saved is None


def test_terminal_table_shows_best_first_and_says_what_is_missing():
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(ranking.terminal_table(ranked([SWEEP]), metric="val_accuracy"))
    lines = console.export_text().splitlines()

    assert "learning_rate" in lines[0]
    assert lines[1].split()[:4] == ["1", "1", "complete", "0.7500"]
    assert "2/6" in lines[4]
    assert "missing" in lines[-1]


def test_markup_in_a_value_is_shown_as_it_is_in_the_terminal():
    trials = TRIALS.assign(diagnosis="[red]x[/red]")
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(
        ranking.terminal_table(ranked([replace(SWEEP, trials=trials)]), metric="val_accuracy", top=1)
    )

    assert "[red]x[/red]" in console.export_text()


@pytest.mark.slow
def test_page_needs_no_network(html, single):
    assert len(single.pictures) == 5
    assert all(address.startswith("data:image/png;base64,") for address in single.pictures)
    assert single.addresses == [SWEEP.compare_url]
    assert not {"script", "link", "iframe", "object", "embed"} & set(single.tags)
    assert "url(" not in html
    assert "@import" not in html


@pytest.mark.slow
def test_pictures_are_whole_and_wide_enough_to_read(single):
    for address in single.pictures:
        picture = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
        picture.load()
        assert picture.width >= 1200
        assert len(set(picture.convert("RGB").resize((100, 40)).get_flattened_data())) > 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "Learning curves",
        "Optimisation history",
        "Parallel coordinates",
        "Slices",
        "By Optuna's PED-ANOVA.",
        "best val_accuracy 0.7500 trial 1",
        "6 saved by pruning",
        "Trials whose time is missing, and not in the hours: 1.",
        "podium sweep sweeps/quickstart.yaml --trials 8",
        "Compare the top runs in MLflow",
        "2 nan loss is <b>NaN</b> in epoch 2 3, 6",
        "Is <i>depth</i> worth it?",
    ],
)
def test_page_tells(single, words):
    assert words in single.text


@pytest.mark.slow
def test_text_from_outside_is_escaped(html):
    assert "<b>NaN</b>" not in html
    assert "<i>depth</i>" not in html
    assert "&lt;b&gt;NaN" in html


def test_link_that_is_no_web_address_is_shown_as_text():
    shown = page(replace(WITHOUT_PICTURES, compare_url="javascript:alert(1)"))

    assert shown.addresses == []
    assert "comparison page is missing: javascript:alert(1)" in shown.text


def test_missing_parts_are_said_to_be_missing():
    bare = replace(
        SWEEP,
        trials=TRIALS[TRIALS["state"] == "failed"].assign(cause=None, message=None, run_id=None),
        histories=HISTORIES.head(0),
        importances=None,
        importance_evaluator="importance needs at least two completed trials.",
        commands=[],
        compare_url=None,
    )

    shown = page(bare)

    assert shown.pictures == []
    for words in (
        "best val_accuracy missing no trial is complete",
        "No trial has a value, so there is nothing to draw.",
        "No epoch is on record, so there is nothing to draw.",
        "Missing: importance needs at least two completed trials.",
        "cause missing message missing",
        "The commands are missing.",
        "comparison page is missing.",
    ):
        assert words in shown.text
    causes = " ".join(failures.CAUSES)  # a cause is named nan
    assert not re.search(r"\b(nan|None|NaT|<NA>)\b", shown.text.replace(causes, ""))


def test_sweep_without_trials_is_shown():
    shown = page(WITHOUT_PICTURES)

    assert "trials 0" in shown.text


@pytest.mark.slow
def test_sweep_of_one_trial_is_shown():
    shown = page(replace(SWEEP, trials=TRIALS.head(1), histories=HISTORIES.head(1)))

    assert "No parameter varies" in shown.text
    assert "best val_accuracy 0.7000 trial 0" in shown.text


@pytest.mark.slow
def test_sweeps_with_different_spaces_stand_side_by_side():
    other = replace(
        SWEEP,
        name="digits, by name",
        trials=TRIALS.drop(columns=[RATE, UNITS]).assign(
            **{"params.optimizer.name": ["adam", "sgd"] * 4, "value": TRIALS["value"] + 0.1}
        ),
    )

    shown = page(SWEEP, other)
    table = ranked([SWEEP, other])

    assert len(shown.pictures) == 11
    assert "Best so far" in shown.text
    assert "optimizer.name" in shown.text
    assert table["sweep"].iloc[0] == "digits, by name"
    assert list(table["rank"].dropna()) == [1, 2, 3, 4, 5, 6]


def test_sweeps_with_different_objectives_are_ranked_each_by_itself():
    other = replace(SWEEP, name="by loss", metric="val_loss", goal="minimize")

    bare = replace(other, trials=TRIALS.head(0), histories=HISTORIES.head(0), importances=None)
    shown = page(WITHOUT_PICTURES, bare)

    assert "The sweeps differ in objective, so each is ranked by itself." in shown.text
    assert list(ranked([SWEEP, other])["rank"].dropna()) == [1, 2, 3, 1, 2, 3]


def test_sweeps_of_one_name_are_refused():
    with pytest.raises(ValueError, match="names of their own"):
        ranked([SWEEP, SWEEP])


def test_frame_that_lacks_a_column_is_refused():
    with pytest.raises(ValueError, match="digits: a frame lacks the columns state"):
        replace(SWEEP, trials=TRIALS.drop(columns="state"))


@pytest.mark.slow
def test_loss_that_exploded_does_not_stop_the_page():
    histories = HISTORIES.assign(val_loss=HISTORIES["val_loss"].where(HISTORIES.index != 3, np.inf))
    histories.loc[5, "val_loss"] = 1e30

    assert len(page(replace(SWEEP, histories=histories)).pictures) == 5


@pytest.mark.slow
def test_values_of_every_type_have_a_place_on_an_axis():
    trials = TRIALS.assign(
        **{
            "params.a": [True, False] * 4,
            "params.b": ["x $y$", "z", None, "ü", "x $y$", "z", "z", "z"],
            "params.c": [0.0, 1e-7, 1e7, 3.5, np.nan, 2.0, 1.0, 0.5],
            "params.d": [5] * 8,
        }
    )

    shown = page(replace(SWEEP, trials=trials, log_parameters=frozenset({"c"})))

    assert len(shown.pictures) == 5
    assert "Not shown because they never varied: d." in shown.text


def test_the_best_so_far_reaches_to_the_last_trial() -> None:
    trials = pd.DataFrame(
        {
            "trial": [0, 1, 2, 3],
            "state": ["complete", "complete", "pruned", "pruned"],
            "value": [0.4, 0.6, 0.3, 0.2],
        }
    )
    axes = optimisation_history(trials, metric="val_accuracy", goal="maximize").axes[0]
    [line] = [each for each in axes.get_lines() if each.get_label() == "best so far"]
    assert list(line.get_xdata()) == [0, 1, 3]
    assert list(line.get_ydata()) == [0.4, 0.6, 0.6]


def test_places_of_an_axis_are_found_again_whatever_their_types():
    mixed = pd.Series([True, 1.0, 2.5, "x"], dtype=object)

    assert np.isfinite(AxisScale.of(mixed).coordinates(mixed)).all()


def test_a_choice_of_nothing_has_a_place_of_its_own() -> None:
    clipped = pd.Series([None, 1.0, None, 1.0, 1.0], dtype=object)
    shown = with_place_for_missing(clipped)
    scale = AxisScale.of(shown)
    assert scale.categories == ("1", "not set")
    assert scale.coordinates(shown).tolist() == [1.0, 0.0, 1.0, 0.0, 0.0]
    # A conditional number that hardly recurs keeps its axis, and trials without it are not on it.
    assert with_place_for_missing(pd.Series([0.1, np.nan, 0.2, 0.35])).tolist() == [0.1, 0.2, 0.35]
