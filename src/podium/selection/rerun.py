"""Owns the question whether a repeated run is the same run: to the bit, within tolerance, or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["bit-exact", "within-tolerance", "differs"]
Kind = Literal["code", "packages", "data", "device", "result"]

# Absolute for values up to 1, relative above (and always for the learning rate): one point of accuracy, say.
TOLERANCE = 0.01
TIMINGS = frozenset({"epoch_seconds", "images_per_second"})
# Facts of a run by their names without 'podium.', and what a change of each is a change of.
KINDS: Mapping[str, Kind] = {
    "git_commit": "code",
    "git_diff_sha256": "code",
    "code_digest": "code",
    "python": "packages",
    "train_digest": "data",
    "split_digest": "data",
    "source_digest": "data",
    "device": "device",
    "cpu": "device",
    "threads": "device",
    "platform": "device",
    "backend": "device",
}
PREFIXES: Mapping[str, Kind] = {"package.": "packages", "env.": "device"}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run came to. `curve`: epoch (from 1) to metrics; `facts`: where it comes from, by name.

    `epochs` is the last epoch that was trained; `curve` may lack the first ones of a continued training.
    """

    curve: Mapping[int, Mapping[str, float]]
    epochs: int | None
    weights_sha256: str | None
    final_weights_sha256: str | None
    facts: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that is not the same. `epoch` and `size` are those of a metric's largest deviation."""

    kind: Kind
    what: str
    original: str | float | None
    rerun: str | float | None
    epoch: int | None = None
    size: float | None = None

    def __str__(self) -> str:
        place = f" at epoch {self.epoch}" if self.epoch is not None else ""
        by = f", by {self.size:.3g}" if self.size is not None else ""
        return f"{self.what}{place}: was {_text(self.original)}, is {_text(self.rerun)}{by}"


@dataclass(frozen=True, kw_only=True)
class RerunVerdict:
    """`results` are what differs in curves and weights, `causes` what differs in where the runs come from."""

    verdict: Verdict
    results: tuple[Difference, ...]
    causes: tuple[Difference, ...]

    def document(self) -> list[dict[str, Any]]:
        """All differences as plain values for JSON."""
        return [asdict(each) for each in (*self.results, *self.causes)]

    def sentences(self) -> list[str]:
        """The verdict in plain words."""
        changed = "; ".join(f"{each.kind}: {each}" for each in self.causes)
        if self.verdict == "bit-exact":
            first = "bit-exact: the same curves and the same final weights (SHA-256)."
            return [first, f"And that although something changed: {changed}."] if changed else [first]
        if self.verdict == "within-tolerance":
            first = (
                f"within-tolerance: not the same bits, but every metric within {TOLERANCE:g} of the record's."
            )
        else:
            first = "differs: the repeat is another run."
        why = (
            f"What changed: {changed}."
            if changed
            else "Nothing on record changed in code, packages, data or device."
        )
        return [first, *(f"  {each}" for each in self.results), why]


def judge(original: Trained, repeat: Trained) -> RerunVerdict:
    """Compare a run with its repeat.

    bit-exact: the same epochs, metrics and weights, to the last bit. within-tolerance: the same epochs, and
    every metric of every epoch within TOLERANCE. Times are not compared.
    """
    deviations = _deviations(original.curve, repeat.curve)
    results = [each for each in deviations if each.size is None or each.size > 0.0]
    if original.epochs != repeat.epochs:
        results.insert(
            0, Difference(kind="result", what="epochs", original=original.epochs, rerun=repeat.epochs)
        )
    for name in ("final_weights_sha256", "weights_sha256"):
        before, after = getattr(original, name), getattr(repeat, name)
        if before is None or before != after:
            results.append(Difference(kind="result", what=name, original=before, rerun=after))
    verdict: Verdict = "bit-exact"
    if results:
        alike = original.epochs == repeat.epochs and bool(original.curve) and all(map(_is_close, deviations))
        verdict = "within-tolerance" if alike else "differs"
    return RerunVerdict(verdict=verdict, results=tuple(results), causes=tuple(changes(original, repeat)))


def changes(original: Trained, repeat: Trained) -> list[Difference]:
    """What differs in code, packages, data and device; what only one of the two has, too."""
    found = []
    for name in sorted(original.facts.keys() | repeat.facts.keys()):
        kind = kind_of(name)
        before, after = original.facts.get(name), repeat.facts.get(name)
        if kind is None or before == after:
            continue
        found.append(Difference(kind=kind, what=name, original=before, rerun=after))
    return sorted(found, key=lambda each: each.kind)


def kind_of(fact: str) -> Kind | None:
    """What a change of this fact is a change of; None for one that does not matter."""
    prefixed = (kind for prefix, kind in PREFIXES.items() if fact.startswith(prefix))
    return KINDS.get(fact) or next(prefixed, None)


def _deviations(
    original: Mapping[int, Mapping[str, float]], repeat: Mapping[int, Mapping[str, float]]
) -> Sequence[Difference]:
    """The largest deviation of each metric over the epochs that the record has, and metrics that are missing."""
    largest: dict[str, Difference] = {}
    for epoch, metrics in sorted(original.items()):
        for name, before in metrics.items():
            if name in TIMINGS:
                continue
            after = repeat.get(epoch, {}).get(name)
            size = None if after is None else abs(after - before)
            known = largest.get(name)
            if known is None or (known.size is not None and (size is None or size > known.size)):
                largest[name] = Difference(
                    kind="result", what=name, original=before, rerun=after, epoch=epoch, size=size
                )
    return list(largest.values())


def _is_close(deviation: Difference) -> bool:
    if deviation.size is None:
        return False
    assert isinstance(deviation.original, float)
    scale = abs(deviation.original)
    return deviation.size <= TOLERANCE * (scale if deviation.what == "learning_rate" else max(1.0, scale))


def _text(value: str | float | None) -> str:
    if value is None:
        return "not on record"
    return value if isinstance(value, str) else f"{value:.6g}"
