"""The confusion matrix, from whose counts every score is computed.

Shapes: H W photo or tile px, C classes, K any number of confusion matrices.
A score that has no meaning is None (``nan`` in arrays): a class that is absent from the masks has
no IoU, not 0 and not 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weedseg.classes import IGNORE_ID, ClassTable, Role
from weedseg.errors import FieldDataError
from weedseg.imaging import ClassMap, Mask

Counts = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

ROLE_ORDER: tuple[Role, ...] = tuple(Role)
"""Rows and columns of a confusion matrix that was merged by role."""


class ConfusionMatrix:
    """Pixel counts, one row per class of the mask, one column per class of the class map."""

    def __init__(self, num_classes: int, counts: Counts | None = None) -> None:
        """Start with zeros or with given counts.

        Args:
            num_classes: Number of classes, C.
            counts: (C, C) pixel counts, rows as in the mask; copied.

        Raises:
            FieldDataError: The counts have another shape.
        """
        self.num_classes = num_classes
        if counts is None:
            counts = np.zeros((num_classes, num_classes), np.int64)
        if counts.shape != (num_classes, num_classes):
            raise FieldDataError(
                f"counts of shape {counts.shape}",
                f"{(num_classes, num_classes)}",
                "use the class table that the counts were made with",
            )
        self.counts: Counts = np.array(counts, dtype=np.int64)

    def add(self, mask: Mask, class_map: ClassMap) -> None:
        """Count the pixels of one photo or tile; pixels with id 255 in the mask are ignored.

        Args:
            mask: Annotated class ids, (H, W).
            class_map: Predicted class ids, (H, W).

        Raises:
            FieldDataError: Sizes differ, or an id is not in the class table.
        """
        if mask.shape != class_map.shape:
            raise FieldDataError(
                f"class map of {class_map.shape} px for a mask of {mask.shape} px",
                "the same size",
                "resize the class map to the photo",
            )
        valid = mask != IGNORE_ID
        truth = mask[valid].astype(np.int64)
        predicted = class_map[valid].astype(np.int64)
        highest = int(max(truth.max(initial=0), predicted.max(initial=0)))
        if highest >= self.num_classes:
            raise FieldDataError(
                f"class id {highest}",
                f"0 to {self.num_classes - 1}",
                "use the class table that the masks were made with",
            )
        cells = np.bincount(truth * self.num_classes + predicted, minlength=self.num_classes**2)
        self.counts += cells.reshape(self.num_classes, self.num_classes)

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Return the sum, as if all pixels had been counted in one matrix."""
        return ConfusionMatrix(self.num_classes, self.counts + other.counts)

    def iou(self) -> list[float | None]:
        """Return the intersection over union per class; None when absent from the masks."""
        return optional(iou_scores(self.counts))

    def miou(self) -> float | None:
        """Return the mean IoU over the classes that are present in the masks; None without any."""
        return optional(mean_scores(iou_scores(self.counts)[None]))[0]

    def precision(self) -> list[float | None]:
        """Return the share of predicted pixels that are right, per class.

        None when the class is absent from the masks; 0 when it is present but never predicted.
        """
        return optional(precision_scores(self.counts))

    def recall(self) -> list[float | None]:
        """Return the share of annotated pixels that were found, per class; None when absent."""
        return optional(recall_scores(self.counts))

    def f1(self) -> list[float | None]:
        """Return the F1 score (2 IoU / (1 + IoU)) per class; None when absent."""
        iou = iou_scores(self.counts)
        return optional(2 * iou / (1 + iou))

    @property
    def accuracy(self) -> float | None:
        """The share of valid pixels whose class is right; None without valid pixels."""
        total = self.total
        return float(np.trace(self.counts)) / total if total else None

    @property
    def total(self) -> int:
        """The number of valid pixels."""
        return int(self.counts.sum())

    def true_coverage(self) -> list[float]:
        """Return the annotated coverage per class, share of valid pixels; zeros without any."""
        return [float(v) for v in self.counts.sum(axis=1) / max(self.total, 1)]

    def predicted_coverage(self) -> list[float]:
        """Return the predicted coverage per class, share of valid pixels; zeros without any."""
        return [float(v) for v in self.counts.sum(axis=0) / max(self.total, 1)]

    def by_role(self, classes: ClassTable) -> ConfusionMatrix:
        """Merge the classes of each role; rows and columns as in `ROLE_ORDER`."""
        return ConfusionMatrix(len(ROLE_ORDER), role_counts(self.counts, classes))


