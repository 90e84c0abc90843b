"""Assemble an evaluation photo by photo; its plain data is ``evaluation.json``.

``evaluation.json`` (schema 1), every score from pixel counts, null where it has no meaning
(a class that is absent from the masks has no IoU):

    schema            1
    classes           [{"name", "role", "colour"}], position = class id
    num_photos        photos with masks that were scored
    photo_names       their names, in the order in which they were scored
    num_pixels        valid pixels
    note              "" or one sentence, e.g. "accuracy unknown: ..."
    label             "" or "within-field": belongs on every figure
    split             Split.to_dict(), or {}
    iou, precision, recall, f1     {class name: score 0-1 or null}
    miou              mean IoU over the classes that are present, or null
    accuracy          share of pixels whose class is right, or null
    roles             {"weed_iou", "crop_iou", "background_iou", "weed_precision", "weed_recall",
                       "miou"}: species merged by role
    intervals         95 %, bootstrap over photos, [low, high] or null:
                      {"miou": ..., "weed_iou": ..., "crop_iou": ...,
                       "iou": {class name: ...}, "precision": {...}, "recall": {...}}
    confusion         {"rows": "mask", "columns": "class map", "counts": [[...]]}, px
    photos            [{"photo", "true_coverage": {class name: share},
                        "predicted_coverage": {class name: share}, "weed_iou", "accuracy"}];
                      coverage is null for a photo without a valid pixel
    cover             {class name: {"bias": mean of predicted - true, "rmse"}}, shares
    calibration       {"ece", "bins": [{"low", "high", "share", "confidence", "accuracy"}]},
                      15 bins of confidence; confidence and accuracy null in an empty bin
    weed_free         {"num_photos", "mean_false_weed_cover", "max_false_weed_cover"}: photos
                      whose masks show no weed
    baselines         {name: the same keys as roles}, may be empty

The pipeline adds, where photos were tested:

    temperature       {"temperature", "fitted_on", "nll_before", "nll_after", "photos",
                       "ece_before", "ece_after"}: what dividing the logits did to the calibration
                       error of so many test photos; the last three only if it is not 1
    plants            {"weeds", "weed_hit", "crops", "crop_hit", "area_treated", "hit_share",
                       "cell"}: connected parts of the masks, the share of them that a sprayer
                       would hit (at least `hit_share` of the plant in treated cells), and the
                       share of the area that it would spray
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weedseg.classes import IGNORE_ID, ClassTable, Role
from weedseg.errors import FieldDataError
from weedseg.evaluation.bootstrap import Interval, bootstrap_intervals
from weedseg.evaluation.confusion import (
    ROLE_ORDER,
    ConfusionMatrix,
    Counts,
    RoleScores,
    Scores,
    iou_scores,
    mean_scores,
    precision_scores,
    recall_scores,
    role_counts,
    role_scores,
)
from weedseg.imaging import ClassMap, Mask

SCHEMA = 1
NUM_CONFIDENCE_BINS = 15
UNKNOWN_NOTE = "accuracy unknown: too few labelled photos to keep some for testing"
_WEED = ROLE_ORDER.index(Role.WEED)
_CROP = ROLE_ORDER.index(Role.CROP)


@dataclass(frozen=True)
class _ScoredPhoto:
    name: str
    matrix: ConfusionMatrix


class Evaluation:
    """Scores of a segmenter on photos with masks."""

    def __init__(self, classes: ClassTable, seed: int = 0) -> None:
        """Start without photos.

        Args:
            classes: The classes that masks and class maps hold.
            seed: Seed of the bootstrap.
        """
        self.classes = classes
        self._seed = seed
        self._photos: list[_ScoredPhoto] = []
        self._calibration = Calibration()

    def add(
        self,
        photo_name: str,
        mask: Mask,
        class_map: ClassMap,
        confidence: npt.NDArray[np.uint8],
    ) -> None:
        """Score one photo.

        Args:
            photo_name: The photo's name in the farm folder.
            mask: Annotated class ids, (H, W); 255 is ignored.
            class_map: Predicted class ids, (H, W).
            confidence: Confidence in the predicted class, (H, W), 0-100.

        Raises:
            FieldDataError: Sizes differ, or an id is not in the class table.
        """
        matrix = ConfusionMatrix(len(self.classes))
        matrix.add(mask, class_map)
        self._calibration.add(mask, class_map, confidence)
        self._photos.append(_ScoredPhoto(photo_name, matrix))

    @property
    def num_photos(self) -> int:
        """The number of photos added."""
        return len(self._photos)

    @property
    def matrix(self) -> ConfusionMatrix:
        """The confusion matrix over all photos."""
        return sum((p.matrix for p in self._photos), ConfusionMatrix(len(self.classes)))

    def to_dict(
        self,
        split: Mapping[str, Any] | None = None,
        label: str = "",
        note: str = "",
        baselines: Mapping[str, RoleScores] | None = None,
    ) -> dict[str, Any]:
        """Return the plain data of ``evaluation.json``.

        Args:
            split: ``Split.to_dict()``.
            label: "within-field", or "" when whole fields or dates were held out.
            note: One sentence for readers; without photos `UNKNOWN_NOTE` stands in.
            baselines: What `weedseg.evaluation.baselines.score_baselines` returned.
        """
        matrix = self.matrix
        return {
            "schema": SCHEMA,
            "classes": self.classes.to_list(),
            "num_photos": self.num_photos,
            "photo_names": [photo.name for photo in self._photos],
            "num_pixels": matrix.total,
            "note": note or ("" if self._photos else UNKNOWN_NOTE),
            "label": label,
            "split": dict(split or {}),
            "iou": self._by_name(matrix.iou()),
            "precision": self._by_name(matrix.precision()),
            "recall": self._by_name(matrix.recall()),
            "f1": self._by_name(matrix.f1()),
            "miou": matrix.miou(),
            "accuracy": matrix.accuracy,
            "roles": dataclasses.asdict(role_scores(matrix, self.classes)),
            "intervals": self._intervals(),
            "confusion": {
                "rows": "mask",
                "columns": "class map",
                "counts": matrix.counts.tolist(),
            },
            "photos": [self._photo_row(photo) for photo in self._photos],
            "cover": self._cover(),
            "calibration": self._calibration.to_dict(),
            "weed_free": self._weed_free(),
            "baselines": {
                name: dataclasses.asdict(scores) for name, scores in (baselines or {}).items()
            },
        }

    def _by_name(self, values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.classes.names, values))

    def _intervals(self) -> dict[str, Any]:
        num_classes = len(self.classes)
        counts = np.array([p.matrix.counts for p in self._photos], np.int64)
        counts = counts.reshape(-1, num_classes, num_classes)
        found = bootstrap_intervals(counts, self._scores_of, self._seed)
        rows: list[Any] = [_as_list(interval) for interval in found]
        return {
            "miou": rows[0],
            "weed_iou": rows[1],
            "crop_iou": rows[2],
            "iou": self._by_name(rows[3 : 3 + num_classes]),
            "precision": self._by_name(rows[3 + num_classes : 3 + 2 * num_classes]),
            "recall": self._by_name(rows[3 + 2 * num_classes :]),
        }

    def _scores_of(self, counts: Counts) -> Scores:
        """Return all scores that get an interval, (R, C, C) -> (R, 3 + 3 C)."""
        iou = iou_scores(counts)
        roles = iou_scores(role_counts(counts, self.classes))
        columns = [mean_scores(iou)[:, None], roles[:, [_WEED, _CROP]], iou]
        return np.concatenate([*columns, precision_scores(counts), recall_scores(counts)], axis=1)

    def _photo_row(self, photo: _ScoredPhoto) -> dict[str, Any]:
        matrix = photo.matrix
        valid = matrix.total > 0
        return {
            "photo": photo.name,
            "true_coverage": self._by_name(matrix.true_coverage()) if valid else None,
            "predicted_coverage": self._by_name(matrix.predicted_coverage()) if valid else None,
            "weed_iou": role_scores(matrix, self.classes).weed_iou,
            "accuracy": matrix.accuracy,
        }

    def _cover(self) -> dict[str, Any]:
        matrices = [photo.matrix for photo in self._photos if photo.matrix.total]
        if not matrices:
            return self._by_name([{"bias": None, "rmse": None}] * len(self.classes))
        errors = np.array([m.predicted_coverage() for m in matrices]) - np.array(
            [m.true_coverage() for m in matrices]
        )
        bias, rmse = errors.mean(axis=0), np.sqrt((errors**2).mean(axis=0))
        return self._by_name([{"bias": float(b), "rmse": float(r)} for b, r in zip(bias, rmse)])

    def _weed_free(self) -> dict[str, Any]:
        covers = []
        for photo in self._photos:
            merged = photo.matrix.by_role(self.classes)
            if merged.total and not merged.counts[_WEED].any():
                covers.append(merged.predicted_coverage()[_WEED])
        return {
            "num_photos": len(covers),
            "mean_false_weed_cover": float(np.mean(covers)) if covers else None,
            "max_false_weed_cover": max(covers) if covers else None,
        }


class Calibration:
    """How far the stated confidence can be believed (Guo et al. 2017, section 2)."""

    def __init__(self) -> None:
        """Start without pixels."""
        self._pixels = np.zeros(101, np.int64)
        self._right = np.zeros(101, np.int64)

    def add(self, mask: Mask, class_map: ClassMap, confidence: npt.NDArray[np.uint8]) -> None:
        """Count one photo, three arrays of (H, W); confidence 0-100.

        Raises:
            FieldDataError: The confidence has another size or is above 100.
        """
        if confidence.shape != mask.shape or confidence.max(initial=0) > 100:
            raise FieldDataError(
                f"confidence of {confidence.shape} px up to {confidence.max(initial=0)}",
                f"{mask.shape} px, 0 to 100",
                "give the confidence in per cent at the photo's size",
            )
        valid = mask != IGNORE_ID
        self._pixels += np.bincount(confidence[valid], minlength=101)
        right = valid & (mask == class_map)
        self._right += np.bincount(confidence[right], minlength=101)

    def to_dict(self) -> dict[str, Any]:
        """Return the expected calibration error and its bins; ``ece`` None without pixels."""
        total = int(self._pixels.sum())
        levels = np.arange(101)
        # Bins are open at the left and closed at the right; 0 belongs to the first.
        number = np.maximum(-(-levels * NUM_CONFIDENCE_BINS // 100) - 1, 0)
        pixels, right, stated = (
            np.bincount(number, weights, NUM_CONFIDENCE_BINS)
            for weights in (self._pixels, self._right, self._pixels * levels / 100)
        )
        bins = [
            {
                "low": i / NUM_CONFIDENCE_BINS,
                "high": (i + 1) / NUM_CONFIDENCE_BINS,
                "share": float(pixels[i]) / max(total, 1),
                "confidence": float(stated[i] / pixels[i]) if pixels[i] else None,
                "accuracy": float(right[i] / pixels[i]) if pixels[i] else None,
            }
            for i in range(NUM_CONFIDENCE_BINS)
        ]
        ece = float(np.abs(stated - right).sum() / total) if total else None
        return {"ece": ece, "bins": bins}


def untested(
    classes: ClassTable, split: Mapping[str, Any] | None = None, label: str = ""
) -> dict[str, Any]:
    """Return the ``evaluation.json`` of a segmenter that no labelled photo could test.

    Args:
        classes: The segmenter's classes.
        split: ``Split.to_dict()``.
        label: "within-field", or "".
    """
    return Evaluation(classes).to_dict(split, label, UNKNOWN_NOTE)


def _as_list(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
