"""Owns one training from job to result: plain Keras `fit`, an event an epoch, files in the job's folder."""

from __future__ import annotations

import errno
import gc
import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import yaml

from podium.digests import weights_digest
from podium.errors import PodiumError, SweepError, TrialFailed
from podium.result import EpochEvent, TrainingJob, TrainingResult, Verdict
from podium.training import checkpoint, data, device, model, optimizer
from podium.training.builder import import_root
from podium.training.callbacks import EpochLoop, Progress, StandardCallbacks, restore, standard_callbacks
from podium.training.checkpoint import Arrays, TrainingState
from podium.training.data import Batches, LoadedArrays
from podium.training.export import Exported, NotPromotable, export

HISTORY_FILE, RECIPE_FILE, SUMMARY_FILE = "history.json", "recipe.yaml", "summary.txt"


def train(job: TrainingJob, report: Callable[[EpochEvent], Verdict]) -> TrainingResult:
    """Train one attempt; `report` gets each epoch and answers whether to go on.

    Of an interrupted attempt the checkpoint is complete, and another job's `resume_from` continues it; its epochs
    up to the checkpoint are not reported again. `images_per_second` is training images by training
    seconds: validation, checkpoints and waiting for verdicts are left out, building the first step is not.

    Raises: TrialFailed (cause 'nan', 'memory' or 'error') if this trial cannot be trained; DatasetError if the
    data are not the job's; SweepError if the disk is full. What `report` raises comes through as it is.
    """
    raised: list[BaseException] = []

    def ask(event: EpochEvent) -> Verdict:
        try:
            return report(event)
        except BaseException as error:
            raised.append(error)
            raise

    try:
        return _train(job, ask)
    except TrialFailed as error:
        error.traceback = error.traceback or _trace(error)
        raise
    except PodiumError:
        raise
    except Exception as error:
        if error in raised:
            raise
        raise _explained(error, job) from error
    finally:
        keras.utils.clear_session(free_memory=True)


@dataclass(frozen=True, kw_only=True)
class _Training:
    """What a job becomes in memory: the network alone, and the compiled model around it."""

    job: TrainingJob
    arrays: LoadedArrays
    network: Any
    model: Any
    standard: StandardCallbacks
    loop: EpochLoop
    batches: Batches


def _train(job: TrainingJob, report: Callable[[EpochEvent], Verdict]) -> TrainingResult:
    arrays = data.load(job.arrays)
    job.folder.mkdir(parents=True, exist_ok=True)
    found = checkpoint.newest(job.resume_from, last_epoch=job.epochs) if job.resume_from else None
    resumed = found.state if found else None
    keras.utils.clear_session(free_memory=True)
    keras.utils.set_random_seed(job.recipe.training.seed)
    if job.recipe.training.deterministic:
        device.make_deterministic()
    with import_root(job.code), device.precision(job.recipe.precision):
        training = _prepare(job, arrays, report, resumed)
        _write_text(job.folder / RECIPE_FILE, yaml.safe_dump(job.recipe.model_dump(), sort_keys=False))
        progress = _fit(training, resumed)
        result = _conclude(training, progress)
    details = {"resumed_after_epoch": str(resumed.epoch)} if resumed else {}
    if found and found.damaged:
        details["damaged_checkpoints"] = "\n".join(found.damaged)
    result.details.update(details)
    return result


