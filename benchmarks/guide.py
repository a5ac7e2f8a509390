"""What each idea of the guide changes: the same network, trained with it and without it on the same seeds.

    python benchmarks/guide.py cifar10-images.zip [--seeds 3] [--only PART-OF-NAME ...] [--quick]

10,000 training images, 5,000 validation images, 15 epochs, none ended early; two workers with one thread each, bfloat16
where a row does not say otherwise. One JSON line a training: a killed one goes on with what is missing. Writes
guide.jsonl, guide.md (the table of docs/guide.md) and guide.png into --out.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ideas import Comparison, Idea, run_command

from podium.recipe import Recipe, read_recipe

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
KERAS_MOMENTUM = 0.99  # the guide's; baseline.yaml has 0.9
PLATEAU_OFF = {"callbacks.reduce_lr_on_plateau": None}


def _schedule(name: str, **settings: float) -> dict[str, Any]:
    return {**PLATEAU_OFF, "optimizer.schedule": {"name": name, **settings}}


IDEAS = (
    Idea(name="the guide's CNN", claim="75 to 80 % (all images, 50 epochs)", values={}),
    Idea(name="without augmentation", claim="lower", values={"augmentation.strength": 0.0}),
    Idea(name="half the augmentation", claim="", values={"augmentation.strength": 0.5}),
    Idea(name="without dropout", claim="lower", values={"model.dropout": 0.0, "model.dense_dropout": 0.0}),
    Idea(name="without ReduceLROnPlateau", claim="lower", values=PLATEAU_OFF),
    Idea(name="float32", claim="as good, slower", values={"precision": "float32"}),
    Idea(name="residual connections", claim="+2 to 5 points", values={"model.residual": True}),
    Idea(name="channel attention", claim="+1 to 3 points", values={"model.attention": {"ratio": 16}}),
    Idea(name="mixup", claim="+3 to 5 points", values={"augmentation.mixup": {"alpha": 0.2}}),
    Idea(name="CutMix", claim="+3 to 5 points", values={"augmentation.cutmix": {"factor": 1.0}}),
    Idea(name="RandAugment", claim="+3 to 5 points", values={"augmentation.randaugment": {"factor": 0.3}}),
    Idea(name="random contrast", claim="more variety", values={"augmentation.contrast": 0.1}),
    Idea(name="random erasing", claim="", values={"augmentation.erasing": 0.5}),
    Idea(name="label smoothing", claim="", values={"training.label_smoothing": 0.1}),
    Idea(name="cosine schedule", claim="+1 to 2 points", values=_schedule("cosine", warmup_epochs=1.0)),
    Idea(name="one cycle", claim="", values=_schedule("one_cycle", warmup_epochs=3.0)),
    Idea(name="exponential decay", claim="", values=_schedule("exponential")),
    Idea(name="gradient clipping", claim="steadier", values={"optimizer.clipnorm": 1.0}),
    Idea(name="faster moving averages", claim="", values={"model.normalization_momentum": 0.9}),
    Idea(name="multilayer perceptron", claim="about 50 %", values={}, recipe="classical/mlp.yaml"),
    Idea(name="svm", claim="about 60 %", values={}, recipe="classical/svm.yaml"),
    Idea(name="random forest", claim="about 55 %", values={}, recipe="classical/random_forest.yaml"),
    Idea(
        name="logistic regression",
        claim="about 40 %",
        values={},
        recipe="classical/logistic_regression.yaml",
    ),
)


def recipe_of(idea: Idea, seed: int, *, images: str, quick: bool) -> Recipe:
    """An idea's recipe on a seed."""
    values = {
        "data.reference": images,
        "data.train_limit": 1000 if quick else 10000,
        "training.seed": seed,
        "callbacks.early_stopping": None,
    }
    if not idea.recipe.startswith("classical/"):
        values |= {"precision": "bfloat16", "model.normalization_momentum": KERAS_MOMENTUM}
    recipe = read_recipe(EXPERIMENTS / idea.recipe, values | idea.values)
    epochs = 1 if recipe.classical is not None else 2 if quick else 15
    return recipe.with_values({"training.epochs": epochs})


def comparison(images: str, *, quick: bool) -> Comparison:
    """The guide's table."""
    return Comparison(
        title="Ideas of the guide, 10,000 images, 15 epochs",
        heading="idea",
        claims="the guide says",
        ideas=IDEAS,
        recipe_of=partial(recipe_of, images=images, quick=quick),
    )


if __name__ == "__main__":
    run_command(__doc__ or "", "guide", comparison)
