"""Find photos that show the same thing: byte-identical files and near-duplicates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from weedseg.data.index import Photo, content_hashes
from weedseg.data.survey import survey_all

NEAR_BITS = 4
"""Photos whose 64-bit perceptual hashes differ in at most so many bits are near-duplicates."""

_BLOCK_PAIRS = 1 << 20
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
    hashes = [seen.hash for seen in survey_all(photos)]
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
    block = max(1, _BLOCK_PAIRS // max(1, len(hashes)))  # memory does not grow with the farm
    for first in range(0, len(hashes), block):
        mixed = hashes[first : first + block, None] ^ hashes[None, first:]
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
