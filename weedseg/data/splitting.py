"""``split.json``: a split with nested subsets of its labels, and the random one that may leak."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from weedseg.data.duplicates import duplicate_groups
from weedseg.data.index import Farm
from weedseg.data.splits import LEAKS, WITHIN_FIELD, Split, make_split
from weedseg.errors import SplitError

_FEWEST = 5


def split_document(
    farm: Farm, seed: int, subsets: Sequence[int] = (), mode: str = "grouped"
) -> dict[str, Any]:
    """Split a farm and choose nested subsets of its labels.

    Args:
        farm: Photos and masks.
        seed: Decides every choice.
        subsets: Numbers of labels for training and validation together.
        mode: ``grouped``, ``random``, or ``forced`` (random though groups are known).

    Returns:
        `Split.to_dict`, with ``seed`` and ``subsets``: number -> names; every subset holds the
        smaller ones.

    Raises:
        SplitError: A random split is refused or impossible, or it is asked for subsets.
    """
    if mode == "grouped":
        split = make_split(farm, seed)
        chosen = {str(n): _subset(make_split(farm, seed, n)) for n in sorted(set(subsets))}
    elif subsets:
        raise SplitError("subsets of a random split", "a grouped split", "leave one out")
    else:
        split, chosen = random_split(farm, seed, mode == "forced"), {}
    return {**split.to_dict(), "seed": seed, "subsets": chosen}


def random_split(farm: Farm, seed: int, force: bool) -> Split:
    """Split photo by photo: 60 % train, 20 % validation, 20 % test.

    Args:
        farm: Photos and masks.
        seed: Decides every choice.
        force: Whether to do it though photos are known to belong together.

    Returns:
        The split; its figures hold within the field at best.

    Raises:
        SplitError: Photos are known to belong together, or are fewer than 5.
    """
    photos = farm.labelled
    if len(photos) < _FEWEST:
        raise SplitError(f"{len(photos)} labelled photos", f"at least {_FEWEST}", "label more")
    reason = known_groups(farm)
    if reason and not force:
        raise SplitError(
            f"a random split of {farm.root}, which has {reason}",
            "a split that keeps them together",
            "leave --random out, or add --force-random and distrust the figures",
        )
    order = np.random.default_rng([seed, 6]).permutation(len(photos)).tolist()
    num = max(1, round(len(photos) / 5))
    test, val, train = (
        sorted(part) for part in (order[:num], order[num : 2 * num], order[2 * num :])
    )
    held_out = {photos[i].name for i in test}
    return Split(
        kind="holdout",
        basis=WITHIN_FIELD,
        train=tuple(photos[i] for i in train),
        val=tuple(photos[i] for i in val),
        test=tuple(photos[i] for i in test),
        unlabelled=tuple(p for p in farm.photos if p.name not in held_out),
        note=f"random by photo, forced: {LEAKS}" if reason else "random by photo, no groups known",
        leaks=bool(reason),
    )


def known_groups(farm: Farm) -> str:
    """Say which labelled photos are known to belong together; '' if none are."""
    photos = farm.labelled
    visits = len({(p.field, p.date) for p in photos})
    if visits > 1:
        return f"{visits} fields or visits"
    alike = len(photos) - len(set(duplicate_groups(photos).tolist()))
    return f"{alike} photos that look like others" if alike else ""


def _subset(split: Split) -> list[str]:
    parts = (*split.train, *split.val) if split.kind == "holdout" else split.train
    return sorted(photo.name for photo in parts)
