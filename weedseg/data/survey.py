"""One look at a photo: does it decode, how large, bright and sharp is it, what does it resemble?

Every photo is decoded once, JPEG at reduced size: that still reads all of its data, so a file that
was cut short is found, at a fraction of the time. Answers are remembered while files stay as they
are, so the check, the search for duplicates and the split share them.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from weedseg.data.index import Photo
from weedseg.errors import ImageError
from weedseg.imaging import Image, image_size, orientation, read_small, resize_image

A = TypeVar("A")
B = TypeVar("B")

_SIDE_PX = 512
_HASHED_SIDE_PX = 128
_MOST_THREADS = 16


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What one look at a photo tells."""

    size: tuple[int, int] = (0, 0)
    """(height, width) as a person sees it, px."""
    turn: int = 1
    """EXIF orientation, 1-8."""
    grey: float = 0.0
    """Mean grey value, 0-255."""
    sharpness: float = 0.0
    """Variance of the Laplacian, at 512 px."""
    hash: int | None = None
    """Perceptual hash (pHash), 64 bit; None if the photo cannot be decoded."""
    error: ImageError | None = None
    """Why nothing else is known."""


def survey(photo: Photo) -> Survey:
    """Look at one photo; what was seen is remembered while the file stays as it is."""
    try:
        state = photo.path.stat()
    except OSError as error:
        reason = f"{photo.path} cannot be read: {error.strerror}"
        return Survey(error=ImageError(reason, "a readable photo", "replace or remove it"))
    return _look(photo.path, state.st_size, state.st_mtime_ns)


def survey_all(photos: Sequence[Photo]) -> list[Survey]:
    """Look at photos, on all cores."""
    return list(on_all_cores(survey, photos))


def on_all_cores(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Yield ``work(item)`` for every item, in order, from one thread a core.

    Decoding leaves the interpreter to other threads, so threads keep all cores busy.
    """
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    ahead: deque[Future[B]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) > 4 * threads:  # more would only fill memory
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


@functools.lru_cache(maxsize=1 << 17)
def _look(path: Path, num_bytes: int, changed_ns: int) -> Survey:
    """Look at one photo; size and time of change are part of the cache key only."""
    try:
        small = read_small(path, _SIDE_PX)
        size, turn = image_size(path), orientation(path)
    except ImageError as error:
        return Survey(error=error)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    return Survey(
        size=size,
        turn=turn,
        grey=float(grey.mean()),
        sharpness=float(cv2.Laplacian(grey, cv2.CV_64F).var()),
        hash=_perceptual_hash(small),
    )


def _perceptual_hash(small: Image) -> int:
    import imagehash
    from PIL import Image as PillowImage

    tiny = resize_image(small, min(1.0, _HASHED_SIDE_PX / max(small.shape[:2])))
    bits = imagehash.phash(PillowImage.fromarray(tiny)).hash.ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
