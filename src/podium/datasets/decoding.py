"""Owns turning image files of any mode into uint8 RGB arrays of one shape."""

from __future__ import annotations

import io
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from podium.datasets.references import MOST_FAULTS, refuse
from podium.errors import Fault

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int]

# Pillow's other plugins read documents, or hand files to other programs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
CHUNK_IMAGES = 256
CHUNK_BYTES = 64 * 2**20
_SIZE_KEY = "data.image_size"


def decode_image(content: bytes, *, image_size: int | tuple[int, int] | None = None) -> Pixels:
    """Decode one image to (height, width, 3), turned as its EXIF says; `image_size` makes it that square, or that
    (height, width).

    Transparency is dropped, as keras.utils.load_img drops it; 16-bit greys are scaled to 8 bits.
    Raises: whatever Pillow raises on a broken file; ValueError for pixels that have no known range.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
        image = _to_rgb(ImageOps.exif_transpose(opened), opened.format)
    if image_size is not None:
        image = _resized(image, image_size)
    return np.asarray(image)


def resize(images: Pixels, image_size: int | None) -> Pixels:
    """Resize (n, height, width, 3) to squares of `image_size` pixels; None leaves them alone."""
    if image_size is None or images.shape[1:3] == (image_size, image_size):
        return images
    return np.stack([np.asarray(_resized(Image.fromarray(image), image_size)) for image in images])


def decode_each(
    names: Sequence[str], read: Callable[[str], bytes], *, size: tuple[int, int]
) -> Iterator[list[tuple[str, Pixels | Fault]]]:
    """Decode all named images to (height, width, 3) of one size, as a dataset with that `data.image_size` has them.

    Yields them in order, chunk by chunk; a Fault stands for an image that is corrupt or cannot be read.
    """
    workers = _decoders()
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield from _in_order(pool, names, read, size, ahead=2 * workers)


def decode_all(
    names: Sequence[str],
    read: Callable[[str], bytes],
    *,
    image_size: int | None,
    shape: Shape | None = None,
) -> Iterator[Pixels]:
    """Decode all named images on all cores and yield them in order, in chunks (n, height, width, 3).

    All must have the shape of the first, or `shape` where it is given.
    Raises: DatasetError naming up to ten images that are corrupt or of another size.
    """
    workers = _decoders()
    broken: list[Fault] = []
    unequal: list[Fault] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        # Set here, not in the threads: filters belong to the process.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for decoded in _in_order(pool, names, read, image_size, ahead=2 * workers):
            chunk: list[Pixels] = []
            for name, image in decoded:
                if isinstance(image, Fault):
                    broken.append(image)
                    continue
                shape = shape or (image.shape[0], image.shape[1], 3)
                if image.shape != shape:
                    unequal.append(_unequal(name, image, shape))
                chunk.append(image)
            if len(broken) + len(unequal) >= MOST_FAULTS:
                break
            if chunk and not broken and not unequal:
                yield np.stack(chunk)
    if unequal and not broken:
        remedy = f"Set {_SIZE_KEY}, which resizes all images to squares, for example {_SIZE_KEY}=32."
        raise refuse("The images are of unequal size.", unequal[:MOST_FAULTS], remedy=remedy)
    if broken:
        remedy = "Replace or remove these files."
        raise refuse("Images cannot be decoded.", (broken + unequal)[:MOST_FAULTS], remedy=remedy)


def _decoders() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_order(
    pool: ThreadPoolExecutor,
    names: Sequence[str],
    read: Callable[[str], bytes],
    image_size: int | tuple[int, int] | None,
    *,
    ahead: int,
) -> Iterator[list[tuple[str, Pixels | Fault]]]:
    """Decode chunk by chunk, never more than `ahead` chunks before the one that is wanted."""

    def decode_chunk(chunk: Sequence[str]) -> list[tuple[str, Pixels | Fault]]:
        return [(name, _decode_or_fault(name, read, image_size)) for name in chunk]

    if not names:
        return
    # The first image tells how many fit into a chunk.
    first = decode_chunk(names[:1])
    yield first
    size = first[0][1].nbytes if not isinstance(first[0][1], Fault) else CHUNK_BYTES
    rows = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // max(1, size)))
    waiting: deque[Future[list[tuple[str, Pixels | Fault]]]] = deque()
    try:
        for start in range(1, len(names), rows):
            waiting.append(pool.submit(decode_chunk, names[start : start + rows]))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _decode_or_fault(
    name: str, read: Callable[[str], bytes], image_size: int | tuple[int, int] | None
) -> Pixels | Fault:
    try:
        return decode_image(read(name), image_size=image_size)
    except MemoryError:
        raise
    except Exception as error:
        # Pillow and zlib raise nearly anything on a broken file; each is a fault that names the file.
        what = "not an image that Pillow can read" if isinstance(error, UnidentifiedImageError) else error
        return Fault(message=f"{name}: {what}", got=name)


def _to_rgb(image: Image.Image, file_format: str | None) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format in ("PNG", "PPM")):
        # Pillow's own conversion cuts off above 255 rather than scaling.
        wide = np.asarray(image).astype(np.uint32)
        if wide.max(initial=0) > 65_535:
            raise ValueError("pixels above 65535; save the image with 8 bits a channel")
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no known range; save the image with 8 bits a channel")
    if image.mode in ("P", "PA") and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _resized(image: Image.Image, image_size: int | tuple[int, int]) -> Image.Image:
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _unequal(name: str, image: Pixels, shape: Shape) -> Fault:
    height, width = image.shape[:2]
    message = f"{name} is {width}x{height}, others are {shape[1]}x{shape[0]}"
    return Fault(message=message, key=_SIZE_KEY, got=f"{width}x{height}")
