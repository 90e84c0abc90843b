"""Does a photo look like those of training? A distance of ten simple figures, without a network.

The figures are mean and spread of the colours, greenness, and detail at two scales, taken from 16
windows of the photo at working resolution, so that the cost does not grow with the photo. Their
distance from the photos of training is that of Mahalanobis: it knows that figures go together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from weedseg.errors import ConfigError
from weedseg.imaging import Image

NUM_STATISTICS = 10
"""Mean R, G, B; spread R, G, B; mean and spread of excess green; detail, fine and coarse."""
_WINDOW_PX, _WINDOWS_A_SIDE, _COARSE = 64, 4, 4
_EXPECTED = f"{NUM_STATISTICS} means and as many rows of as many weights, all finite"
_EXCESS_GREEN = np.array([[-1.0, 2.0, -1.0]], np.float32)

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class OodReference:
    """The photos of training: a mean, and weights that turn a difference from it into a score."""

    mean: Vector
    """(10,)."""
    weights: npt.NDArray[np.float64]
    """(10, 10); the score is the length of ``weights @ (statistics - mean)``."""

    def score(self, image: Image) -> float:
        """Return how unlike the photos of training a photo looks, >= 0; 99 % of them are below 1.

        Args:
            image: uint8 (H, W, 3), RGB, at working resolution, not empty.
        """
        return float(np.linalg.norm(self.weights @ (photo_statistics(image) - self.mean)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for the metadata of a model."""
        return {
            "mean": [float(f"{value:.6g}") for value in self.mean],
            "weights": [[float(f"{value:.6g}") for value in row] for row in self.weights],
        }

    @classmethod
    def from_dict(cls, values: Any) -> OodReference:
        """Read what `to_dict` gave.

        Raises:
            ConfigError: It is something else.
        """
        parts = values if isinstance(values, Mapping) else {}
        try:
            mean = np.array(parts["mean"], np.float64)
            weights = np.array(parts["weights"], np.float64)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError("statistics of photos", _EXPECTED, "export again") from error
        shapes = (mean.shape, weights.shape)
        fits = shapes == ((NUM_STATISTICS,), (NUM_STATISTICS, NUM_STATISTICS))
        if not fits or not np.isfinite(mean).all() or not np.isfinite(weights).all():
            raise ConfigError(f"statistics of shapes {shapes}", _EXPECTED, "export again")
        return cls(mean=mean, weights=weights)


def photo_statistics(image: Image) -> Vector:
    """Describe a photo by ten figures.

    Args:
        image: uint8 (H, W, 3), RGB, at working resolution, not empty.

    Returns:
        (10,), see `NUM_STATISTICS`; detail as log(1 + mean second difference of grey values).
    """
    pixels = _windows(image)
    mean, spread = cv2.meanStdDev(pixels)
    green_mean, green_spread = cv2.meanStdDev(
        cv2.transform(pixels.astype(np.float32), _EXCESS_GREEN)
    )
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    small = (max(width // _COARSE, 1), max(height // _COARSE, 1))
    coarse = cv2.resize(grey, small, interpolation=cv2.INTER_AREA)
    detail = [np.log1p(np.abs(cv2.Laplacian(g, cv2.CV_32F)).mean()) for g in (grey, coarse)]
    parts = (mean, spread, green_mean, green_spread, np.array(detail))
    return np.concatenate([np.asarray(part, np.float64).reshape(-1) for part in parts])


def _windows(image: Image) -> Image:
    """Take 16 windows, evenly spread, and lay them side by side, (4 S, 4 S, 3)."""
    side = min(_WINDOW_PX, image.shape[0], image.shape[1])
    tops, lefts = (
        np.linspace(0, length - side, _WINDOWS_A_SIDE).round().astype(int)
        for length in image.shape[:2]
    )
    return np.vstack(
        [np.hstack([image[t : t + side, le : le + side] for le in lefts]) for t in tops]
    )
