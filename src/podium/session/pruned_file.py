"""Owns pruning from outside: a checked model file and its recipe in, a smaller one and its measures out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from podium.conversion.processes import ask
from podium.errors import PodiumError
from podium.packager.logged_model import sha256_of
from podium.recipe import Recipe
from podium.result import TrainingArrays
from podium.stores import redacted

PROGRAM = Path(__file__).parents[1] / "training" / "pruning.py"


@dataclass(frozen=True, kw_only=True)
class Measures:
    """A model file's size as it is and after gzip, and what it is worth on the validation images."""

    bytes: int
    gzip_bytes: int
    accuracy: float
    loss: float
    images: int


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """A pruned file. `found`: the share of zeros among the weights of its kernels, as the file was read back."""

    file: Path
    sparsity: float
    found: float
    sha256: str
    measures: Measures
    original: Measures


def prune(
    model: Path, arrays: TrainingArrays, recipe: Recipe, *, sparsity: float, epochs: int, out: Path
) -> Pruned:
    """Prune a checked .keras file into `out`, in a process of its own. Raises: PodiumError if it cannot be done."""
    request = {
        "model": str(model),
        "arrays": {
            name: str(value) if isinstance(value, Path) else value for name, value in asdict(arrays).items()
        },
        "recipe": recipe.model_dump_json(),
        "sparsity": sparsity,
        "epochs": epochs,
        "out": str(out),
    }
    answers, death = ask(PROGRAM, request, None)
    if not answers:
        raise PodiumError(f"pruning to {sparsity:g} failed: {redacted(death)}")
    answer = answers[0]
    original = Measures(**answer.pop("original"))
    zeros, weights = answer.pop("zeros"), answer.pop("weights")
    return Pruned(
        file=out,
        sparsity=sparsity,
        found=zeros / weights,
        sha256=sha256_of(out),
        measures=Measures(**answer),
        original=original,
    )
