"""Owns one training from job to result: plain Keras `fit`, an event an epoch, files in the job's folder."""

from __future__ import annotations

import errno
import gc
import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import keras
import yaml

from podium.digests import weights_digest
from podium.errors import PodiumError, SweepError, TrialFailed
from podium.result import EpochEvent, TrainingJob, TrainingResult, Verdict
from podium.training import checkpoint, data, device, optimizer
from podium.training.backbone import Unfreezing
from podium.training.builder import import_root
from podium.training.callbacks import EpochLoop, Progress, StandardCallbacks, restore, standard_callbacks
from podium.training.checkpoint import Arrays, TrainingState
from podium.training.classical import train_classical
from podium.training.data import Batches, LoadedArrays
from podium.training.export import Exported, NotPromotable, export
from podium.training.layers import learned_weights
from podium.training.networks import whiten
from podium.training.program import Program, Programs, Setting

HISTORY_FILE, RECIPE_FILE, SUMMARY_FILE = "history.json", "recipe.yaml", "summary.txt"


class Trainer:
    """Trains one job after another. What was compiled for one serves the next of the same shape.

    A training gives the same weights to the bit whatever was trained before it.
    """

    def __init__(self, programs: Programs | None = None) -> None:
        self._programs = Programs() if programs is None else programs

    def __call__(self, job: TrainingJob, report: Callable[[EpochEvent], Verdict]) -> TrainingResult:
        """As `train`."""
        return train(job, report, self._programs)


def train(
    job: TrainingJob, report: Callable[[EpochEvent], Verdict], programs: Programs | None = None
) -> TrainingResult:
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
        if job.recipe.classical is not None:
            return train_classical(job, ask)
        return _train(job, ask, programs or Programs(kept=0))
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
        device.forget_feeds()


@dataclass(frozen=True, kw_only=True)
class _Training:
    """What a job becomes in memory."""

    job: TrainingJob
    arrays: LoadedArrays
    program: Program
    standard: StandardCallbacks
    loop: EpochLoop
    batches: Batches


def _train(job: TrainingJob, report: Callable[[EpochEvent], Verdict], programs: Programs) -> TrainingResult:
    assert job.recipe.precision != "auto", "precision is chosen before the first training"
    arrays = data.load(job.arrays)
    job.folder.mkdir(parents=True, exist_ok=True)
    found = checkpoint.newest(job.resume_from, last_epoch=job.epochs) if job.resume_from else None
    resumed = found.state if found else None
    if job.recipe.training.deterministic:
        device.make_deterministic()
    setting = Setting(
        recipe=job.recipe,
        image_shape=arrays.image_shape,
        classes=arrays.classes,
        train_count=len(arrays.train),
    )
    programs.begin_session(setting)
    with import_root(job.code), device.precision(job.recipe.precision):
        training = _prepare(job, arrays, report, resumed, programs.take(setting))
        _write_text(job.folder / RECIPE_FILE, yaml.safe_dump(job.recipe.model_dump(), sort_keys=False))
        progress = _fit(training, resumed)
        result = _conclude(training, progress)
        programs.give_back(training.program, setting)
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
    program: Program,
) -> _Training:
    settings = job.recipe.training
    batches = data.training_batches(arrays, job.recipe)
    steps = batches.num_batches
    if job.recipe.model.whitening and job.recipe.model.builder is None:
        whiten(program.network, arrays.images[arrays.whitened])
    _write_text(job.folder / SUMMARY_FILE, program.summary)
    averaged = job.recipe.optimizer.ema_momentum is not None
    standard = standard_callbacks(job.recipe.callbacks, job.folder, job.metric, job.goal, averaged=averaged)
    loop = EpochLoop(
        batches=batches,
        images=len(arrays.train),
        rate=optimizer.LearningRate(program.model.optimizer, job.recipe.optimizer, steps, settings.epochs),
        standard=standard,
        folder=job.folder,
        report=report,
        resumed=resumed,
    )
    return _Training(
        job=job,
        arrays=arrays,
        program=program,
        standard=standard,
        loop=loop,
        batches=batches,
    )


def _fit(training: _Training, resumed: TrainingState | None) -> Progress:
    job, arrays = training.job, training.arrays
    if resumed and (resumed.stopped or resumed.epoch >= job.epochs):
        return restore(training.program.model, resumed, training.standard)
    validation = data.validation_batches(arrays, job.recipe)
    training.program.model.fit(
        data.fed(training.batches),
        validation_data=data.fed(validation),
        initial_epoch=resumed.epoch if resumed else 0,
        epochs=job.epochs,
        shuffle=False,  # Batches shuffles by seed and epoch.
        callbacks=[*_unfreezing(training), *training.standard.as_list(), training.loop],
        verbose=0,
    )
    return training.loop.progress


def _unfreezing(training: _Training) -> list[Unfreezing]:
    backbone = training.job.recipe.model.backbone_in_use
    return [] if backbone is None else [Unfreezing(training.program.network, backbone.unfreeze_epoch)]


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
    network = training.program.network
    training.program.model.load_weights(weights_file)
    best_weights = [keras.ops.convert_to_numpy(weight) for weight in learned_weights(network)]
    _write_history(progress, job.folder)
    details = {"backend": keras.config.backend(), "keras": keras.version()}
    exported: Exported | None = None
    not_promotable = f"the training was {status}" if status != "finished" else None
    if status == "finished":
        try:
            exported = export(job.recipe, training.arrays, network, best_weights, job.folder)
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
        parameters=sum(weight.size for weight in best_weights),
        device=device.device_name(),
        threads=device.thread_count(),
        model_file=exported.model_file if exported else None,
        model_sha256=exported.model_sha256 if exported else None,
        not_promotable=not_promotable,
        details=details | {"checkpoint_seconds": f"{progress.checkpoint_seconds:.3f}"},
    )


def _of_network(training: _Training, weights: Arrays) -> Arrays:
    """The network's share of the training model's weights; rates are no part of it."""
    places = {id(weight): index for index, weight in enumerate(training.program.model.weights)}
    return [weights[places[id(weight)]] for weight in learned_weights(training.program.network)]


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


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".writing-{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _explained(error: Exception, job: TrainingJob) -> PodiumError:
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
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
