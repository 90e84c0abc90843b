"""Mosaics of coloured squares, which the colour model maps without an error."""

from __future__ import annotations

import numpy as np
import rasterio
from affine import Affine
from rasterio.warp import transform

SOIL, CROP, WEED = (110, 110, 110), (20, 200, 20), (220, 20, 20)
SQUARE_PX = 12


def random_squares(rows, columns, seed=0):
    """Return class ids, (rows, columns)."""
    return np.random.default_rng(seed).integers(0, 3, (rows, columns))


def pixels_of(ids):
    """Return class ids of every pixel, (H, W)."""
    return ids.repeat(SQUARE_PX, 0).repeat(SQUARE_PX, 1).astype(np.uint8)


def outline(corners, name="north"):
    """Return a boundary as GeoJSON in degrees; corners are (east, south) of the mosaic's, m."""
    xs, ys = zip(*((600_000 + east, 5_600_000 - south) for east, south in [*corners, corners[0]]))
    ring = [list(point) for point in zip(*transform("EPSG:32632", "OGC:CRS84", xs, ys))]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "geometry": geometry, "properties": {"name": name}}
    return {"type": "FeatureCollection", "features": [feature]}


def write_field(path, ids, seen=None, **changes):
    """Write squares as a tiled GeoTIFF of 2 mm with alpha; 16 bits, nodata or strips by `changes`.

    Args:
        path: Where.
        ids: Class ids of the squares, (rows, columns).
        seen: Pixels with data, bool (H, W); all by default.
        changes: Of the profile.
    """
    truth = pixels_of(ids)
    bands = np.moveaxis(np.array([SOIL, CROP, WEED], np.uint8)[truth], 2, 0)
    seen = np.ones(truth.shape, bool) if seen is None else seen
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "height": truth.shape[0],
        "width": truth.shape[1],
        "crs": "EPSG:32632",
        "transform": Affine(0.002, 0, 600_000, 0, -0.002, 5_600_000),
        "photometric": "RGB",
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 64,
        "interleave": "pixel",
        **changes,
    }
    if "nodata" in changes:
        bands = np.where(seen, bands, np.uint8(changes["nodata"]))
    else:
        bands = np.concatenate([bands, seen[None].astype(np.uint8) * 255])
        profile["alpha"] = "YES"
    if profile["dtype"] == "uint16":
        bands = bands.astype(np.uint16) * 257
    with rasterio.open(path, "w", count=len(bands), **profile) as file:
        file.write(bands)
    return path
