"""Owns the process that runs one of Keras's dataset loaders: python -m ...keras_download NAME FOLDER."""

from __future__ import annotations

import importlib
import socket
import sys
from pathlib import Path

import numpy as np

# Keras sets no time-out of its own: a connection that says nothing would hang for ever.
SILENCE_SECONDS = 30


def main(name: str, folder: Path) -> None:
    """Load `keras.datasets.NAME`, downloaded if Keras does not have it, and save its arrays in `folder`."""
    socket.setdefaulttimeout(SILENCE_SECONDS)
    # By name: Keras is not to be imported where this module is, only in the process that it runs in.
    importlib.import_module("keras").config.set_image_data_format("channels_last")
    loader = importlib.import_module(f"keras.datasets.{name}")
    (x_train, y_train), (x_test, y_test) = loader.load_data()
    for key, array in {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}.items():
        np.save(folder / f"{key}.npy", array, allow_pickle=False)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
