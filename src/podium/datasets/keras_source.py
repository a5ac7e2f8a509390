"""Owns datasets that Keras downloads: cifar10, cifar100, fashion_mnist, loaded in a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from podium.datasets.array_sources import NPZ_KEYS, ArraySource, checked_arrays
from podium.datasets.references import OFFLINE
from podium.errors import DatasetError, Fault

DOWNLOAD_SECONDS = 1800
CLEANUP_SECONDS = 10

# Keras gives numbers only. Sources: the datasets' own pages, in the order of their labels.
_NAMES = {
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck",
    "cifar100": """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
        butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
        crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
        keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
        mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
        porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
        snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
        tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""",
    "fashion_mnist": "T-shirt/top trouser pullover dress coat sandal shirt sneaker bag ankle_boot",
}
CLASS_NAMES = {name: tuple(words.split()) for name, words in _NAMES.items()}


def keras_arrays(name: str, folder: Path, *, timeout_seconds: float = DOWNLOAD_SECONDS) -> ArraySource:
    """Let Keras load a dataset into `folder` (memory-mapped from there on).

    Raises: DatasetError if it cannot be downloaded, telling what works without a network.
    """
    command = [sys.executable, "-m", "podium.datasets.keras_download", name, str(folder)]
    # No GPU: the loader computes nothing, and TensorFlow would take the memory that workers need.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        try:
            _, log = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            _stop(process)
            raise _failed(name, f"no answer within {timeout_seconds:g} seconds") from None
        except BaseException:
            _stop(process)
            raise
    if process.returncode:
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        raise _failed(name, lines[-1] if lines else f"exit code {process.returncode}")
    arrays = {key: np.load(folder / f"{key}.npy", mmap_mode="r", allow_pickle=False) for key in NPZ_KEYS}
    return checked_arrays(arrays, where=name, class_names=CLASS_NAMES[name])


def _stop(process: subprocess.Popen[str]) -> None:
    # On an interrupt Keras removes a file that it has half downloaded; on a kill it would use it next time.
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=CLEANUP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _failed(name: str, why: str) -> DatasetError:
    fault = Fault(message=f"Keras could not load {name}: {why}", key="data.reference", got=name)
    return DatasetError(
        f"The dataset {name} is not there and could not be downloaded.",
        remedy=f"Connect to a network and try again. These work without one: {OFFLINE}.",
        faults=[fault],
    )
