"""Find photos that show the same thing: byte-identical files and near-duplicates."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from weedseg.data.index import Photo, content_hashes
from weedseg.errors import ImageError
from weedseg.imaging import read_small

NEAR_BITS = 4
"""Photos whose 64-bit perceptual hashes differ in at most so many bits are near-duplicates."""

_LOG = logging.getLogger(__name__)
_HASHED_SIDE_PX = 128
_BLOCK = 256
_NUM_BITS = np.array([bin(i).count("1") for i in range(1 << 16)], np.uint8)


def duplicate_groups(photos: Sequence[Photo]) -> npt.NDArray[np.int64]:
    """Number the groups of photos that show the same thing.

    Files with equal bytes belong together, and photos whose perceptual hashes (pHash, 64 bit)
    differ in at most 4 bits; and so do photos linked through others.

    Args:
        photos: Any photos; an unreadable one is only compared by its bytes.

    Returns:
        int64 (len(photos),): equal numbers for photos of one group.

    Raises:
        FieldDataError: A file cannot be opened.
    """
    links = _same_bytes(photos)
    with ThreadPoolExecutor(4) as pool:
        hashes = list(pool.map(_photo_hash, photos))
    numbers = np.array([i for i, value in enumerate(hashes) if value is not None], np.int64)
    values = np.array([value for value in hashes if value is not None], np.uint64)
    links.extend((int(numbers[a]), int(numbers[b])) for a, b in near_pairs(values))
    return join(len(photos), links)


def near_pairs(hashes: npt.NDArray[np.uint64], bits: int = NEAR_BITS) -> list[tuple[int, int]]:
    """Find all pairs of hashes that differ in at most `bits` bits.

    Args:
        hashes: uint64 (n,).
        bits: Largest number of differing bits.

    Returns:
        Pairs (i, j) with i < j.
    """
    pairs: list[tuple[int, int]] = []
    for first in range(0, len(hashes), _BLOCK):
        mixed = hashes[first : first + _BLOCK, None] ^ hashes[None, first:]
        parts = mixed.view(np.uint16).reshape(*mixed.shape, 4)
        near = np.argwhere(_NUM_BITS[parts].sum(axis=2) <= bits)
        pairs.extend((int(a) + first, int(b) + first) for a, b in near[near[:, 0] < near[:, 1]])
    return pairs


def join(num: int, links: Sequence[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """Number the connected parts of a graph (union-find).

    Args:
        num: How many nodes.
        links: Pairs of nodes.

    Returns:
        int64 (num,): the lowest node of each node's part.
    """
    parent = list(range(num))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in links:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return np.array([root(i) for i in range(num)], np.int64)


def _same_bytes(photos: Sequence[Photo]) -> list[tuple[int, int]]:
    """Link files with equal bytes; only files of equal length are read."""
    by_size: dict[int, list[int]] = {}
    for i, photo in enumerate(photos):
        if photo.path.exists():
            by_size.setdefault(photo.path.stat().st_size, []).append(i)
    candidates = [i for same in by_size.values() if len(same) > 1 for i in same]
    seen: dict[str, int] = {}
    digests = content_hashes([photos[i].path for i in candidates])
    return [(seen.setdefault(digest, i), i) for i, digest in zip(candidates, digests)]


def _photo_hash(photo: Photo) -> int | None:
    try:
        state = photo.path.stat()
        return _hash_of(photo, state.st_size, state.st_mtime_ns)
    except (OSError, ImageError) as error:
        _LOG.debug("%s is not hashed: %s", photo.name, error)
        return None


@functools.lru_cache(maxsize=1 << 16)
def _hash_of(photo: Photo, size: int, changed_ns: int) -> int:
    """Hash one photo; size and time of change are part of the cache key only."""
    import imagehash
    from PIL import Image as PillowImage

    small = PillowImage.fromarray(read_small(photo.path, _HASHED_SIDE_PX))
    bits = imagehash.phash(small).hash.ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
