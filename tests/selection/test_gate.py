"""What the gate refuses, and what its flags waive."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from podium.selection.gate import Champion, Evidence, Standing, check, waived

GOOD = Evidence(
    run_id="run-1",
    status="FINISHED",
    metric="val_accuracy",
    goal="maximize",
    metrics={"val_accuracy": 0.8, "val_loss": 0.5},
    mean=0.8,
    standing=Standing.MEDIAN_SEED,
    recorded_sha256="a" * 64,
    actual_sha256="a" * 64,
    train_digest="1" * 64,
    test_digest="2" * 64,
    opened_train_digest="1" * 64,
    opened_test_digest="2" * 64,
)
CHAMPION = Champion(
    version="3",
    run_id="run-0",
    metric="val_accuracy",
    mean=0.7,
    train_digest="1" * 64,
    test_digest="2" * 64,
)


def codes(evidence):
    return [refusal.code for refusal in check(evidence)]


def test_median_seed_run_of_a_confirmed_winner_passes():
    assert check(GOOD) == []
    assert check(replace(GOOD, champion=CHAMPION)) == []


def test_data_without_a_test_part_passes():
    assert check(replace(GOOD, test_digest=None, opened_test_digest=None)) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"status": "FAILED"}, "not-finished"),
        ({"status": "RUNNING"}, "not-finished"),
        ({"metrics": {"val_accuracy": 0.8, "val_loss": math.nan}}, "not-finite"),
        ({"metrics": {"val_accuracy": math.inf}, "mean": math.inf}, "not-finite"),
        ({"metrics": {}, "mean": None}, "no-value"),
        ({"opened_train_digest": "9" * 64}, "wrong-training-data"),
        ({"opened_test_digest": "9" * 64}, "wrong-test-data"),
        ({"opened_test_digest": None}, "wrong-test-data"),
        ({"actual_sha256": None}, "missing-artifact"),
        ({"recorded_sha256": None}, "missing-artifact"),
        ({"actual_sha256": "b" * 64}, "tampered-artifact"),
        ({"not_promotable": "layer Mine is not of Keras."}, "not-promotable"),
    ],
)
def test_fault_is_refused_for_one_reason_that_no_flag_waives(changes, code):
    evidence = replace(GOOD, **changes, unconfirmed="because", anyway="because")

    assert codes(evidence) == [code]
    assert waived(evidence) == []


@pytest.mark.parametrize("standing", [Standing.UNCONFIRMED, Standing.NOT_WINNER, Standing.OTHER_SEED])
def test_anything_but_the_median_seed_run_needs_a_reason(standing):
    evidence = replace(GOOD, standing=standing)

    assert codes(evidence) == ["unconfirmed"]
    assert standing.value in check(evidence)[0].message
    assert codes(replace(evidence, unconfirmed="  ")) == ["unconfirmed"]
    assert codes(replace(evidence, anyway="the other flag")) == ["unconfirmed"]
    assert codes(replace(evidence, unconfirmed="a demo")) == []
    assert [(one.code, reason) for one, reason in waived(replace(evidence, unconfirmed="a demo"))] == [
        ("unconfirmed", "a demo")
    ]


@pytest.mark.parametrize(
    ("champion", "code"),
    [
        ({"mean": 0.8}, "not-better"),
        ({"mean": 0.9}, "not-better"),
        ({"train_digest": "9" * 64}, "other-data"),
        ({"test_digest": None}, "other-data"),
        ({"metric": "val_loss"}, "not-comparable"),
        ({"mean": None}, "not-comparable"),
        ({"mean": math.nan}, "not-comparable"),
    ],
)
def test_run_that_does_not_beat_the_champion_on_the_same_data_needs_a_reason(champion, code):
    evidence = replace(GOOD, champion=replace(CHAMPION, **champion))

    assert codes(evidence) == [code]
    assert codes(replace(evidence, anyway="known")) == []
    assert [reason for _, reason in waived(replace(evidence, anyway="known"))] == ["known"]


def test_lower_mean_beats_the_champion_where_the_goal_is_to_minimize():
    lower = replace(GOOD, metric="val_loss", goal="minimize", mean=0.4)

    assert codes(replace(lower, champion=replace(CHAMPION, metric="val_loss", mean=0.5))) == []
    assert codes(replace(lower, champion=replace(CHAMPION, metric="val_loss", mean=0.3))) == ["not-better"]


def test_champion_promoted_again_is_not_weighed_against_itself():
    assert check(replace(GOOD, champion=replace(CHAMPION, run_id="run-1", mean=0.8))) == []


def test_all_refusals_are_told_at_once():
    evidence = replace(GOOD, status="FAILED", standing=Standing.UNCONFIRMED, actual_sha256=None)

    assert codes(evidence) == ["not-finished", "unconfirmed", "missing-artifact"]
    assert all(one.message.endswith(".") for one in check(evidence))
