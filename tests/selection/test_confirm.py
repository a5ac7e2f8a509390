"""What a confirmation may call a winner."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from podium.errors import InvalidInput
from podium.selection.confirm import Confirmation, SeedRuns, confirm, median_seed_run
from podium.selection.paired_test import holm
from podium.selection.verdict import verdict_text

NAN = math.nan


def runs(name, values, **params):
    return SeedRuns(
        name=name,
        params=params or {"name": name},
        run_ids=[f"{name}-{i}" for i in range(len(values))],
        values=list(values),
    )


def confirmed(
    baseline, *candidates, goal="maximize", n_validation=100, n_train=900, alpha=0.05
) -> Confirmation:
    return confirm(
        runs("baseline", baseline),
        [runs(f"candidate {i}", values) for i, values in enumerate(candidates)],
        metric="val_accuracy",
        goal=goal,
        seeds=range(len(baseline)),
        n_validation=n_validation,
        n_train=n_train,
        alpha=alpha,
    )


def rounds(count, *, candidates, seeds, planted=0.0, seed):
    """Made-up values: noise of the seed that all share, and as much of each training's own.

    Both have a variance of a half, so one training varies by 1, and so does a paired difference.
    `planted` is added to the first candidate.
    """
    random = np.random.default_rng(seed)
    shared = random.normal(size=(count, 1, seeds)) * math.sqrt(0.5)
    values = shared + random.normal(size=(count, candidates + 1, seeds)) * math.sqrt(0.5)
    values[:, 1] += planted
    return [confirmed(one[0], *one[1:]) for one in values]


@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_candidates_that_equal_the_baseline_are_significant_in_at_most_5_of_100_rounds(candidates, seeds):
    found = sum(one.significant for one in rounds(100, candidates=candidates, seeds=seeds, seed=1))

    assert found <= 5


def test_candidates_with_independent_noise_are_significant_in_at_most_5_of_100_rounds():
    random = np.random.default_rng(2)

    found = sum(confirmed(*random.normal(size=(4, 5))).significant for _ in range(100))

    assert found <= 5


def test_planted_candidate_two_standard_deviations_better_is_found_in_most_rounds():
    # Exact power, from 20,000 rounds: 79 % with one candidate, 60 % with two, 49 % with three.
    for candidates, least in ((1, 0.7), (2, 0.5)):
        confirmations = rounds(300, candidates=candidates, seeds=5, planted=2.0, seed=3)
        found = [one for one in confirmations if one.significant and one.winner.name == "candidate 0"]
        assert len(found) / len(confirmations) > least


def test_interval_and_p_are_those_of_nadeau_and_bengio():
    baseline, candidate = [0.70, 0.72, 0.69, 0.71, 0.73], [0.74, 0.75, 0.75, 0.74, 0.78]
    differences = np.subtract(candidate, baseline)
    error = math.sqrt((1 / 5 + 100 / 900) * differences.var(ddof=1))

    judged = confirmed(baseline, candidate).candidates[0]

    assert judged.p == pytest.approx(2 * stats.t.sf(differences.mean() / error, 4))
    assert judged.ci95_vs_baseline == pytest.approx(
        stats.t.interval(0.95, 4, loc=differences.mean(), scale=error)
    )
    assert judged.mean == pytest.approx(np.mean(candidate))
    assert judged.std == pytest.approx(np.std(candidate, ddof=1))


def test_larger_validation_share_widens_the_interval():
    values = [0.70, 0.72, 0.69], [0.74, 0.75, 0.75]

    narrow = confirmed(*values, n_validation=100, n_train=900).candidates[0].ci95_vs_baseline
    wide = confirmed(*values, n_validation=500, n_train=500).candidates[0].ci95_vs_baseline

    assert wide[1] - wide[0] > narrow[1] - narrow[0]


def test_intervals_widen_with_the_number_of_candidates():
    baseline, candidate, other = [0.70, 0.72, 0.69], [0.74, 0.75, 0.75], [0.70, 0.71, 0.68]
    alone = confirmed(baseline, candidate).candidates[0]
    among = confirmed(baseline, candidate, other).candidates[0]

    assert among.ci95_vs_baseline[0] < alone.ci95_vs_baseline[0]
    assert among.p_holm == pytest.approx(2 * among.p)


def test_holm_steps_down_and_never_falls():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_winner_is_the_best_mean_among_the_significant_ones():
    baseline = [0.700, 0.702, 0.699, 0.701, 0.703]
    steady = [value + 0.05 + delta for value, delta in zip(baseline, [0, 0.001, 0, 0.001, 0], strict=True)]
    wild = [0.60, 0.95, 0.65, 0.95, 0.96]

    confirmation = confirmed(baseline, wild, steady)

    assert [one.significant for one in confirmation.candidates] == [False, True]
    assert confirmation.winner.name == "candidate 1"
    assert confirmation.first_two == ("candidate 0", "candidate 1")
    assert confirmation.tied
    assert "candidate 1 wins" in verdict_text(confirmation)[0]
    assert "cannot be told apart" in verdict_text(confirmation)[1]


def test_without_a_significant_candidate_the_baseline_wins_and_words_say_so():
    confirmation = confirmed([0.70, 0.74, 0.69], [0.71, 0.72, 0.72])

    assert confirmation.winner is confirmation.baseline
    assert not confirmation.significant
    assert "No candidate is better than the baseline by more than chance" in verdict_text(confirmation)[0]


def test_significantly_worse_candidate_is_not_significant():
    worse = confirmed([0.80, 0.81, 0.80, 0.82], [0.50, 0.52, 0.50, 0.51])

    assert worse.candidates[0].p < 0.01
    assert not worse.candidates[0].significant
    assert worse.winner is worse.baseline
    assert not worse.tied


def test_lower_wins_where_the_goal_is_to_minimize():
    losses = [0.80, 0.81, 0.80, 0.82], [0.50, 0.52, 0.50, 0.51]

    assert confirmed(*losses, goal="minimize").winner.name == "candidate 0"


def test_identical_values_are_no_difference_at_all():
    same = confirmed([0.7, 0.8], [0.7, 0.8])

    assert same.candidates[0].p == 1.0
    assert same.candidates[0].difference == 0.0
    assert not same.significant
    assert same.tied


def test_same_difference_under_every_seed_is_judged_by_the_rounding_of_the_measure():
    one_image_of_100 = confirmed([0.70, 0.80], [0.71, 0.81])
    forty_images_of_100 = confirmed([0.30, 0.40, 0.35], [0.70, 0.80, 0.75])

    assert not one_image_of_100.significant
    assert one_image_of_100.candidates[0].p > 0.05
    assert forty_images_of_100.significant
    assert all(math.isfinite(end) for end in forty_images_of_100.candidates[0].ci95_vs_baseline)


def test_smallest_detectable_difference_is_where_the_first_step_of_holm_rejects():
    random = np.random.default_rng(5)
    baseline, first, second = random.normal(0.7, 0.01, size=(3, 5))
    threshold = confirmed(baseline, first, second).smallest_detectable
    # Two candidates with the same spread of differences, shifted to either side of the threshold.
    centred = first - baseline - np.mean(first - baseline)
    spread = np.std(centred, ddof=1)
    pooled = math.sqrt((np.var(first - baseline, ddof=1) + np.var(second - baseline, ddof=1)) / 2)
    scaled = centred * pooled / spread

    above = confirmed(baseline, baseline + scaled + threshold * 1.001, baseline + scaled)
    below = confirmed(baseline, baseline + scaled + threshold * 0.999, baseline + scaled)

    assert above.candidates[0].significant
    assert not below.candidates[0].significant


def test_baseline_among_the_candidates_is_counted_once():
    baseline = runs("baseline", [0.70, 0.72, 0.69], depth=3)
    copy = runs("trial 0", [0.70, 0.72, 0.69], depth=3)
    rival = runs("trial 4", [0.74, 0.75, 0.75], depth=4)
    common = {
        "metric": "val_accuracy",
        "goal": "maximize",
        "seeds": [1, 2, 3],
        "n_validation": 1,
        "n_train": 9,
    }

    with_copy = confirm(baseline, [copy, rival], **common)

    assert [one.name for one in with_copy.candidates] == ["trial 4"]
    assert with_copy == confirm(baseline, [rival], **common)


def test_no_candidate_leaves_the_baseline_as_winner():
    alone = confirmed([0.70, 0.72])

    assert alone.winner is alone.baseline
    assert alone.smallest_detectable is None
    assert not alone.tied
    assert verdict_text(alone) == (
        "There was no candidate but the baseline's own configuration, so it wins: "
        "val_accuracy 0.7100 (standard deviation 0.0141) over 2 seeds.",
    )


def test_candidate_with_a_failed_seed_cannot_win_and_still_counts_in_k():
    baseline = [0.700, 0.702, 0.699, 0.701]
    good = [0.751, 0.753, 0.748, 0.752]

    confirmation = confirmed(baseline, [0.9, None, 0.9, NAN], good)
    failed, whole = confirmation.candidates

    assert failed.values == (0.9, None, 0.9, None)
    assert failed.ci95_vs_baseline is None
    assert not failed.significant
    assert whole.p_holm == pytest.approx(2 * whole.p)
    assert confirmation.winner is whole
    assert "candidate 0 failed under 2 of 4 seeds, so it cannot win." in verdict_text(confirmation)


def test_seeds_under_which_the_baseline_failed_are_left_out():
    with_gap = confirmed([0.70, None, 0.72, 0.69], [0.74, 0.10, 0.75, 0.75])
    without = confirmed([0.70, 0.72, 0.69], [0.74, 0.75, 0.75])

    assert with_gap.candidates[0].p == pytest.approx(without.candidates[0].p)


@pytest.mark.parametrize("baseline", [[0.7], [0.7, None, None]])
def test_fewer_than_two_seeds_are_refused(baseline):
    with pytest.raises(InvalidInput, match="needs at least 2"):
        confirmed(baseline, [0.8] * len(baseline))


def test_values_that_do_not_match_the_seeds_are_refused():
    with pytest.raises(ValueError, match="2 values and 2 run ids for 3 seeds"):
        confirmed([0.7, 0.7, 0.7], [0.8, 0.8])


def test_document_holds_the_keys_that_scripts_depend_on():
    document = confirmed([0.70, 0.72, 0.69], [0.74, 0.75, 0.75]).document()

    assert {"baseline", "candidates", "winner", "significant", "test", "seeds"} <= set(document)
    keys = {"params", "run_ids", "mean", "std", "values", "ci95_vs_baseline"}
    assert keys <= set(document["baseline"])
    assert keys <= set(document["candidates"][0])
    assert document["baseline"]["ci95_vs_baseline"] is None


@pytest.mark.parametrize(
    ("values", "goal", "expected"),
    [
        ([0.9, 0.7, 0.8], "maximize", "c"),
        ([0.9, 0.7, 0.8], "minimize", "c"),
        ([0.9, 0.7, 0.8, 0.6], "maximize", "b"),
        ([0.9, 0.7, 0.8, 0.6], "minimize", "c"),
        ([0.9, None, NAN], "maximize", "a"),
    ],
)
def test_median_seed_run_is_never_the_luckier_of_two(values, goal, expected):
    assert median_seed_run(values, ["a", "b", "c", "d"][: len(values)], goal) == expected


def test_median_of_no_values_is_an_error():
    with pytest.raises(ValueError, match="no seed run has a value"):
        median_seed_run([None, NAN], ["a", "b"], "maximize")
