"""Records learning curves of real, small trainings, each made to show one finding of `reporting.diagnose`.

    python benchmarks/record_curves.py cifar10-images.zip tests/reporting/curves [--only NAME ...]

Takes about eleven minutes on one core. Each JSON file says how it was made; tests read the files alone.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training: `finding` is what it was made to show; `patience` is EarlyStopping's, on val_loss."""

    name: str
    finding: str
    data: str = "cifar10"
    images: int = 1500
    epochs: int = 20
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    filters: int = 24
    normalised: bool = True
    dropout: float = 0.0
    augmented: bool = False
    shuffled_labels: bool = False
    patience: int | None = None
    seed: int = 0


CASES = [
    Case(name="healthy-digits", finding="healthy", data="digits", images=1200, patience=5, dropout=0.25),
    Case(
        name="healthy-digits-augmented",
        finding="healthy",
        data="digits",
        images=1200,
        epochs=40,
        dropout=0.4,
        augmented=True,
        patience=6,
    ),
    Case(name="healthy-digits-no-dropout", finding="healthy", data="digits", images=1200, seed=1),
    Case(
        name="healthy-cifar10-augmented",
        finding="healthy",
        images=8000,
        epochs=30,
        filters=16,
        dropout=0.1,
        augmented=True,
        patience=4,
    ),
    Case(name="overfitting-500-images", finding="overfitting", images=500, epochs=40),
    Case(name="overfitting-1500-images", finding="overfitting", epochs=25, seed=1),
    Case(name="overfitting-no-normalisation", finding="overfitting", epochs=30, normalised=False),
    Case(name="overfitting-stopped-early", finding="overfitting", epochs=40, patience=8, seed=2),
    Case(name="underfitting-two-filters", finding="underfitting", epochs=40, filters=2, images=3000),
    Case(
        name="underfitting-too-much-dropout",
        finding="underfitting",
        epochs=40,
        filters=4,
        dropout=0.8,
        augmented=True,
    ),
    Case(
        name="underfitting-stopped-early",
        finding="underfitting",
        epochs=60,
        filters=2,
        images=3000,
        patience=6,
        learning_rate=5e-3,
        seed=3,
    ),
    Case(
        name="chance-tiny-rate",
        finding="stuck at chance",
        optimizer="sgd",
        learning_rate=1e-8,
        epochs=10,
        normalised=False,
    ),
    Case(
        name="diverged-dead-units",
        finding="diverged",
        learning_rate=0.3,
        normalised=False,
        epochs=12,
    ),
    Case(
        name="chance-shuffled-labels",
        finding="stuck at chance",
        shuffled_labels=True,
        filters=4,
        dropout=0.5,
        normalised=False,
        epochs=12,
    ),
    Case(
        name="diverged-nan",
        finding="diverged",
        optimizer="sgd",
        learning_rate=1e3,
        normalised=False,
        epochs=6,
    ),
    Case(name="diverged-exploded", finding="diverged", learning_rate=3.0, epochs=8, seed=1),
    Case(
        name="chance-dead-after-sgd", finding="stuck at chance", optimizer="sgd", learning_rate=0.5, epochs=20
    ),
    Case(
        name="rate-too-high-sgd",
        finding="learning rate too high",
        optimizer="sgd",
        learning_rate=0.3,
        normalised=False,
        epochs=20,
    ),
    Case(
        name="rate-too-high-adam",
        finding="learning rate too high",
        learning_rate=0.05,
        epochs=20,
        filters=4,
    ),
    Case(
        name="rate-too-high-digits",
        finding="learning rate too high",
        data="digits",
        images=1200,
        filters=4,
        learning_rate=0.05,
        epochs=20,
    ),
    Case(
        name="chance-dead-digits",
        finding="stuck at chance",
        data="digits",
        images=1200,
        optimizer="sgd",
        learning_rate=0.4,
        normalised=False,
        epochs=20,
    ),
    Case(
        name="rate-too-high-sgd-normalised",
        finding="learning rate too high",
        optimizer="sgd",
        learning_rate=0.15,
        dropout=0.25,
        epochs=20,
    ),
    Case(name="rate-too-low-adam", finding="learning rate too low", learning_rate=3e-6, epochs=20),
    Case(
        name="rate-too-low-sgd",
        finding="learning rate too low",
        optimizer="sgd",
        learning_rate=1e-4,
        epochs=20,
    ),
    Case(
        name="rate-too-low-digits",
        finding="learning rate too low",
        data="digits",
        images=1200,
        learning_rate=1e-5,
        normalised=False,
        epochs=20,
    ),
    Case(
        name="improving-cifar10",
        finding="still improving",
        images=6000,
        epochs=4,
        dropout=0.25,
        augmented=True,
    ),
    Case(
        name="improving-digits",
        finding="still improving",
        data="digits",
        images=1200,
        epochs=4,
        normalised=False,
    ),
    Case(
        name="improving-cifar10-longer",
        finding="still improving",
        images=3000,
        epochs=8,
        normalised=False,
        dropout=0.25,
        augmented=True,
    ),
]


