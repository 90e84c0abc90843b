"""Read a GeoTIFF orthomosaic by windows; it is never loaded as a whole.

Needs rasterio. Sizes are (height, width) in px, windows (top, left, height, width).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.warp import transform as transform_points

from weedseg.errors import FieldDataError
from weedseg.imaging import MAX_PIXELS, Image

MOSAIC_SUFFIXES = frozenset({".tif", ".tiff"})
_CACHE_BYTES = (32 << 20, 512 << 20)
_ODD_PIXELS = 1.01
_TYPES = ("uint8", "uint16")


class Window(NamedTuple):
    """A part of a mosaic, px."""

    top: int
    left: int
    height: int
    width: int


class Mosaic:
    """One GeoTIFF, open for reading."""

    def __init__(self, path: Path, window_px: int) -> None:
        """Open a mosaic; its pixels are not touched.

        Args:
            path: A GeoTIFF file on this machine.
            window_px: Side of the windows, px.

        Raises:
            FieldDataError: It is no GeoTIFF file, or its bands are no photo.
        """
        if not path.is_file() or str(path).startswith("/vsi"):
            raise FieldDataError(f"{path} is no file", "a GeoTIFF", "check the path")
        if not 16 <= window_px <= math.isqrt(MAX_PIXELS):
            raise FieldDataError(
                f"windows of {window_px} px", f"16 to {math.isqrt(MAX_PIXELS)}", "change --window"
            )
        self.path, self._window_px = path, window_px
        with self._reading(_CACHE_BYTES[0]):
            self._file = rasterio.open(path.resolve(), driver="GTiff")
        self.size: tuple[int, int] = (self._file.height, self._file.width)
        self.crs: Any = self._file.crs
        self.transform: Any = self._file.transform
        self._bands = _rgb_bands(self._file, path)
        self._alpha = _alpha_band(self._file)
        self._memory: npt.NDArray[Any] | None = None
        self.deep: bool = self._file.dtypes[0] == "uint16"
        room = self.size[1] * min(window_px, self.size[0]) * self._file.count
        room = room * np.dtype(self._file.dtypes[0]).itemsize * 5 // 4
        in_strips = self._file.block_shapes[0][1] == self.size[1]
        # Strips reach across: room for a row of windows, so that each is decoded once.
        self._cache_bytes = min(max(room * in_strips, _CACHE_BYTES[0]), _CACHE_BYTES[1])

    def windows(self) -> Iterator[Window]:
        """Yield all windows, row by row; those at the right and bottom edge are smaller."""
        step = self._window_px
        for top in range(0, self.size[0], step):
            for left in range(0, self.size[1], step):
                yield Window(
                    top, left, min(step, self.size[0] - top), min(step, self.size[1] - left)
                )

    def cut(self, window: Window) -> Image | None:
        """Read the photo in a window.

        Args:
            window: Where.

        Returns:
            uint8 (H, W, 3), RGB, black where nothing is known; None if that is everywhere.

        Raises:
            FieldDataError: The file is damaged.
        """
        return self.read(window)[0]

    def read(self, window: Window) -> tuple[Image | None, npt.NDArray[np.bool_]]:
        """Read the photo in a window and which of its pixels are known; as `cut` and `valid`.

        Raises:
            FieldDataError: The file is damaged.
        """
        known = None if self._alpha else self.valid(window)
        if known is not None and not known.any():
            return None, known
        bands = self._read_bands(window)
        if known is None:
            known = np.asarray(bands[3] > 0)  # its own call would unpack the file once more
            if not known.any():
                return None, known
        if bands.dtype == np.uint16:
            bands = (bands[:3] >> 8).astype(np.uint8)
        image = np.asarray(cv2.merge(list(bands[:3])), np.uint8)
        if not known.all():
            image[~known] = 0
        return image, known

    def _read_bands(self, window: Window) -> npt.NDArray[Any]:
        """Read red, green, blue and, where there is one, alpha into memory that is used again."""
        shape = (3 + len(self._alpha), window.height, window.width)
        if self._memory is None or self._memory.size < math.prod(shape):
            self._memory = np.empty(math.prod(shape), self._file.dtypes[0])
        out = self._memory[: math.prod(shape)].reshape(shape)
        with self._reading(self._cache_bytes):
            self._file.read([*self._bands, *self._alpha], window=_slices(window), out=out)
        return out

    def valid(self, window: Window) -> npt.NDArray[np.bool_]:
        """Tell which pixels of a window are known by alpha, mask or nodata, bool (H, W).

        Raises:
            FieldDataError: The file is damaged.
        """
        with self._reading(self._cache_bytes):
            known = self._file.dataset_mask(window=_slices(window))
        return np.asarray(known > 0)

    def mm_per_px(self) -> float | None:
        """Return the ground resolution in the middle of the mosaic; None if it is unknown.

        That of a projected map is read from the transform. Degrees and Mercator's stretched metres
        are measured in the local UTM zone.

        Raises:
            FieldDataError: The CRS cannot be understood.
        """
        if self.crs is None or self.transform.is_identity:
            return None
        down, right = self._sides_m()
        if max(down, right) > _ODD_PIXELS * min(down, right):
            return None
        return round(1e3 * math.sqrt(down * right), 4)

    def _sides_m(self) -> tuple[float, float]:
        """Return height and width of a pixel in the middle, m."""
        flat = self.transform
        if self.crs.is_projected and self.crs.to_dict().get("proj") not in ("merc", "webmerc"):
            unit = self.crs.linear_units_factor[1]
            return unit * math.hypot(flat.b, flat.e), unit * math.hypot(flat.a, flat.d)
        x, y = self.size[1] / 2, self.size[0] / 2
        corners = [(x, y), (x, y + 1), (x + 1, y)]
        xs = [flat.a * x + flat.b * y + flat.c for x, y in corners]
        ys = [flat.d * x + flat.e * y + flat.f for x, y in corners]
        with self._reading(_CACHE_BYTES[0]):
            (lon, *_), (lat, *_) = transform_points(self.crs, "EPSG:4326", xs, ys)
            strip = int((lon + 180) // 6) % 60 + 1
            utm = f"EPSG:{(32600 if lat >= 0 else 32700) + strip}"
            xs, ys = transform_points(self.crs, utm, xs, ys)
        down, right = (math.hypot(xs[i] - xs[0], ys[i] - ys[0]) for i in (1, 2))
        return down, right

    @contextmanager
    def _reading(self, cache_bytes: int) -> Iterator[None]:
        """Bound GDAL's memory, and make its faults a sentence.

        Raises:
            FieldDataError: GDAL fails.
        """
        try:
            with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=cache_bytes):
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                yield
        except (RasterioError, OSError, ValueError, MemoryError) as error:
            reason = " ".join(str(error.__cause__ or error).split())[:200]
            raise FieldDataError(
                f"{self.path} cannot be read: {reason}", "a whole GeoTIFF", "export it again"
            ) from error


def _slices(window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    return (
        (window.top, window.top + window.height),
        (window.left, window.left + window.width),
    )


def _alpha_band(file: Any) -> list[int]:
    """Return the number of the band that tells what is known; none where a mask or nodata does."""
    kinds = list(file.colorinterp)
    if ColorInterp.alpha not in kinds or any(value is not None for value in file.nodatavals):
        return []
    band = kinds.index(ColorInterp.alpha) + 1
    return [band] if MaskFlags.alpha in file.mask_flag_enums[0] else []


def _rgb_bands(file: Any, path: Path) -> list[int]:
    """Return the numbers of the red, green and blue band; a grey band three times.

    Raises:
        FieldDataError: The bands are no photo.
    """
    if len(set(file.dtypes)) > 1 or file.dtypes[0] not in _TYPES:
        raise FieldDataError(
            f"{path} has pixels of {' and '.join(sorted(set(file.dtypes)))}",
            "8 or 16 bits in all bands",
            "convert it",
        )
    kinds = list(file.colorinterp)
    if ColorInterp.palette in kinds or set(kinds) == {ColorInterp.alpha}:
        raise FieldDataError(f"{path} has no colours", "red, green and blue", "convert it to RGB")
    wanted = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(kind in kinds for kind in wanted):
        return [kinds.index(kind) + 1 for kind in wanted]
    plain = [i for i, kind in enumerate(kinds, start=1) if kind is not ColorInterp.alpha]
    return plain[:3] if len(plain) >= 3 else plain[:1] * 3
