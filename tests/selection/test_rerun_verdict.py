"""When a repeated run counts as the same, and what is said to have changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from podium.selection.rerun import TOLERANCE, Trained, judge, kind_of

CURVE = {
    epoch: {"loss": 1.0 / epoch, "val_accuracy": 0.5 + epoch / 100, "learning_rate": 1e-3}
    for epoch in (1, 2, 3)
}
FACTS = {
    "package.keras": "3.15.1",
    "git_commit": "abc",
    "device": "a processor",
    "threads": "1",
    "trial": "4",
}
RUN = Trained(curve=CURVE, epochs=3, weights_sha256="b" * 64, final_weights_sha256="f" * 64, facts=FACTS)


def changed(metric: str, by: float, epoch: int = 2) -> Trained:
    curve = {number: dict(metrics) for number, metrics in CURVE.items()}
    curve[epoch][metric] += by
    return replace(RUN, curve=curve, final_weights_sha256="0" * 64)


def test_the_same_curves_and_weights_are_bit_exact() -> None:
    found = judge(RUN, replace(RUN, facts={**FACTS, "trial": "0"}))
    assert (found.verdict, found.document()) == ("bit-exact", [])


def test_other_final_weights_are_never_bit_exact() -> None:
    found = judge(RUN, replace(RUN, final_weights_sha256="0" * 64))
    assert found.verdict == "within-tolerance"
    assert [each.what for each in found.results] == ["final_weights_sha256"]


@pytest.mark.parametrize("metric", ["loss", "val_accuracy"])
def test_a_deviation_of_the_last_bit_is_seen_and_within_tolerance(metric: str) -> None:
    found = judge(RUN, changed(metric, 2**-52))
    assert found.verdict == "within-tolerance"
    largest = found.results[0]
    assert (largest.what, largest.epoch) == (metric, 2)
    assert largest.size is not None
    assert 0 < largest.size < 1e-15


@pytest.mark.parametrize(
    ("metric", "by", "verdict"),
    [
        ("val_accuracy", 0.9 * TOLERANCE, "within-tolerance"),
        ("val_accuracy", 1.1 * TOLERANCE, "differs"),
        ("loss", -1.1 * TOLERANCE, "differs"),
        # A thousandth more is twice the rate.
        ("learning_rate", 1e-3, "differs"),
    ],
)
def test_one_epoch_beyond_the_tolerance_differs(metric: str, by: float, verdict: str) -> None:
    assert judge(RUN, changed(metric, by)).verdict == verdict


def test_another_number_of_epochs_differs() -> None:
    longer = replace(RUN, epochs=4, curve={**CURVE, 4: CURVE[3]})
    found = judge(RUN, longer)
    assert found.verdict == "differs"
    assert found.results[0].what == "epochs"


def test_a_missing_epoch_differs() -> None:
    shorter = replace(RUN, curve={epoch: CURVE[epoch] for epoch in (1, 2)}, final_weights_sha256="0" * 64)
    assert judge(RUN, shorter).verdict == "differs"


def test_a_continued_run_is_compared_over_the_epochs_that_it_has() -> None:
    continued = replace(RUN, curve={3: CURVE[3]})
    assert judge(continued, RUN).verdict == "bit-exact"


def test_a_record_without_weights_is_not_bit_exact() -> None:
    assert judge(replace(RUN, final_weights_sha256=None), RUN).verdict != "bit-exact"


def test_times_are_not_compared() -> None:
    timed = {epoch: {**metrics, "epoch_seconds": 1.0} for epoch, metrics in CURVE.items()}
    slower = {epoch: {**metrics, "epoch_seconds": 9.0} for epoch, metrics in CURVE.items()}
    assert judge(replace(RUN, curve=timed), replace(RUN, curve=slower)).verdict == "bit-exact"


def test_what_changed_is_named_by_kind() -> None:
    now = {**FACTS, "package.keras": "3.16.0", "git_commit": "def", "package.jax": "0.10.2", "trial": "0"}
    found = judge(RUN, replace(changed("loss", 0.5), facts=now))
    assert [(each.kind, each.what, each.original, each.rerun) for each in found.causes] == [
        ("code", "git_commit", "abc", "def"),
        ("packages", "package.jax", None, "0.10.2"),
        ("packages", "package.keras", "3.15.1", "3.16.0"),
    ]
    text = " ".join(found.sentences())
    assert "differs" in text
    assert "package.keras: was 3.15.1, is 3.16.0" in text


def test_facts_that_do_not_matter_have_no_kind() -> None:
    assert kind_of("state") is None
    assert kind_of("env.KERAS_BACKEND") == "device"
    assert kind_of("split_digest") == "data"
