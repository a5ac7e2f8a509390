"""What is compiled for one trial serves the next, and leaves no mark on it."""

from __future__ import annotations

import functools
import gc
from pathlib import Path
from typing import Any

import keras
import psutil
import pytest
from training_jobs import FAST, GUIDE, LINEAR_NETWORK, OTHERS, PLAIN, SMALL, Reports, make_job, user_code

from podium.errors import TrialFailed
from podium.recipe import Recipe
from podium.result import TrainingArrays, TrainingResult
from podium.training import program
from podium.training.export import MODEL_FILE
from podium.training.layers import FusedBatchNormalization
from podium.training.program import Programs, Setting
from podium.training.train import Trainer, train

BASE: dict[str, Any] = {**SMALL, "training.epochs": 2}
# Every number that a program takes as a variable.
OTHER: dict[str, Any] = {
    "training.seed": 5,
    "training.epochs": 3,
    "optimizer.learning_rate": 3e-3,
    "model.dropout": 0.0,
    "model.dense_dropout": 0.6,
    "augmentation.strength": 1.7,
}
DECAYED: dict[str, Any] = {
    **BASE,
    "optimizer.name": "adamw",
    "optimizer.weight_decay": 0.1,
    "optimizer.schedule": {"name": "cosine", "warmup_epochs": 0.5},
    "callbacks.reduce_lr_on_plateau": None,
}


def setting(values: dict[str, Any]) -> Setting:
    return Setting(recipe=Recipe().with_values(values), image_shape=(8, 8, 1), classes=10, train_count=150)


