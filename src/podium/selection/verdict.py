"""Owns the plain words in which a confirmation is told."""

from __future__ import annotations

from podium.selection.confirm import Confirmation, Confirmed


def verdict_text(confirmation: Confirmation) -> tuple[str, ...]:
    """Sentences, the most important first: who won, who cannot be told apart, what was out of reach."""
    sentences = [_winner_sentence(confirmation), *_failure_sentences(confirmation)]
    if confirmation.tied and confirmation.first_two is not None:
        first, second = confirmation.first_two
        sentences.append(
            f"The first two, {first} and {second}, cannot be told apart: "
            f"their difference is within what {len(confirmation.seeds)} seeds leave to chance."
        )
    if confirmation.smallest_detectable is not None:
        sentences.append(
            f"The smallest difference in {confirmation.metric} that {len(confirmation.seeds)} seeds could "
            f"have shown here is {confirmation.smallest_detectable:.4f}."
        )
    return tuple(sentences)


def _winner_sentence(confirmation: Confirmation) -> str:
    baseline, winner, seeds = confirmation.baseline, confirmation.winner, len(confirmation.seeds)
    own = f"{confirmation.metric} {_mean(baseline)} over {seeds} seeds"
    if confirmation.significant:
        assert winner.ci95_vs_baseline is not None
        assert winner.p_holm is not None
        low, high = winner.ci95_vs_baseline
        return (
            f"{winner.name} wins: {confirmation.metric} {_mean(winner)} over {seeds} seeds against the "
            f"baseline's {_mean(baseline)}, a difference of {winner.difference:+.4f} "
            f"(95 % interval {low:+.4f} to {high:+.4f}, p = {winner.p_holm:.2g} after Holm)."
        )
    if not confirmation.candidates:
        return f"There was no candidate but the baseline's own configuration, so it wins: {own}."
    return (
        "No candidate is better than the baseline by more than chance, "
        f"so the baseline's configuration wins: {own}."
    )


def _failure_sentences(confirmation: Confirmation) -> list[str]:
    seeds = len(confirmation.seeds)
    sentences = []
    for one in (confirmation.baseline, *confirmation.candidates):
        failed = sum(value is None for value in one.values)
        if not failed:
            continue
        if one is confirmation.baseline:
            consequence = "those seeds are left out of every comparison"
        else:
            consequence = "it cannot win"
        sentences.append(f"{one.name} failed under {failed} of {seeds} seeds, so {consequence}.")
    return sentences


def _mean(one: Confirmed) -> str:
    mean = "missing" if one.mean is None else f"{one.mean:.4f}"
    return mean if one.std is None else f"{mean} (standard deviation {one.std:.4f})"
