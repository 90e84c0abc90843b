"""Two baselines without a network, which a real model must beat.

ExG + Otsu (Woebbecke 1995; Otsu 1979) tells plants from soil and cannot tell crop from weed, so
it is scored twice: all plants are weeds, all plants are crop. The colour threshold is a Gaussian
per class in Lab colour space, fitted on the same training masks as the network.

Shapes: H W photo px, B colour bins, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from weedseg.classes import IGNORE_ID, ClassTable, Role
from weedseg.errors import FieldDataError
from weedseg.evaluation.confusion import (
    ROLE_ORDER,
    ConfusionMatrix,
    Counts,
    RoleScores,
    Scores,
    iou_scores,
    mean_scores,
    role_scores,
)
from weedseg.imaging import ClassMap, Image, Mask

_EXG_LOW, _EXG_HIGH = -0.25, 0.75
_BITS = 5
_NUM_BINS = 1 << (3 * _BITS)
_PRIOR_POWERS = (0.0, 0.5, 1.0)


def exg_otsu(image: Image) -> npt.NDArray[np.bool_]:
    """Find plants by excess green, 2g - r - b of the colour shares, and Otsu's threshold.

    Args:
        image: (H, W, 3).

    Returns:
        (H, W), True on plants; nowhere in a photo of one colour.
    """
    colour = image.astype(np.float32)
    total = np.maximum(colour.sum(axis=2), 1)
    exg = 3 * colour[..., 1] / total - 1
    exg[colour.sum(axis=2) == 0] = 0
    level = np.clip((exg - _EXG_LOW) / (_EXG_HIGH - _EXG_LOW), 0, 1) * 255
    levels = level.astype(np.uint8)
    if levels.min() == levels.max():
        return np.zeros(levels.shape, np.bool_)
    threshold, _ = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray(levels > threshold)


class ColourThreshold:
    """A colour per pixel decides the class: one Gaussian per class in Lab.

    How much the share of each class counts (not, by its root, fully) is whatever gives the best
    mean IoU on the training masks. Classes without a training pixel are never predicted.
    """

    def __init__(self, table: npt.NDArray[np.uint8]) -> None:
        """Keep the class id of every colour bin, (B,); `fit` makes the table."""
        self._table = table

    @classmethod
    def fit(cls, images: Iterable[Image], masks: Iterable[Mask]) -> ColourThreshold:
        """Fit on labelled photos, all of their pixels.

        Args:
            images: (H, W, 3) each.
            masks: (H, W) each, in the same order; 255 is ignored.

        Raises:
            FieldDataError: No labelled pixel, or a mask of another size than its photo.
        """
        histogram = _histogram(images, masks)
        pixels = histogram.sum(axis=1)
        if not pixels.sum():
            raise FieldDataError(
                "no labelled pixel", "at least one", "give masks for the training photos"
            )
        likelihood = _log_likelihood(histogram)
        with np.errstate(divide="ignore"):
            prior = np.log(pixels / pixels.sum())
        tables = [_best_class(likelihood, prior, power) for power in _PRIOR_POWERS]
        return cls(tables[int(np.argmax([_miou(histogram, table) for table in tables]))])

    def predict(self, image: Image) -> ClassMap:
        """Return the class map, (H, W), of a photo, (H, W, 3)."""
        return self._table[_bins(image)]


def score_baselines(
    images: Sequence[Image], masks: Sequence[Mask], classes: ClassTable, colours: ColourThreshold
) -> dict[str, RoleScores]:
    """Score the baselines on test photos, by role.

    Args:
        images: Test photos, (H, W, 3) each.
        masks: Their masks, (H, W) each.
        classes: The farm's classes.
        colours: Fitted on training photos only.

    Returns:
        ``exg_otsu_all_weed``, ``exg_otsu_all_crop`` and ``colour_threshold``; the first or the
        second is left out when no class has that role.
    """
    plant_ids = {
        f"exg_otsu_all_{role.value}": classes.ids_of(role)[0]
        for role in ROLE_ORDER
        if role is not Role.BACKGROUND and classes.ids_of(role)
    }
    matrices = {name: ConfusionMatrix(len(classes)) for name in (*plant_ids, "colour_threshold")}
    for image, mask in zip(images, masks):
        plants = exg_otsu(image)
        for name, class_id in plant_ids.items():
            matrices[name].add(mask, (plants * class_id).astype(np.uint8))
        matrices["colour_threshold"].add(mask, colours.predict(image))
    return {name: role_scores(matrix, classes) for name, matrix in matrices.items()}


def _bins(image: Image) -> npt.NDArray[np.int64]:
    """Return the colour bin of every pixel, (H, W, 3) -> (H, W)."""
    steps = image.astype(np.int64) >> (8 - _BITS)
    bins: npt.NDArray[np.int64] = (
        (steps[..., 0] << (2 * _BITS)) | (steps[..., 1] << _BITS) | steps[..., 2]
    )
    return bins


def _bin_colours() -> Scores:
    """Return the middle of every colour bin in Lab, (B, 3)."""
    levels = (np.arange(1 << _BITS) + 0.5) / (1 << _BITS)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    lab = cv2.cvtColor(grid.reshape(-1, 1, 3).astype(np.float32), cv2.COLOR_RGB2LAB)
    return lab.reshape(-1, 3).astype(np.float64)


def _histogram(images: Iterable[Image], masks: Iterable[Mask]) -> Counts:
    """Count pixels per class and colour bin, (C, B); C is the highest id found, plus one.

    Raises:
        FieldDataError: A mask has another size than its photo.
    """
    counts: Counts = np.zeros((1, _NUM_BINS), np.int64)
    for image, mask in zip(images, masks):
        if image.shape[:2] != mask.shape:
            raise FieldDataError(
                f"mask of {mask.shape} px for a photo of {image.shape[:2]} px",
                "the same size",
                "draw the mask at the photo's size",
            )
        valid = mask != IGNORE_ID
        ids = mask[valid].astype(np.int64)
        num_classes = max(len(counts), int(ids.max(initial=0)) + 1)
        counts = np.pad(counts, ((0, num_classes - len(counts)), (0, 0)))
        cells = np.bincount(ids * _NUM_BINS + _bins(image)[valid], minlength=counts.size)
        counts += cells.reshape(counts.shape)
    return counts


def _log_likelihood(histogram: Counts) -> Scores:
    """Return the log density of each class at each colour bin, (C, B); -inf for absent classes."""
    colours = _bin_colours()
    result: Scores = np.full(histogram.shape, -np.inf)
    for class_id, weights in enumerate(histogram):
        if not weights.any():
            continue
        mean = np.average(colours, axis=0, weights=weights)
        away = colours - mean
        covariance = (away * weights[:, None]).T @ away / weights.sum() + np.eye(3)
        distance = np.einsum("bi,ij,bj->b", away, np.linalg.inv(covariance), away)
        result[class_id] = -0.5 * (distance + np.linalg.slogdet(covariance)[1])
    return result


def _best_class(likelihood: Scores, prior: Scores, power: float) -> npt.NDArray[np.uint8]:
    """Return the likeliest class of each colour bin, (B,)."""
    weighted = np.where(np.isfinite(prior), prior, 0) * power
    best: npt.NDArray[np.uint8] = np.argmax(likelihood + weighted[:, None], axis=0).astype(np.uint8)
    return best


def _miou(histogram: Counts, table: npt.NDArray[np.uint8]) -> float:
    """Return the mean IoU on the training pixels when `table` decides."""
    num_classes = len(histogram)
    counts: Counts = np.stack(
        [histogram[:, table == predicted].sum(axis=1) for predicted in range(num_classes)], axis=1
    )
    return float(mean_scores(iou_scores(counts)[None])[0])
