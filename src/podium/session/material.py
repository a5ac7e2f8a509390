"""Owns what trainings of one job share: data, split and code, read and checked before anything is recorded."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from podium.datasets.prepare import Dataset, prepare
from podium.datasets.splits import check_batch_size, split
from podium.errors import InvalidInput
from podium.executors.worker_process import scrubbed
from podium.recipe import Recipe
from podium.recipe_sections import DataSettings
from podium.result import TrainingArrays
from podium.stores import dataset_cache
from podium.tracking import provenance
from podium.tracking.runs import DataInput

BUILDER_CHECK_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Material:
    """Everything that trainings of one job share: data, code and where they came from."""

    dataset: Dataset
    arrays: TrainingArrays
    code: Path | None
    code_digest: str | None

    def inputs(self) -> list[DataInput]:
        """What MLflow logs as the runs' dataset."""
        return [data_input(self.dataset, self.arrays)]

    def tags(self) -> dict[str, str]:
        """Provenance that goes on every run."""
        tags = {f"podium.{name}": value for name, value in provenance.collect(self.code).items()}
        if self.code_digest is not None:
            tags["podium.code_digest"] = self.code_digest
        return tags

    def data_tags(self) -> dict[str, str]:
        """The data of all trainings together, for a parent run; each training's run has its split as well."""
        digests = {
            "podium.train_digest": self.dataset.train_digest,
            "podium.test_digest": self.dataset.test_digest,
            "podium.source_digest": self.dataset.source_digest,
        }
        known = {name: value for name, value in digests.items() if value is not None}
        return {"podium.data": self.dataset.reference, **known}


def data_input(dataset: Dataset, arrays: TrainingArrays) -> DataInput:
    """The dataset as MLflow logs it: name, reference and all digests."""
    return DataInput(
        name=dataset.name,
        reference=dataset.reference,
        train_digest=dataset.train_digest,
        split_digest=arrays.split_digest,
        test_digest=dataset.test_digest,
        source_digest=dataset.source_digest,
        train_count=dataset.train_count,
        test_count=dataset.test_count,
        context="training",
    )


def gather(recipe: Recipe, *, code: Path | None, largest_batch: int) -> Material:
    """Read the data, split it, and check code and batch size before anything is recorded."""
    if recipe.model.builder is not None:
        _check_builder(recipe, code)
    cache = dataset_cache()
    dataset = prepare(recipe.data, cache=cache)
    arrays = split(dataset, recipe.data, cache=cache)
    check_batch_size(arrays, largest_batch)
    return Material(
        dataset=dataset,
        arrays=arrays,
        code=code,
        code_digest=provenance.code_digest(code) if code is not None else None,
    )


def other_split(material: Material, data: DataSettings) -> TrainingArrays:
    """The same images, split by another seed."""
    return split(material.dataset, data, cache=dataset_cache())


def _check_builder(recipe: Recipe, code: Path | None) -> None:
    """Import and call the user's builder in a process of its own: this one never loads TensorFlow."""
    program = (
        "import sys; from pathlib import Path; from podium.recipe import Recipe;"
        "from podium.training.builder import check_builder;"
        "check_builder(Recipe.model_validate_json(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2] else None)"
    )
    try:
        done = subprocess.run(
            # As a worker runs it: nothing of the working folder comes first, and it sees no passwords.
            [sys.executable, "-P", "-c", program, recipe.model_dump_json(), str(code or "")],
            env=scrubbed(os.environ),
            capture_output=True,
            text=True,
            timeout=BUILDER_CHECK_SECONDS,
            check=False,
        )
        said = done.stderr.strip().splitlines() or ["no message"]
        reason = said[-1] if done.returncode != 0 else None
    except subprocess.TimeoutExpired:
        reason = f"it has not built a model within {BUILDER_CHECK_SECONDS:.0f} s"
    if reason is not None:
        raise InvalidInput(
            f"model.builder: got '{recipe.model.builder}', which cannot be used: {reason}",
            remedy="Give package.module:function, importable from the folder that `code:` names.",
        )
