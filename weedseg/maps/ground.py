"""Where the pixels of a mosaic lie on the ground, and the parts in which its class map comes.

Sizes are (height, width) in px, windows (top, left, height, width). CRS are text that PROJ reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.warp import transform as transform_points

from weedseg.data.mosaics import Window
from weedseg.imaging import ClassMap

NO_DATA = 255
"""Class id and confidence where the mosaic shows nothing."""


class MapPart(NamedTuple):
    """A rectangle of the class map; the parts of a map cover it once, row by row."""

    window: Window
    class_map: ClassMap
    """uint8 (H, W), 255 = no data."""
    confidence: npt.NDArray[np.uint8]
    """Per cent, uint8 (H, W), 0-100, 255 = no data."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Size and place of a mosaic."""

    size: tuple[int, int]
    crs: str
    """CRS of the mosaic, as WKT."""
    transform: tuple[float, float, float, float, float, float]
    """Pixel (column, row) to the mosaic's CRS: a, b, c, d, e, f of an affine transform."""
    metric_crs: str
    """CRS in which lengths and areas are true: the mosaic's own if it is projected in metres and
    not Mercator, else the UTM zone of its middle, as ``EPSG:n``."""

    def metric_affine(self, window: Window) -> Affine:
        """Return the affine transform from pixels of a window to metres of `metric_crs`.

        Exact for a mosaic that is metric itself; else fitted to three corners of the window, where
        a window of 200 m bends away by less than 1 mm.

        Args:
            window: A part of the mosaic.
        """
        own = Affine(*self.transform) @ Affine.translation(window.left, window.top)
        if self.metric_crs == self.crs:
            return own
        corners = [own @ point for point in ((0, 0), (window.width, 0), (0, window.height))]
        (x0, x1, x2), (y0, y1, y2) = self.to_metric(
            [p[0] for p in corners], [p[1] for p in corners]
        )
        across, down = 1 / window.width, 1 / window.height
        return Affine(
            *((x1 - x0) * across, (x2 - x0) * down, x0),
            *((y1 - y0) * across, (y2 - y0) * down, y0),
        )

    def to_metric(
        self, xs: Sequence[float], ys: Sequence[float]
    ) -> tuple[list[float], list[float]]:
        """Move points of the mosaic's CRS to `metric_crs`."""
        if self.metric_crs == self.crs:
            return list(xs), list(ys)
        moved = transform_points(self.crs, self.metric_crs, xs, ys)
        return list(moved[0]), list(moved[1])

    def mm_per_px(self) -> float:
        """Return the ground resolution in the middle: side of a square pixel of equal area, mm."""
        middle = Window(self.size[0] // 2, self.size[1] // 2, 1, 1)
        return 1e3 * math.sqrt(abs(self.metric_affine(middle).determinant))


def to_lonlat(crs: str, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Move points to longitude and latitude, WGS 84.

    Args:
        crs: CRS of the points, as text that PROJ reads.
        points: (n, 2), (x, y).

    Returns:
        (n, 2), (longitude, latitude), degrees.
    """
    moved = transform_points(crs, "EPSG:4326", points[:, 0], points[:, 1])
    return np.array(moved[:2]).T


def apply_affine(
    affine: Affine, xs: npt.ArrayLike, ys: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Move many points by an affine transform; xs and ys broadcast."""
    xs, ys = np.asarray(xs, np.float64), np.asarray(ys, np.float64)
    return (
        affine.a * xs + affine.b * ys + affine.c,
        affine.d * xs + affine.e * ys + affine.f,
    )
