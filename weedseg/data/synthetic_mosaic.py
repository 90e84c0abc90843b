"""A synthetic orthomosaic: one field from above as a GeoTIFF with a CRS, and its exact labels.

Needs rasterio (``weedseg[maps]``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from weedseg.classes import DEFAULT_CLASSES, IGNORE_ID
from weedseg.data.synthetic import draw_photo, draw_style
from weedseg.errors import ConfigError, OutputError, RuntimeUnavailableError
from weedseg.imaging import MAX_PIXELS, write_bytes

ORTHO, LABELS, OUTLINES = "ortho.tif", "labels.tif", "ortho.geojson"
EPSG = 32632
"""UTM zone 32 north."""
_CORNER_M = (600_000.0, 5_600_000.0)
_SMALLEST_PX = 256


def write_mosaic(out: Path, seed: int, size: tuple[int, int] = (2048, 3072)) -> float:
    """Write ``ortho.tif`` (RGB, alpha), ``labels.tif`` (class ids) and ``ortho.geojson``.

    The flight leaves a slanted border without data, as real ones do. The outlines follow the
    pixels, so that they say exactly what the labels say.

    Args:
        out: The folder; made if missing.
        seed: Decides every pixel.
        size: (height, width), px.

    Returns:
        Ground resolution, mm per px.

    Raises:
        ConfigError: The mosaic is too small or too large.
        OutputError: The folder cannot be written.
        RuntimeUnavailableError: rasterio is not installed.
    """
    if min(size) < _SMALLEST_PX or size[0] * size[1] > MAX_PIXELS:
        raise ConfigError(
            f"a mosaic of {size[1]}x{size[0]} px",
            f"at least {_SMALLEST_PX} px a side and at most {MAX_PIXELS / 1e6:g} million px",
            "change the size",
        )
    library = _rasterio()
    style = draw_style(seed, 0, 1)
    image, mask = draw_photo(np.random.default_rng([seed, 4]), style, size)
    seen = _flown(size)
    step = style.mm_per_px / 1000
    transform = library.Affine(step, 0.0, _CORNER_M[0], 0.0, -step, _CORNER_M[1])
    mask[~seen] = IGNORE_ID
    bands = [np.where(seen, layer, 0).astype(np.uint8) for layer in cv2.split(image)]
    alpha = seen.astype(np.uint8) * 255
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write_tiff(library, out / ORTHO, np.stack([*bands, alpha]), transform)
        _write_tiff(library, out / LABELS, mask[None], transform)
    except (OSError, library.errors.RasterioError) as error:
        raise OutputError(
            f"{out} cannot be written: {error}", "a folder that can be written", "choose another"
        ) from error
    text = json.dumps(_collection(library, mask, transform))
    write_bytes(out / OUTLINES, text.encode())
    return style.mm_per_px


def _rasterio() -> Any:
    """Load rasterio when it is needed.

    Raises:
        RuntimeUnavailableError: It is not installed.
    """
    try:
        import rasterio
        import rasterio.errors
        import rasterio.features
    except ImportError as error:
        raise RuntimeUnavailableError(
            "rasterio is not installed", "it, for GeoTIFF files", "run: pip install 'weedseg[maps]'"
        ) from error
    return rasterio


def _flown(size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return which pixels have data: all but a slanted border, (H, W)."""
    height, width = size
    lean = math.tan(0.03)
    corners = [
        [lean * height, 0],
        [width - 1, lean * width],
        [width - 1 - lean * height, height - 1],
        [0, height - 1 - lean * width],
    ]
    seen = np.zeros(size, np.uint8)
    cv2.fillPoly(seen, [np.rint(corners).astype(np.int32)], 1)
    return seen.astype(bool)


def _write_tiff(library: Any, path: Path, bands: npt.NDArray[np.uint8], transform: Any) -> None:
    """Write bands, (B, H, W), as a tiled GeoTIFF, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": bands.shape[0],
        "height": bands.shape[1],
        "width": bands.shape[2],
        "crs": f"EPSG:{EPSG}",
        "transform": transform,
        "tiled": True,
        "compress": "deflate",
    }
    if len(bands) == 1:
        profile["nodata"] = IGNORE_ID
    else:
        profile |= {"photometric": "RGB", "alpha": "YES"}
    try:
        with library.open(part, "w", **profile) as file:
            file.write(bands)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _collection(library: Any, mask: npt.NDArray[np.uint8], transform: Any) -> dict[str, Any]:
    """Return the plants as GeoJSON in the mosaic's own CRS."""
    return {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{EPSG}"}},
        "features": list(_features(library, mask, transform)),
    }


def _features(
    library: Any, mask: npt.NDArray[np.uint8], transform: Any
) -> Iterator[dict[str, Any]]:
    plants = (mask != 0) & (mask != IGNORE_ID)
    for outline, value in library.features.shapes(mask, plants, transform=transform):
        name = DEFAULT_CLASSES.names[int(value)]
        yield {"type": "Feature", "properties": {"class": name}, "geometry": outline}