def load(case: Case, archive: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and validation images (uint8, n x 32 x 32 x 3) with labels; validation holds at most 1,000."""
    if case.data == "digits":
        digits = load_digits()
        grey = (digits.images * 255 / 16).astype("uint8")
        images = np.stack([np.asarray(Image.fromarray(one).resize((32, 32)).convert("RGB")) for one in grey])
        labels = digits.target
    else:
        images, labels = decode(archive, per_class=(case.images + 1000) // 10)
    if case.shuffled_labels:
        labels = np.random.default_rng(case.seed).permutation(labels)
    train, validation, train_labels, validation_labels = train_test_split(
        images, labels, train_size=case.images, random_state=case.seed, stratify=labels
    )
    return train, train_labels, validation[:1000], validation_labels[:1000]


def decode(archive: Path, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images of each class of the training part of an image zip."""
    images, labels = [], []
    with zipfile.ZipFile(archive) as file:
        names = sorted(
            name for name in file.namelist() if name.startswith("train/") and name.endswith(".jpg")
        )
        classes = sorted({name.split("/")[1] for name in names})
        for label, one in enumerate(classes):
            for name in [name for name in names if name.split("/")[1] == one][:per_class]:
                images.append(np.asarray(Image.open(io.BytesIO(file.read(name))).convert("RGB")))
                labels.append(label)
    return np.stack(images), np.array(labels)


def train(case: Case, archive: Path) -> dict[str, list[float]]:
    """Train the case's network and give back its curves."""
    import keras

    keras.utils.set_random_seed(case.seed)
    images, labels, validation, validation_labels = load(case, archive)
    stack = [keras.Input(images.shape[1:]), keras.layers.Rescaling(1 / 255)]
    if case.augmented:
        stack += [keras.layers.RandomTranslation(0.1, 0.1), keras.layers.RandomRotation(0.05)]
    for block in range(3):
        stack.append(keras.layers.Conv2D(case.filters * 2**block, 3, padding="same", activation="relu"))
        stack += [keras.layers.BatchNormalization(momentum=0.9)] if case.normalised else []
        stack += [keras.layers.MaxPooling2D(), keras.layers.Dropout(case.dropout)]
    stack += [keras.layers.Flatten(), keras.layers.Dense(64, activation="relu")] if case.filters > 8 else []
    stack += [] if case.filters > 8 else [keras.layers.GlobalAveragePooling2D()]
    stack += [keras.layers.Dense(10, activation="softmax")]
    model = keras.Sequential(stack)
    optimizer = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}[case.optimizer]
    model.compile(optimizer(case.learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping("val_loss", patience=case.patience or case.epochs)
    fitted = model.fit(
        images.astype("float32"),
        labels,
        batch_size=64,
        epochs=case.epochs,
        validation_data=(validation.astype("float32"), validation_labels),
        callbacks=[stop],
        verbose=0,
    )
    return {name: [float(value) for value in values] for name, values in fitted.history.items()}


def as_json(case: Case, curves: dict[str, list[float]]) -> str:
    """One document; a loss that was not finite is null."""
    epochs = len(curves["loss"])
    document = {
        "made_by": "benchmarks/record_curves.py",
        "case": asdict(case),
        "classes": 10,
        "stopped_early": epochs < case.epochs,
        "history": {
            name: [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]
            for name, values in curves.items()
        },
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[case.name for case in CASES])
    arguments = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        if case.name in arguments.only:
            curves = train(case, arguments.archive)
            (arguments.folder / f"{case.name}.json").write_text(as_json(case, curves))
            print(case.name, len(curves["loss"]), "epochs, validation accuracy", curves["val_accuracy"][-1])


if __name__ == "__main__":
    main()
