"""Decide which photos train, validate and test, so that the figures are honest.

Photos that show the same thing stay together. Whole fields or visits are held out when there is
more than one; otherwise blocks of capture time, or groups of near-duplicates, and the figures are
then "within-field". The test photos are chosen first, and nothing but the photos and the seed
decides them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weedseg.classes import Role
from weedseg.data.duplicates import duplicate_groups
from weedseg.data.grouping import TIME_BLOCKS, Numbers, limit_order, merge, pick, time_blocks
from weedseg.data.index import Farm, Photo
from weedseg.data.masks import read_mask
from weedseg.errors import MaskError, SplitError

HOLDOUT_LABELS = 20
"""From this number of labelled photos on, 20 % are held out as test; below, cross-validation."""
UNTESTED_LABELS = 2
"""Up to this number of labelled photos nothing can be tested."""
NUM_FOLDS = 5
WITHIN_FIELD = "within-field"
LEAKS = "test photos share known fields or visits with training photos: figures are too high"
"""Note of a split that was asked for though it does not keep known groups together."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which photos do what."""

    kind: str
    """holdout, cross-validation, untested or unlabelled."""
    basis: str
    """What was kept apart: field, date, field/date or within-field."""
    train: tuple[Photo, ...] = ()
    """Labelled photos to train on; in a cross-validation, all of them."""
    val: tuple[Photo, ...] = ()
    """Labelled photos that choose the best checkpoint; only in a hold-out."""
    test: tuple[Photo, ...] = ()
    """Labelled photos that nothing but the evaluation sees; only in a hold-out."""
    unlabelled: tuple[Photo, ...] = ()
    """What pretraining may see, without masks: all but test photos and their duplicates; in a
    cross-validation with few other photos, all."""
    folds: tuple[tuple[Photo, ...], ...] = ()
    """Parts of the labelled photos, each tested once; only in a cross-validation."""
    note: str = ""
    """Sentences for people."""
    leaks: bool = False
    """Known groups were cut on request, by a random split or a given list of test photos."""

    @property
    def within_field(self) -> bool:
        """Whether test and training photos may come from one field and visit."""
        return self.basis == WITHIN_FIELD

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON; photos by name."""
        return {
            "kind": self.kind,
            "basis": self.basis,
            "within_field": self.within_field,
            "leaks": self.leaks,
            "note": self.note,
            "train": _names(self.train),
            "val": _names(self.val),
            "test": _names(self.test),
            "folds": [_names(fold) for fold in self.folds],
            "unlabelled": _names(self.unlabelled),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], farm: Farm) -> Split:
        """Read what `to_dict` wrote.

        Args:
            values: Plain data.
            farm: Where the photos are now.

        Returns:
            The split.

        Raises:
            SplitError: A photo is no longer there.
        """
        photos = {p.name: p for p in farm.photos}

        def find(names: Sequence[str]) -> tuple[Photo, ...]:
            for name in names:
                if name not in photos:
                    raise SplitError(
                        f"photo '{name}' of the split is not in {farm.root}",
                        "the photos of the run",
                        "bring it back or start a new run",
                    )
            return tuple(photos[name] for name in names)

        parts: dict[str, Any] = {
            key: find(values[key]) for key in ("train", "val", "test", "unlabelled")
        }
        folds = tuple(find(fold) for fold in values["folds"])
        return cls(
            kind=str(values["kind"]),
            basis=str(values["basis"]),
            note=str(values["note"]),
            leaks=bool(values.get("leaks", False)),
            folds=folds,
            **parts,
        )


def make_split(
    farm: Farm, seed: int, labelled_limit: int = 0, fixed_test: Sequence[str] | None = None
) -> Split:
    """Split the photos of a farm.

    At least 20 labelled photos: 60 % train, 20 % validation, 20 % test, by group. 3 to 19: five
    folds, one photo each below 5 photos, as many folds as groups if there are fewer. 1 or 2: no
    test. None: pretraining only.

    Args:
        farm: Photos and masks.
        seed: Decides every choice.
        labelled_limit: Use so many labels for training and validation together, 0 all; a smaller
            number always gives a part of what a larger one gives. Without a hold-out it limits
            all labelled photos.
        fixed_test: Names of the test photos of a published split.

    Returns:
        The split.

    Raises:
        SplitError: The photos of `fixed_test` are not there, or leave nothing to train on.
    """
    labelled = farm.labelled
    same = _SameThing(farm.photos)
    if fixed_test is not None or len(labelled) >= HOLDOUT_LABELS:
        weedy = _weed_presence(farm, labelled)
        return _holdout(farm, same, weedy, seed, labelled_limit, fixed_test)
    if labelled_limit and labelled_limit < len(labelled):
        order = limit_order(_weed_presence(farm, labelled), _rng(seed, 3))
        labelled = tuple(labelled[i] for i in sorted(order[:labelled_limit]))
    basis, groups = _groups(labelled, same, NUM_FOLDS)
    if len(labelled) <= UNTESTED_LABELS:
        kind = "untested" if labelled else "unlabelled"
        note = (
            f"{len(labelled)} labelled photos are too few for a test: accuracy unknown"
            if labelled
            else "no labelled photo: pretraining only"
        )
        return Split(kind=kind, basis=basis, train=labelled, unlabelled=farm.photos, note=note)
    return _cross_validation(farm, labelled, same, (basis, groups), seed)


class _SameThing:
    """Which photos show the same thing."""

    def __init__(self, photos: Sequence[Photo]) -> None:
        groups = duplicate_groups(photos).tolist()
        self._group = {photo.name: int(group) for photo, group in zip(photos, groups)}

    def numbers(self, photos: Sequence[Photo]) -> list[int]:
        return [self._group[photo.name] for photo in photos]

    def without(self, photos: Sequence[Photo], others: Sequence[Photo]) -> tuple[Photo, ...]:
        """Leave out photos that show the same thing as any of `others`."""
        banned = set(self.numbers(others))
        return tuple(p for p in photos if self._group[p.name] not in banned)


def _holdout(
    farm: Farm,
    same: _SameThing,
    weedy: dict[str, bool],
    seed: int,
    labelled_limit: int,
    fixed_test: Sequence[str] | None,
) -> Split:
    """Hold test photos out, then validation photos.

    Raises:
        SplitError: The fixed test does not fit the farm.
    """
    labelled = farm.labelled
    if fixed_test is None:
        basis, groups = _groups(labelled, same, 3)
        chosen = pick(groups, _flags(labelled, weedy), 0.2, _rng(seed, 0))
        test = tuple(p for p, taken in zip(labelled, chosen) if taken)
    else:
        test = _find_test(farm, fixed_test)
        basis = _basis_of_fixed(test, labelled)
    rest = same.without(tuple(p for p in labelled if p not in set(test)), test)
    if not rest:
        raise SplitError("no labelled photo outside the test", "some to train on", "label more")
    chosen = pick(_groups(rest, same, 2)[1], _flags(rest, weedy), 0.25, _rng(seed, 1))
    train = tuple(p for p, taken in zip(rest, chosen) if not taken)
    val = tuple(p for p, taken in zip(rest, chosen) if taken)
    dropped = len(labelled) - len(test) - len(rest)
    train, val = _limit(train, val, weedy, seed, labelled_limit)
    note = f"{len(test)} of {len(labelled)} labelled photos held out {_how(basis)}"
    if dropped:
        note += f"; {dropped} labelled photos left out as duplicates of test photos"
    leaks = fixed_test is not None and _cuts_visits(test, rest)
    if leaks:
        note += f"; {LEAKS}"
    if not any(weedy[p.name] for p in test):
        note += "; no test photo shows a weed, so its figures are unknown"
    return Split(
        kind="holdout",
        basis=basis,
        train=train,
        val=val,
        test=test,
        unlabelled=same.without(farm.photos, test),
        note=note,
        leaks=leaks,
    )


def _cross_validation(
    farm: Farm,
    labelled: Sequence[Photo],
    same: _SameThing,
    grouping: tuple[str, Numbers],
    seed: int,
) -> Split:
    """Spread groups over folds, the largest first, each to the fold with the fewest photos.

    Every labelled photo is tested once, so pretraining gets none of them as long as there are at
    least as many others.
    """
    basis, groups = grouping
    weeds = _flags(labelled, _weed_presence(farm, labelled))
    num_groups = len(np.unique(groups))
    wanted = len(labelled) if len(labelled) < NUM_FOLDS else NUM_FOLDS
    counts = np.zeros((min(wanted, num_groups), 2), np.int64)
    fold_of = np.zeros(len(labelled), np.int64)
    order = _rng(seed, 2).permutation(np.unique(groups))
    sizes = {int(g): int((groups == g).sum()) for g in order}
    with_weeds = {int(g): int(weeds[groups == g].sum()) for g in order}
    for group in sorted(order.tolist(), key=lambda g: (-sizes[g], -with_weeds[g])):
        free = min(range(len(counts)), key=lambda fold: tuple(counts[fold]))
        fold_of[groups == group] = free
        counts[free] += (sizes[group], with_weeds[group])
    folds = tuple(
        tuple(p for p, fold in zip(labelled, fold_of) if fold == number)
        for number in range(len(counts))
    )
    if len(folds) == 1:
        return Split(
            kind="untested",
            basis=basis,
            train=tuple(labelled),
            unlabelled=farm.photos,
            note="all labelled photos show the same thing: accuracy unknown",
        )
    others = same.without(farm.photos, labelled)
    enough = len(others) >= len(labelled)
    seen = "only photos that test nothing" if enough else "all photos, without masks"
    return Split(
        kind="cross-validation",
        basis=basis,
        train=tuple(labelled),
        unlabelled=others if enough else farm.photos,
        folds=folds,
        note=f"{len(labelled)} labelled photos in {len(folds)} folds {_how(basis)}; pretraining "
        f"may see {seen}",
    )


def _groups(photos: Sequence[Photo], same: _SameThing, needed: int) -> tuple[str, Numbers]:
    """Number the groups that must stay together, and name what tells them apart."""
    duplicates = same.numbers(photos)
    fields = [p.field for p in photos]
    visits = [f"{p.field}\0{p.date}" for p in photos]
    num_fields, num_visits = len(set(fields)), len(set(visits))
    choices: list[tuple[str, list[str]]] = []
    if num_fields >= needed or (num_fields > 1 and num_fields == num_visits):
        choices.append(("field", fields))
    if num_visits > 1:
        choices.append(("field/date" if num_fields > 1 else "date", visits))
    for basis, keys in choices:
        groups = merge(keys, duplicates)
        if len(np.unique(groups)) > 1:
            return basis, groups
    return WITHIN_FIELD, merge(time_blocks(photos, max(needed, TIME_BLOCKS)), duplicates)


def _limit(
    train: tuple[Photo, ...],
    val: tuple[Photo, ...],
    weedy: dict[str, bool],
    seed: int,
    limit: int,
) -> tuple[tuple[Photo, ...], tuple[Photo, ...]]:
    """Keep `limit` photos of both together, a fifth of them for validation."""
    if not limit or limit >= len(train) + len(val):
        return train, val
    num_val = min(max(1, round(limit / 5)), limit - 1, len(val))
    num_val = max(num_val, limit - len(train))
    kept = []
    for part, num, stream in ((train, limit - num_val, 4), (val, num_val, 5)):
        order = limit_order({p.name: weedy[p.name] for p in part}, _rng(seed, stream))
        kept.append(tuple(part[i] for i in sorted(order[:num])))
    return kept[0], kept[1]


def _find_test(farm: Farm, names: Sequence[str]) -> tuple[Photo, ...]:
    """Find the photos of a published test.

    Raises:
        SplitError: One is not there or has no mask.
    """
    known = {p.name: p for p in farm.labelled}
    for name in names:
        if name not in known:
            raise SplitError(
                f"test photo '{name}' is not among the labelled photos of {farm.root}",
                "the photos of the published split",
                "complete the data set",
            )
    wanted = set(names)
    return tuple(p for p in farm.labelled if p.name in wanted)


def _basis_of_fixed(test: Sequence[Photo], labelled: Sequence[Photo]) -> str:
    """Say what a published split keeps apart."""
    names = {p.name for p in test}
    rest = [p for p in labelled if p.name not in names]
    keys: list[tuple[str, Callable[[Photo], Any]]] = [
        ("field", lambda p: p.field),
        ("field/date", lambda p: (p.field, p.date)),
    ]
    for basis, key in keys:
        if not {key(p) for p in test} & {key(p) for p in rest}:
            return basis
    return WITHIN_FIELD


def _cuts_visits(test: Sequence[Photo], rest: Sequence[Photo]) -> bool:
    """Tell whether visits are known and some lies on both sides of a test."""
    inside, outside = ({(p.field, p.date) for p in photos} for photos in (test, rest))
    return len(inside | outside) > 1 and bool(inside & outside)


def _how(basis: str) -> str:
    if basis == WITHIN_FIELD:
        return "within the field: figures for other fields may be lower"
    return f"by {basis}"


def _weed_presence(farm: Farm, photos: Sequence[Photo]) -> dict[str, bool]:
    """Tell by name which photos show a weed; a faulty mask counts as none."""
    weeds = farm.classes.ids_of(Role.WEED)

    def shows(photo: Photo) -> bool:
        try:
            mask = read_mask(farm, photo)
            return any(bool((mask == weed).any()) for weed in weeds)
        except MaskError:
            return False

    with ThreadPoolExecutor(4) as pool:
        return {p.name: found for p, found in zip(photos, pool.map(shows, photos))}


def _flags(photos: Sequence[Photo], weedy: dict[str, bool]) -> npt.NDArray[np.bool_]:
    return np.array([weedy[p.name] for p in photos], bool)


def _rng(seed: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream])


def _names(photos: Sequence[Photo]) -> list[str]:
    return [photo.name for photo in photos]