@dataclass(frozen=True, kw_only=True)
class RoleScores:
    """What matters to a grower, whatever the number of species; None when a role is absent."""

    weed_iou: float | None
    crop_iou: float | None
    background_iou: float | None
    weed_precision: float | None
    weed_recall: float | None
    miou: float | None
    """Mean over the roles that are present in the masks."""


def role_scores(matrix: ConfusionMatrix, classes: ClassTable) -> RoleScores:
    """Score roles: mistaking one weed species for another is no mistake here."""
    merged = matrix.by_role(classes)
    scores = dict(zip(ROLE_ORDER, merged.iou()))
    weed = ROLE_ORDER.index(Role.WEED)
    return RoleScores(
        weed_iou=scores[Role.WEED],
        crop_iou=scores[Role.CROP],
        background_iou=scores[Role.BACKGROUND],
        weed_precision=merged.precision()[weed],
        weed_recall=merged.recall()[weed],
        miou=merged.miou(),
    )


def role_counts(counts: Counts, classes: ClassTable) -> Counts:
    """Merge the rows and columns of each role.

    Args:
        counts: (..., C, C).
        classes: The C classes.

    Returns:
        (..., 3, 3) in `ROLE_ORDER`.
    """
    member = np.zeros((len(ROLE_ORDER), len(classes)), np.int64)
    for row, role in enumerate(ROLE_ORDER):
        member[row, list(classes.ids_of(role))] = 1
    merged: Counts = member @ counts @ member.T
    return merged


def iou_scores(counts: Counts) -> Scores:
    """Return TP / (TP + FP + FN) per class, (..., C, C) -> (..., C); nan when absent from truth."""
    hits, truth, predicted = _sums(counts)
    return _divide(hits, truth + predicted - hits, truth > 0)


def precision_scores(counts: Counts) -> Scores:
    """Return TP / (TP + FP) per class, (..., C, C) -> (..., C); nan when absent from truth."""
    hits, truth, predicted = _sums(counts)
    return _divide(hits, np.maximum(predicted, 1), truth > 0)


def recall_scores(counts: Counts) -> Scores:
    """Return TP / (TP + FN) per class, (..., C, C) -> (..., C); nan when absent from truth."""
    hits, truth, _ = _sums(counts)
    return _divide(hits, truth, truth > 0)


def mean_scores(scores: Scores) -> Scores:
    """Return the mean over present classes, (..., C) -> (...); nan when none is present."""
    present = ~np.isnan(scores)
    return _divide(np.where(present, scores, 0).sum(-1), present.sum(-1), present.any(-1))


def optional(scores: Scores) -> list[float | None]:
    """Turn scores, (K,), into a list with None for nan, ready for JSON."""
    return [None if np.isnan(score) else float(score) for score in scores]


def _sums(counts: Counts) -> tuple[Counts, Counts, Counts]:
    """Return (hits, pixels in masks, pixels in class maps) per class, each (..., C)."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    return hits, counts.sum(axis=-1), counts.sum(axis=-2)


def _divide(
    above: npt.NDArray[np.generic], below: npt.NDArray[np.generic], where: object
) -> Scores:
    known = np.asarray(where, dtype=bool)
    result: Scores = np.full(known.shape, np.nan)
    np.divide(above, below, out=result, where=known)
    return result
