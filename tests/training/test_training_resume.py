"""Going on from a checkpoint gives what an uninterrupted training gives, to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from training_jobs import PLAIN, Reports, make_job

from podium.errors import TrialFailed
from podium.result import TrainingArrays, Verdict
from podium.training import checkpoint
from podium.training.train import train

pytestmark = pytest.mark.slow


def same_end(result: Any, finished: Any) -> bool:
    whole = finished.result
    return (result.weights_sha256, result.final_weights_sha256) == (
        whole.weights_sha256,
        whole.final_weights_sha256,
    ) and (result.best_epoch, result.metrics, result.epochs) == (
        whole.best_epoch,
        whole.metrics,
        whole.epochs,
    )


@pytest.fixture(scope="module")
def interrupted(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The finished training once more, interrupted after its third epoch."""
    job = replace(finished.job, folder=tmp_path_factory.mktemp("interrupted") / "attempt")
    reports = Reports({3: Verdict.INTERRUPT})
    result = train(job, reports)
    assert (result.status, result.model_file, reports.epochs()) == ("interrupted", None, [1, 2, 3])
    assert reports.metrics() == finished.reports.metrics()[:3]
    return job


def test_resumed_training_ends_bit_equal(finished: Any, interrupted: Any, tmp_path: Path) -> None:
    job = replace(finished.job, folder=tmp_path / "next", resume_from=interrupted.folder)
    reports = Reports()
    result = train(job, reports)
    assert reports.epochs() == [4, 5]
    assert reports.metrics() == finished.reports.metrics()[3:]
    assert same_end(result, finished)
    assert result.status == "finished"
    assert result.model_file is not None
    assert result.details["resumed_after_epoch"] == "3"


def test_damaged_checkpoint_is_skipped_for_the_one_before(
    finished: Any, interrupted: Any, tmp_path: Path
) -> None:
    job = replace(finished.job, folder=tmp_path / "next", resume_from=interrupted.folder)
    newest = interrupted.folder / "checkpoint-0003" / "optimizer.npz"
    whole = newest.read_bytes()
    try:
        newest.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
        reports = Reports()
        result = train(job, reports)
    finally:
        newest.write_bytes(whole)
    assert reports.epochs() == [3, 4, 5]
    assert same_end(result, finished)
    assert "optimizer.npz is not as it was written" in result.details["damaged_checkpoints"]


def test_a_training_that_had_ended_is_concluded_without_another_epoch(finished: Any, tmp_path: Path) -> None:
    job = replace(finished.job, folder=tmp_path / "next", resume_from=finished.job.folder)
    reports = Reports()
    result = train(job, reports)
    assert reports.events == []
    assert same_end(result, finished)
    assert result.model_file is not None


def test_a_longer_trial_goes_on_from_a_shorter_one_in_the_same_folder(scheduled: Any, tmp_path: Path) -> None:
    short = replace(scheduled.job, folder=tmp_path / "attempt", epochs=1)
    assert train(short, Reports()).status == "finished"
    reports = Reports()
    result = train(replace(short, epochs=2, resume_from=short.folder), reports)
    assert reports.epochs() == [2]
    assert reports.metrics() == scheduled.reports.metrics()[1:]
    assert result.final_weights_sha256 == scheduled.result.final_weights_sha256


def test_without_a_whole_checkpoint_it_starts_again(finished: Any, tmp_path: Path) -> None:
    job = replace(finished.job, folder=tmp_path / "next", resume_from=tmp_path / "gone")
    reports = Reports({1: Verdict.PRUNE})
    result = train(job, reports)
    assert reports.metrics() == finished.reports.metrics()[:1]
    assert "resumed_after_epoch" not in result.details


def test_checkpoint_of_another_network_is_refused(
    interrupted: Any, arrays: TrainingArrays, tmp_path: Path
) -> None:
    job = make_job(arrays, tmp_path / "next", {**PLAIN, "model.filters": 6}, resume_from=interrupted.folder)
    with pytest.raises(TrialFailed, match="checkpoint is of another network"):
        train(job, Reports())


def test_checkpoints_stay_small_and_few(finished: Any) -> None:
    folders = sorted(path.name for path in finished.job.folder.glob("checkpoint-*"))
    assert folders == ["checkpoint-0004", "checkpoint-0005"]
    state = checkpoint.load(finished.job.folder / folders[-1])
    arrays = sum(array.nbytes for array in [*state.weights, *state.optimizer])
    stored = len(state.weights) + len(state.optimizer) + len(state.seeds)
    size = sum(path.stat().st_size for path in (finished.job.folder / folders[-1]).iterdir())
    # Beyond the arrays: a header of some 300 bytes each, and the curve.
    assert size < 3 * arrays + 2 * 300 * stored + 4000