def same(first: TrainingResult, second: TrainingResult) -> bool:
    return (
        first.weights_sha256 == second.weights_sha256
        and first.final_weights_sha256 == second.final_weights_sha256
        and first.metrics == second.metrics
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever Python runs batch normalisation: when a network is built, and when it is traced."""
    counted: list[int] = []
    run = FusedBatchNormalization.call

    @functools.wraps(run)
    def counting(layer: Any, *args: Any, **settings: Any) -> Any:
        counted.append(1)
        return run(layer, *args, **settings)

    monkeypatch.setattr(FusedBatchNormalization, "call", counting)
    return counted


def test_a_trial_of_the_same_shape_is_not_traced_again(
    arrays: TrainingArrays, tmp_path: Path, calls: list[int]
) -> None:
    trainer, counts = Trainer(), []
    for number, values in enumerate([BASE, {**BASE, **OTHER}, {**BASE, "model.filters": 5}]):
        calls.clear()
        trainer(make_job(arrays, tmp_path / str(number), values), Reports())
        counts.append(len(calls))
    layers = 4  # of batch normalisation in this network: two after convolutions, two after dense layers
    # The comparison at the export runs each once, in every trial.
    assert counts[1] == layers
    assert counts[0] > layers
    assert counts[2] > layers
    first, *later = [
        [layer.name for layer in keras.saving.load_model(tmp_path / str(number) / MODEL_FILE).layers]
        for number in range(3)
    ]
    assert first[:4] == ["images", "rescaling", "conv2d", "batch_normalization"]
    assert later == [first, first]


@pytest.mark.parametrize(
    "first",
    [BASE, DECAYED, *({**each, "training.epochs": 1} for each in (FAST, GUIDE, OTHERS))],
    ids=["adam", "adamw, cosine, decay", "fast", "guide's ideas", "muon, averages"],
)
def test_a_warm_worker_trains_to_the_bit_what_a_cold_one_does(
    arrays: TrainingArrays, tmp_path: Path, first: dict[str, Any]
) -> None:
    changed = {**first, **OTHER, "training.epochs": first["training.epochs"]}
    if "optimizer.weight_decay" in first:
        changed["optimizer.weight_decay"] = 0.02
    on_its_seed = {key: value for key, value in changed.items() if key != "training.seed"}
    trainer = Trainer()
    before = trainer(make_job(arrays, tmp_path / "before", first), Reports())
    for name, values in {"on its seed": on_its_seed, "changed": changed}.items():
        cold = train(make_job(arrays, tmp_path / f"{name}, cold", values), Reports())
        warm = trainer(make_job(arrays, tmp_path / f"{name}, warm", values), Reports())
        assert same(cold, warm), name
        assert not same(before, warm), name


def test_what_numbers_alone_change_is_one_program_and_the_rest_is_another() -> None:
    base = setting(BASE).signature()
    assert setting({**BASE, **OTHER}).signature() == base
    others: list[dict[str, Any]] = [
        {"model.depth": 2},
        {"model.dense_units": 32},
        {"model.normalization_momentum": 0.9},
        {"training.batch_size": 16},
        {"training.deterministic": False},
        {"precision": "bfloat16"},
        {"augmentation.strength": 0.0},
        {"augmentation.flip": False},
        {"optimizer.name": "sgd"},
        {"optimizer.weight_decay": 0.1},
        {"optimizer.clipnorm": 1.0},
        {"optimizer.ema_momentum": 0.9},
        {"model.test_time_flip": True},
    ]
    signatures = [setting({**BASE, **values}).signature() for values in others]
    assert len({base, *signatures}) == len(others) + 1
    assert setting({"model.builder": "networks:build"}).signature() is None
    longer = {**DECAYED, "training.epochs": 3}  # a schedule runs over all epochs
    assert setting(longer).signature() != setting(DECAYED).signature()


def test_a_training_that_failed_leaves_nothing_to_the_next(arrays: TrainingArrays, tmp_path: Path) -> None:
    trainer = Trainer()
    sane = {
        **BASE,
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 0.01,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 0.1,  # a loss of clipped probabilities stays finite until weights are not
    }
    diverging = {**sane, "optimizer.learning_rate": 100.0}
    with pytest.raises(TrialFailed, match="diverged"):
        trainer(make_job(arrays, tmp_path / "nan", {**diverging, "training.epochs": 20}), Reports())
    after = trainer(make_job(arrays, tmp_path / "after", sane), Reports())
    assert same(after, train(make_job(arrays, tmp_path / "cold", sane), Reports()))


def test_a_users_network_is_built_anew_each_time(arrays: TrainingArrays, tmp_path: Path) -> None:
    code = user_code(tmp_path / "code")
    values = {"model.builder": "networks:build", "training.epochs": 1}
    trainer = Trainer()
    narrow = make_job(arrays, tmp_path / "1", {**values, "model.parameters": {"units": 4}}, code=code)
    wide = make_job(arrays, tmp_path / "2", {**values, "model.parameters": {"units": 9}}, code=code)
    assert trainer(narrow, Reports()).parameters < trainer(wide, Reports()).parameters


def test_only_the_programs_used_last_are_kept() -> None:
    programs = Programs(kept=2)
    kept = []
    for filters in (1, 2, 3):
        chosen = setting({**PLAIN, "model.filters": filters})
        kept.append(programs.take(chosen))
        programs.give_back(kept[-1], chosen)
    assert programs.take(setting({**PLAIN, "model.filters": 3})) is kept[2]
    assert programs.take(setting({**PLAIN, "model.filters": 2})) is kept[1]
    assert programs.take(setting({**PLAIN, "model.filters": 1})) is not kept[0]


@pytest.mark.slow
def test_memory_stays_flat_over_many_trials(arrays: TrainingArrays, tmp_path: Path) -> None:
    trainer, process, sizes = Trainer(), psutil.Process(), []
    for number in range(16):
        values = {**BASE, "training.epochs": 1, "training.seed": number, "model.filters": 4 + number % 2}
        trainer(make_job(arrays, tmp_path / "job", values), Reports())
        sizes.append(process.memory_info().rss / 2**20)
    grown = sizes[-1] - sizes[9]
    assert grown < 6, f"6 trials took {grown:.0f} MiB more: {[round(size) for size in sizes]}"


@pytest.mark.slow
@pytest.mark.skipif(keras.config.backend() == "jax", reason="JAX keeps what it compiled in caches of its own")
def test_a_compiled_network_that_is_let_go_of_leaves_nothing(arrays: TrainingArrays, tmp_path: Path) -> None:
    programs, objects = Programs(kept=1), []
    for filters in range(1, 7):
        values = {**BASE, "training.epochs": 1, "model.filters": filters}
        train(make_job(arrays, tmp_path / "job", values), Reports(), programs)
        gc.collect()
        objects.append(len(gc.get_objects()))
    assert objects[-1] - objects[-3] < 1000, f"objects after each network: {objects}"


@pytest.mark.slow
def test_a_new_session_keeps_the_precision(
    arrays: TrainingArrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "TRIALS_A_SESSION", 1)
    programs = Programs()
    values = {**BASE, "training.epochs": 1, "precision": "bfloat16"}
    train(make_job(arrays, tmp_path / "ours", values), Reports(), programs)
    [kept] = programs._programs.values()
    assert kept.network.get_layer("conv2d").compute_dtype == "bfloat16"
    own = LINEAR_NETWORK.replace(
        "def build(", "assert keras.config.dtype_policy().name == 'mixed_bfloat16'\n\ndef build("
    )
    job = make_job(
        arrays,
        tmp_path / "own",
        {**PLAIN, "training.epochs": 1, "precision": "bfloat16", "model.builder": "networks:build"},
        code=user_code(tmp_path / "code", own),
    )
    assert train(job, Reports(), programs).status == "finished"
