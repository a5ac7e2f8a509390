"""Images of every mode become uint8 RGB; broken ones are named."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import picture, tree, write_folder
from PIL import Image

from podium.datasets.decoding import decode_all, decode_image
from podium.datasets.prepare import Dataset
from podium.errors import DatasetError


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format=format, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        ("RGB", "PNG"),
        ("RGB", "JPEG"),
        ("L", "PNG"),
        ("L", "JPEG"),
        ("1", "PNG"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("RGBA", "WEBP"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("YCbCr", "TIFF"),
        ("RGB", "BMP"),
        ("RGB", "PPM"),
    ],
)
def test_every_mode_becomes_rgb_bytes(mode: str, format: str) -> None:
    pixels = decode_image(picture(mode, format=format, size=(6, 4)))
    assert (pixels.dtype, pixels.shape) == (np.uint8, (4, 6, 3))
    assert pixels.std() > 0


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_not_cut_off(format: str) -> None:
    greys = np.array([[0, 257, 32_896, 65_535]], dtype=np.uint16)
    pixels = decode_image(saved(Image.fromarray(greys), format))
    np.testing.assert_array_equal(pixels[0, :, 0], [0, 1, 128, 255])
    assert (pixels == pixels[..., :1]).all()


def test_floating_point_pixels_are_refused() -> None:
    content = saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    with pytest.raises(ValueError, match="no known range"):
        decode_image(content)


def test_palette_with_transparency_decodes_without_a_warning() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    pixels = decode_image(saved(image, transparency=b"\x00\x80"))
    assert pixels[0, 0].tolist() == [200, 100, 50]


def test_exif_rotation_is_applied() -> None:
    image = Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(saved(image, "JPEG", exif=exif)).shape == (6, 4, 3)


def test_image_size_makes_a_square() -> None:
    assert decode_image(picture(size=(30, 10)), image_size=16).shape == (16, 16, 3)


def test_order_is_kept_over_many_chunks() -> None:
    contents = {f"{i}.png": saved(Image.new("RGB", (2, 2), (i % 256, i // 256, 0))) for i in range(1200)}
    images = np.concatenate(list(decode_all(list(contents), contents.__getitem__, image_size=None)))
    assert images[:, 0, 0, :2].tolist() == [[i % 256, i // 256] for i in range(1200)]


def test_corrupt_images_are_refused_by_name(tmp_path: Path, prepared: Callable[..., Dataset]) -> None:
    files = tree()
    jpeg = picture(format="JPEG", size=(64, 64))
    files["train/cat/truncated.jpg"] = jpeg[: len(jpeg) // 2]
    files["train/dog/text.png"] = b"not an image"
    files["test/dog/empty.png"] = b""
    folder = write_folder(tmp_path / "pets", files)
    with pytest.raises(DatasetError) as caught:
        prepared(f"folder:{folder}", image_size=8)
    named = " ".join(fault.message for fault in caught.value.faults)
    assert "train/cat/truncated.jpg" in named
    assert "train/dog/text.png" in named
    assert "train/cat/000.png" not in named


def test_at_most_ten_corrupt_images_are_named() -> None:
    with pytest.raises(DatasetError) as caught:
        list(decode_all([f"{i}.png" for i in range(600)], lambda name: b"broken", image_size=None))
    assert len(caught.value.faults) == 10


def test_corrupt_test_image_is_refused_and_nothing_is_left(
    tmp_path: Path, cache: Path, prepared: Callable[..., Dataset]
) -> None:
    folder = write_folder(tmp_path / "pets", tree() | {"test/dog/bad.png": b"bad"})
    with pytest.raises(DatasetError, match=r"test/dog/bad\.png"):
        prepared(f"folder:{folder}")
    assert not (cache / "index").exists()
    assert [path.name for path in cache.iterdir() if path.name.startswith(".building")] == []


def test_decompression_bomb_is_an_error() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    # 10,000 x 10,000 is where Pillow only warns; 30,000 x 30,000 is where it raises.
    for side in (10_000, 30_000):
        header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
        bomb = (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(b""))
            + chunk(b"IEND", b"")
        )
        # Not by this suite's own rule that warnings are errors.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(DatasetError, match="decompression bomb"):
                list(decode_all(["bomb.png"], lambda name, bomb=bomb: bomb, image_size=8))


def test_unequal_sizes_need_image_size(tmp_path: Path, prepared: Callable[..., Dataset]) -> None:
    folder = write_folder(tmp_path / "pets", tree() | {"train/cat/wide.png": picture(size=(20, 8))})
    with pytest.raises(DatasetError, match="unequal size") as caught:
        prepared(f"folder:{folder}")
    assert caught.value.faults[0].key == "data.image_size"
    assert "train/cat/wide.png is 20x8, others are 8x8" in caught.value.faults[0].message
    assert "data.image_size" in (caught.value.remedy or "")
    assert prepared(f"folder:{folder}", image_size=12).image_shape == (12, 12, 3)


def test_test_images_must_have_the_size_of_training_images(
    tmp_path: Path, prepared: Callable[..., Dataset]
) -> None:
    files = tree(test=0) | {"test/cat/other.png": picture(size=(9, 9))}
    with pytest.raises(DatasetError, match="unequal size"):
        prepared(f"folder:{write_folder(tmp_path / 'pets', files)}")
