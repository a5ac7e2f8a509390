"""Owns trainings of many recipes on the workers of this machine, each whole, with another attempt for a lost one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from podium.executors.base import Attempt, Ended, EpochDone, Executor
from podium.executors.local import LocalExecutor
from podium.recipe import Recipe
from podium.result import EpochEvent, Failure, TrainingArrays, TrainingJob, TrainingResult, Verdict

ATTEMPTS = 3
PATIENCE_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One training: its epochs, and its result or the failure of a loss that was no number."""

    number: int
    epochs: tuple[EpochEvent, ...]
    outcome: TrainingResult | Failure


@dataclass
class Trainings:
    """Trains recipes, by number, on an executor's workers; yields each as it ends. `folder` holds their checkpoints."""

    recipes: Mapping[int, Recipe]
    arrays: TrainingArrays
    folder: Path
    curves: dict[str, list[EpochEvent]] = field(default_factory=dict)

    def run(self, executor: Executor) -> Iterator[Trained]:
        """Trainings in the order of their ends.

        Raises: RuntimeError if one fails by an error, or is lost ATTEMPTS times.
        """
        waiting = [(number, 1) for number in sorted(self.recipes, reverse=True)]
        while waiting or self.curves:
            while waiting and executor.free:
                executor.submit(self._attempt(*waiting.pop()))
            for event in executor.events(1.0):
                if isinstance(event, EpochDone):
                    self.curves[event.key].append(event.epoch)
                    executor.answer(event.key, Verdict.CONTINUE)
                elif isinstance(event, Ended):
                    trained = self._end(event)
                    if trained is None:
                        number, attempt = map(int, event.key.split("."))
                        waiting.append((number, attempt + 1))
                    else:
                        yield trained

    def _attempt(self, number: int, attempt: int) -> Attempt:
        key = f"{number}.{attempt}"
        self.curves[key] = []
        recipe = self.recipes[number]
        job = TrainingJob(
            recipe=recipe,
            arrays=self.arrays,
            folder=self.folder / key,
            epochs=recipe.training.epochs,
        )
        return Attempt(key=key, job=job)

    def _end(self, event: Ended) -> Trained | None:
        """The training, or None if it has to be tried again."""
        shutil.rmtree(self.folder / event.key, ignore_errors=True)
        number, attempt = map(int, event.key.split("."))
        epochs = tuple(self.curves.pop(event.key))
        failure = event.outcome if isinstance(event.outcome, Failure) else None
        if failure is None or failure.cause == "nan":
            return Trained(number=number, epochs=epochs, outcome=event.outcome)
        print(f"training {number}, attempt {attempt}: {failure.cause}: {failure.message}", flush=True)
        if failure.cause == "error" or attempt == ATTEMPTS:
            raise RuntimeError(
                f"training {number} failed in attempt {attempt}: {failure.message}\n{failure.traceback}"
            )
        return None


def train_here(
    recipes: Mapping[int, Recipe], arrays: TrainingArrays, folder: Path, *, workers: int
) -> Iterator[Trained]:
    """As `Trainings`, on this machine's workers of one thread each. `folder` is theirs: emptied first, gone at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    with closing(
        LocalExecutor(
            workers=workers, threads=1, log_folder=folder / "logs", patience_seconds=PATIENCE_SECONDS
        )
    ) as executor:
        yield from Trainings(recipes, arrays, folder).run(executor)
    shutil.rmtree(folder)
