"""Images that are to be labelled become what the same files became in a dataset."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from dataset_files import picture, write_folder
from PIL import Image

from podium.datasets.decoding import decode_each
from podium.datasets.prepare import Dataset
from podium.errors import Fault

SIDE = 16


def rotated(size: tuple[int, int]) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    return file.getvalue()


FILES = {
    "train/a/alpha.png": picture("RGBA", size=(40, 30)),
    "train/a/grey.jpg": picture("L", format="JPEG", size=(9, 50)),
    "train/a/palette.gif": picture("P", format="GIF", size=(20, 20)),
    "train/a/same.png": picture(size=(SIDE, SIDE)),
    "train/b/rotated.jpg": rotated((60, 20)),
    "train/b/small.webp": picture("RGBA", format="WEBP", size=(5, 7)),
}


def test_every_mode_and_size_has_the_datasets_own_pixels(
    tmp_path: Path, prepared: Callable[..., Dataset]
) -> None:
    dataset = prepared(f"folder:{write_folder(tmp_path / 'pets', FILES)}", image_size=SIDE)
    expected = np.load(dataset.train_images)
    found = [
        one for chunk in decode_each(sorted(FILES), FILES.__getitem__, size=(SIDE, SIDE)) for one in chunk
    ]
    assert [name for name, _ in found] == sorted(FILES)
    for (_, pixels), wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(pixels, wanted)


def test_a_broken_file_stands_for_itself_alone() -> None:
    files = {f"{number:04}.png": picture(size=(4, 4)) for number in range(600)}
    files["0300.png"] = b"broken"
    found = [one for chunk in decode_each(list(files), files.__getitem__, size=(6, 8)) for one in chunk]
    assert [name for name, _ in found] == list(files)
    broken = [(name, one) for name, one in found if isinstance(one, Fault)]
    assert [(name, fault.got) for name, fault in broken] == [("0300.png", "0300.png")]
    assert {one.shape for _, one in found if not isinstance(one, Fault)} == {(6, 8, 3)}
