"""What each part of fast.yaml brings: the same recipe trained with it and without it on the same seeds.

    python benchmarks/ablation.py cifar10-images.zip [--seeds 3] [--only PART-OF-NAME ...] [--quick]

20,000 training images, its whole schedule in five epochs, the 5,000 validation images that it was chosen on (no other
row was tuned); two workers with one thread each. One JSON line a training: a killed one goes on with what is missing.
Writes ablation.jsonl, ablation.md (the table of docs/performance.md) and ablation.png into --out.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ideas import Comparison, Idea, run_command

from podium.recipe import Recipe, read_recipe

FAST = Path(__file__).parents[1] / "experiments" / "fast.yaml"
# airbench94's own optimizer for such a network, as far as Keras has it.
AIRBENCH = {
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.75,
    "optimizer.momentum": 0.85,
    "optimizer.nesterov": True,
    "optimizer.weight_decay": 0.008,
    "optimizer.schedule.warmup_epochs": 1.15,
    "optimizer.schedule.decay_rate": 0.07,
    "training.batch_size": 512,
}
OFFSETS = {"optimizer.normalization_rate": 64.0}
LOOKAHEAD = {"optimizer.lookahead": {"every": 5, "keep": 0.77}}
ADAMW = {"optimizer.name": "adamw", "optimizer.learning_rate": 0.003}

IDEAS = (
    Idea(name="fast.yaml", values={}),
    Idea(name="without the whitened first layer", values={"model.whitening": False}),
    Idea(name="without identities to begin with", values={"model.initialization": "glorot"}),
    Idea(
        name="SGD, batch 512, offsets at 64 times the rate, lookahead", values=AIRBENCH | OFFSETS | LOOKAHEAD
    ),
    Idea(name="the same, offsets at the common rate", values=AIRBENCH | LOOKAHEAD),
    Idea(name="the same without lookahead", values=AIRBENCH | OFFSETS),
    Idea(name="AdamW, rate 0.003", values=ADAMW),
    Idea(name="with lookahead", values=LOOKAHEAD),
    Idea(name="flips by chance", values={"augmentation.alternating_flip": False}),
    Idea(name="without label smoothing", values={"training.label_smoothing": 0.0}),
    Idea(name="cosine, not one cycle", values={"optimizer.schedule.name": "cosine"}),
    Idea(name="without shifts", values={"augmentation.shift": 0}),
    Idea(name="without weight decay", values={"optimizer.weight_decay": 0.0}),
    Idea(name="GELU, not ReLU", values={"model.activation": "gelu"}),
    Idea(name="without averages of weights", values={"optimizer.ema_momentum": None}),
    Idea(name="averages of normalisation 0.6, not 0.95", values={"model.normalization_momentum": 0.6}),
    Idea(name="predictions from one view", values={"model.test_time_flip": False}),
    Idea(name="residual connections", values={"model.residual": True}),
)


def recipe_of(idea: Idea, seed: int, *, images: str, quick: bool) -> Recipe:
    """A part's recipe on a seed."""
    epochs = 2 if quick else 5
    fast = read_recipe(FAST, {})
    schedule = fast.optimizer.schedule
    assert schedule is not None
    values = {
        "data.reference": images,
        "precision": "bfloat16",
        "data.train_limit": 2000 if quick else 20000,
        "optimizer.schedule.warmup_epochs": round(schedule.warmup_epochs * epochs / fast.training.epochs, 3),
        "training.epochs": epochs,
        "training.seed": seed,
    }
    return read_recipe(FAST, values | idea.values)


def comparison(images: str, *, quick: bool) -> Comparison:
    """The table of fast.yaml's parts."""
    return Comparison(
        title="Parts of fast.yaml, 20,000 images, 5 epochs",
        heading="changed",
        ideas=IDEAS,
        recipe_of=partial(recipe_of, images=images, quick=quick),
    )


if __name__ == "__main__":
    run_command(__doc__ or "", "ablation", comparison)