def _prepare(
    job: TrainingJob,
    arrays: LoadedArrays,
    report: Callable[[EpochEvent], Verdict],
    resumed: TrainingState | None,
) -> _Training:
    settings = job.recipe.training
    batches = Batches(arrays, arrays.train, settings.batch_size, seed=settings.seed)
    steps = batches.num_batches
    network = model.build_network(job.recipe.model, arrays.image_shape, arrays.classes)
    compiled = model.build_training_model(network, job.recipe, arrays.image_shape)
    _write_summary(compiled, job.folder)
    compiled.compile(
        optimizer=optimizer.build(job.recipe.optimizer, steps_per_epoch=steps, epochs=settings.epochs),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    standard = standard_callbacks(job.recipe.callbacks, job.folder, job.metric, job.goal)
    loop = EpochLoop(
        batches=batches,
        images=len(arrays.train),
        rate=optimizer.LearningRate(compiled.optimizer, job.recipe.optimizer, steps, settings.epochs),
        standard=standard,
        folder=job.folder,
        report=report,
        resumed=resumed,
    )
    return _Training(
        job=job,
        arrays=arrays,
        network=network,
        model=compiled,
        standard=standard,
        loop=loop,
        batches=batches,
    )


def _fit(training: _Training, resumed: TrainingState | None) -> Progress:
    job, arrays = training.job, training.arrays
    if resumed and (resumed.stopped or resumed.epoch >= job.epochs):
        return restore(training.model, resumed, training.standard)
    validation = Batches(arrays, arrays.validation, data.validation_batch_size(arrays.image_shape))
    training.model.fit(
        training.batches,
        validation_data=validation,
        initial_epoch=resumed.epoch if resumed else 0,
        epochs=job.epochs,
        shuffle=False,  # Batches shuffles by seed and epoch.
        callbacks=[*training.standard.as_list(), training.loop],
        verbose=0,
    )
    return training.loop.progress


def _conclude(training: _Training, progress: Progress) -> TrainingResult:
    job, best = training.job, progress.best
    assert best is not None
    statuses: dict[Verdict, Literal["finished", "pruned", "interrupted"]] = {
        Verdict.CONTINUE: "finished",
        Verdict.PRUNE: "pruned",
        Verdict.INTERRUPT: "interrupted",
    }
    status = statuses[progress.verdict]
    weights_file = Path(training.standard.checkpoint.filepath)
    final_weights = _of_network(training, progress.last_weights)
    training.model.load_weights(weights_file)
    best_weights = [keras.ops.convert_to_numpy(weight) for weight in training.network.weights]
    _write_history(progress, job.folder)
    details = {"backend": keras.config.backend(), "keras": keras.version()}
    exported: Exported | None = None
    not_promotable = f"the training was {status}" if status != "finished" else None
    if status == "finished":
        try:
            exported = export(job.recipe, training.arrays, training.network, best_weights, job.folder)
            details["export_largest_difference"] = f"{exported.largest_difference:.3g}"
        except NotPromotable as error:
            not_promotable = str(error)
    weights_file.unlink()
    history = progress.history
    trained_seconds = sum(record.training_seconds for record in history)
    return TrainingResult(
        status=status,
        best_epoch=best.epoch,
        metrics=dict(history[best.epoch - 1].metrics),
        epochs=history[-1].epoch,
        seconds=sum(record.seconds for record in history),
        images_per_second=sum(record.images for record in history) / trained_seconds,
        weights_sha256=weights_digest(best_weights),
        final_weights_sha256=weights_digest(final_weights),
        parameters=int(training.network.count_params()),
        device=device.device_name(),
        threads=device.thread_count(),
        model_file=exported.model_file if exported else None,
        model_sha256=exported.model_sha256 if exported else None,
        not_promotable=not_promotable,
        details=details | {"checkpoint_seconds": f"{progress.checkpoint_seconds:.3f}"},
    )


def _of_network(training: _Training, weights: Arrays) -> Arrays:
    """The network's share of the training model's weights; augmentation may have some of its own."""
    places = {id(weight): index for index, weight in enumerate(training.model.weights)}
    return [weights[places[id(weight)]] for weight in training.network.weights]


def _write_history(progress: Progress, folder: Path) -> None:
    epochs = [
        {
            "epoch": record.epoch,
            "metrics": record.metrics,
            "seconds": record.seconds,
            "images": record.images,
        }
        for record in progress.history
    ]
    _write_text(folder / HISTORY_FILE, json.dumps(epochs, indent=1, allow_nan=False))


def _write_summary(compiled: Any, folder: Path) -> None:
    lines: list[str] = []
    compiled.summary(line_length=100, expand_nested=True, print_fn=lines.append)
    _write_text(folder / SUMMARY_FILE, "\n".join(lines) + "\n")


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".writing-{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _explained(error: Exception, job: TrainingJob) -> PodiumError:
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SweepError(
            f"no space left on the disk of {job.folder}; the epoch that was being saved is lost, "
            "the checkpoint before it is whole.",
            remedy="Make space, then go on with --resume.",
        )
    signs = ("RESOURCE_EXHAUSTED", "ResourceExhausted", "Out of memory", "out of memory")
    if isinstance(error, MemoryError) or any(sign in text for sign in signs):
        gc.collect()
        return TrialFailed(f"out of memory: {text[:500]}", cause="memory", traceback=_trace(error))
    return TrialFailed(text[:2000], cause="error", traceback=_trace(error))


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
