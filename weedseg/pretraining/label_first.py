"""Which photos to label first: hard for the pretrained network, and different from each other."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from weedseg.data.datasets import PhotoPool
from weedseg.imaging import Image

THUMBNAIL_PX = 240
_FEATURE_PX = 8


@dataclass(frozen=True)
class Candidate:
    """One photo worth a label."""

    photo: int
    mean_hidden_error: float


def thumbnail(image: Image) -> Image:
    """Shrink a photo to a longer side of at most 240 px."""
    share = min(1.0, THUMBNAIL_PX / max(image.shape[:2]))
    size = (max(round(image.shape[1] * share), 1), max(round(image.shape[0] * share), 1))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def choose(pool: PhotoPool, errors: dict[int, float], num: int) -> list[Candidate]:
    """Choose diverse photos among the hardest third.

    The hardest comes first; then, again and again, the one that differs most from all chosen ones
    (farthest-point sampling on a coarse picture of colour and layout).

    Args:
        pool: The photos.
        errors: Photo number -> mean error of hidden patches.
        num: How many to choose.

    Returns:
        At most `num` photos, in the order in which they should be labelled.
    """
    order = sorted(errors, key=lambda n: (-errors[n], n))
    hard = order[: max(len(order) // 3, num)]
    if not hard or num < 1:
        return []
    features = np.stack([_feature(pool.image(n)) for n in hard])
    chosen = [0]
    distance = np.linalg.norm(features - features[0], axis=1)
    while len(chosen) < min(num, len(hard)):
        farthest = int(distance.argmax())
        if distance[farthest] == 0:
            break
        chosen.append(farthest)
        distance = np.minimum(distance, np.linalg.norm(features - features[farthest], axis=1))
    return [Candidate(hard[i], errors[hard[i]]) for i in chosen]


def _feature(image: Image) -> npt.NDArray[np.float32]:
    small = cv2.resize(image, (_FEATURE_PX, _FEATURE_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(small.astype(np.float32).ravel() / 255, np.float32)
