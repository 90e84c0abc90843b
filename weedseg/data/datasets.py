"""Decoded photos in memory, a sampler without state, and a thread that works ahead."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from weedseg.data.index import Farm, Photo
from weedseg.data.masks import read_mask
from weedseg.errors import FieldDataError, ImageError, MaskError
from weedseg.imaging import (
    Image,
    Mask,
    image_size,
    read_image,
    resize_class_map,
    resize_image,
    scaled_size,
)

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_PROBED = 64
_FULL_SIDE_PX = 1600
_DRAWS_PER_DECODE = 8


def working_scale(photos: Sequence[Photo], scale: float) -> float:
    """Choose the working resolution of a farm.

    Args:
        photos: Its photos; the headers of up to 64 are read.
        scale: What the recipe says, share of the photo's resolution; 0 leaves it to this function.

    Returns:
        `scale`, or 1 if the median photo's longer side is at most 1600 px, else what makes it so.

    Raises:
        FieldDataError: No header can be read.
    """
    if scale:
        return scale
    sides = [max(size) for size in _header_sizes(photos)]
    return min(1.0, _FULL_SIDE_PX / float(np.median(sides)))


def _header_sizes(photos: Sequence[Photo]) -> list[tuple[int, int]]:
    """Read (height, width) of up to 64 photos, evenly chosen.

    Raises:
        FieldDataError: No header can be read.
    """
    sizes = []
    for photo in photos[:: max(1, len(photos) // _PROBED)]:
        try:
            sizes.append(image_size(photo.path))
        except ImageError:
            continue
    if not sizes:
        raise FieldDataError(
            f"none of {len(photos)} photos can be read", "readable photos", "run a check of them"
        )
    return sizes


class PhotoPool:
    """Photos at working resolution, decoded when asked for and kept within a budget of memory.

    An unreadable photo is named in the log and stands back for the next readable one, so results
    depend on the files only, never on what is in memory. Safe to use from several threads.
    """

    def __init__(
        self,
        farm: Farm,
        photos: Sequence[Photo],
        scale: float,
        cache_mib: int,
        with_masks: bool = False,
        bad_photo_share: float = 0.05,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            farm: Classes and palette.
            photos: The photos of the pool; labelled ones if masks are wanted.
            scale: Working resolution as a share of the photo's.
            cache_mib: Budget of memory for decoded photos, MiB.
            with_masks: Read masks too.
            bad_photo_share: Share of photos that may be unreadable, 0-1; above 0, one always may.

        Raises:
            FieldDataError: There is no photo.
        """
        if not photos:
            raise FieldDataError("a pool without photos", "at least one photo", "add photos")
        self.photos = tuple(photos)
        self._farm = farm
        self._scale = scale
        self._budget_bytes = cache_mib << 20
        self._with_masks = with_masks
        self._allowed = max(1, int(bad_photo_share * len(photos))) if bad_photo_share else 0
        self._kept: OrderedDict[int, tuple[Image, Mask | None]] = OrderedDict()
        self._kept_bytes = 0
        self._bad: dict[int, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Count the photos, bad ones included."""
        return len(self.photos)

    @property
    def num_bad(self) -> int:
        """How many photos turned out unreadable so far."""
        return len(self._bad)

    @property
    def bad_names(self) -> tuple[str, ...]:
        """Names of the photos that turned out unreadable so far, in their order."""
        return tuple(self.photos[i].name for i in sorted(self._bad))

    @functools.cached_property
    def window(self) -> int:
        """How many photos fit into the budget, judged by headers; at least 1.

        Raises:
            FieldDataError: No header can be read.
        """
        layers = 4 if self._with_masks else 3
        sizes = [scaled_size(size, self._scale) for size in _header_sizes(self.photos)]
        largest = max(height * width * layers for height, width in sizes)
        return max(1, min(len(self.photos), self._budget_bytes // largest))

    def image(self, i: int) -> Image:
        """Return photo `i`, uint8 (H, W, 3) at working resolution; do not write to it.

        Raises:
            FieldDataError: Too many photos are unreadable.
        """
        return self._item(i)[0]

    def mask(self, i: int) -> Mask:
        """Return the mask of photo `i`, uint8 (H, W) at working resolution; do not write to it.

        Raises:
            FieldDataError: Too many photos are unreadable, or the pool was made without masks.
        """
        mask = self._item(i)[1]
        if mask is None:
            raise FieldDataError("a pool without masks", "with_masks=True", "report this")
        return mask

    def readable(self, i: int) -> int:
        """Return the number of the photo that stands for `i`: itself, or the next readable one.

        Raises:
            FieldDataError: Too many photos are unreadable.
        """
        self._item(i)
        while i in self._bad:
            i = (i + 1) % len(self.photos)
        return i

    def _item(self, i: int) -> tuple[Image, Mask | None]:
        while True:
            with self._lock:
                while i in self._bad:
                    i = (i + 1) % len(self.photos)
                if i in self._kept:
                    self._kept.move_to_end(i)
                    return self._kept[i]
            try:
                item = self._read(self.photos[i])
            except (ImageError, MaskError) as error:
                self._set_aside(i, error)
            else:
                self._keep(i, item)
                return item

    def _read(self, photo: Photo) -> tuple[Image, Mask | None]:
        image = read_image(photo.path)
        size = scaled_size((image.shape[0], image.shape[1]), self._scale)
        mask = resize_class_map(read_mask(self._farm, photo), size) if self._with_masks else None
        image = resize_image(image, self._scale)
        for array in (image, mask):
            if array is not None:
                array.flags.writeable = False
        return image, mask

    def _keep(self, i: int, item: tuple[Image, Mask | None]) -> None:
        num_bytes = _num_bytes(item)
        with self._lock:
            if i in self._kept or num_bytes > self._budget_bytes:
                return
            self._kept[i] = item
            self._kept_bytes += num_bytes
            while self._kept_bytes > self._budget_bytes:
                self._kept_bytes -= _num_bytes(self._kept.popitem(last=False)[1])

    def _set_aside(self, i: int, error: FieldDataError) -> None:
        """Put a photo into quarantine.

        Raises:
            FieldDataError: There are too many.
        """
        with self._lock:
            if i not in self._bad:
                self._bad[i] = error.found
                _LOG.warning("left out %s: %s", self.photos[i].name, error.found)
            if len(self._bad) > min(self._allowed, len(self.photos) - 1):
                names = ", ".join(self.bad_names[:3])
                raise FieldDataError(
                    f"{len(self._bad)} of {len(self.photos)} photos are unreadable, e.g. {names}",
                    f"at most {self._allowed}",
                    "replace or remove them, or raise data.bad_photo_share",
                ) from error


def _num_bytes(item: tuple[Image, Mask | None]) -> int:
    return item[0].nbytes + (0 if item[1] is None else item[1].nbytes)


def photo_numbers(seed: int, step: int, batch: int, num_photos: int, window: int) -> list[int]:
    """Say which photos a step draws; depends on nothing but the arguments.

    Every photo comes once an epoch, in a new order each time. When only `window` photos fit into
    memory, an epoch goes through random groups of at most that many, and draws each photo of a
    group 8 times before the next group: each photo is then decoded once for 8 draws.

    Args:
        seed: Of the run.
        step: Optimiser step, from 0.
        batch: Photos per step.
        num_photos: Photos of the pool.
        window: Photos that fit into memory.

    Returns:
        `batch` numbers below `num_photos`.
    """
    repeats = 1 if num_photos <= window else _DRAWS_PER_DECODE
    num_groups = max(1, math.ceil(num_photos / max(1, window)))
    numbers = []
    for position in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(position, num_photos * repeats)
        group, offset = _group_of(place, num_photos, num_groups, repeats)
        order = _group_order((seed, epoch, group), num_photos, num_groups, repeats)
        numbers.append(int(order[offset]))
    return numbers


def _group_of(place: int, num_photos: int, num_groups: int, repeats: int) -> tuple[int, int]:
    """Return the group of a draw and its place in there; groups differ by at most one photo."""
    group = 0
    size, larger = divmod(num_photos, num_groups)
    first = larger * (size + 1) * repeats
    if place < first:
        group, offset = divmod(place, (size + 1) * repeats)
        return group, offset
    group, offset = divmod(place - first, size * repeats)
    return larger + group, offset


@functools.lru_cache(maxsize=8)
def _group_order(
    key: tuple[int, int, int], num_photos: int, num_groups: int, repeats: int
) -> npt.NDArray[np.int64]:
    seed, epoch, group = key
    members = np.array_split(_epoch_order(seed, epoch, num_photos), num_groups)[group]
    rng = np.random.default_rng([seed, epoch, group, 1])
    return np.concatenate([rng.permutation(members) for _ in range(repeats)])


@functools.lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, num_photos: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(num_photos)


class Prefetcher(Generic[T]):
    """Iterate over ``make(first) ... make(last - 1)``, computed ahead by one background thread.

    An error in `make` is raised in the consumer. Close it, or use it in a ``with`` statement.
    """

    def __init__(self, make: Callable[[int], T], first: int, last: int, depth: int = 2) -> None:
        """Start working.

        Args:
            make: Gives item i; called from one other thread only, in order.
            first: First item.
            last: One past the last item.
            depth: How many items are worked on or wait.
        """
        self._make = make
        self._numbers: Iterator[int] = iter(range(first, last))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._ahead: deque[Future[T]] = deque()
        for number in itertools.islice(self._numbers, depth):
            self._ahead.append(self._thread.submit(make, number))

    def __iter__(self) -> Iterator[T]:
        """Return itself."""
        return self

    def __next__(self) -> T:
        """Return the next item; whatever `make` raised is raised here.

        Raises:
            StopIteration: All items were given, or it is closed.
        """
        if not self._ahead:
            self.close()
            raise StopIteration
        done = self._ahead.popleft()
        for number in itertools.islice(self._numbers, 1):
            self._ahead.append(self._thread.submit(self._make, number))
        try:
            return done.result()
        finally:
            if done.exception() is not None:
                self.close()

    def close(self) -> None:
        """Stop the thread and wait for it; items that wait are lost."""
        self._ahead.clear()
        self._numbers = iter(())
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Prefetcher[T]:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()
