"""A large mosaic with known truth for benchmarks: one block of field, repeated, as a GeoTIFF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine

from weedseg.data.index import index_farm
from weedseg.data.masks import read_mask
from weedseg.data.synthetic import draw_photo, draw_style
from weedseg.errors import FieldDataError
from weedseg.imaging import Image, Mask, read_image

_BLOCK_PHOTOS = (6, 4)
_SYNTHETIC_PX = (2304, 3072)
_STRIP_PX = 1024
_LEAN = 0.015
MM_PER_PX = 1.0


@dataclass(frozen=True, kw_only=True)
class Block:
    """What is repeated over the mosaic."""

    image: Image
    mask: Mask
    """0 background, 1 crop, 2 weed."""
    what: str


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What lies on the ground of a mosaic, px."""

    valid_px: int
    crop_px: int
    weed_px: int


def photo_block(farm: Path, names: frozenset[str] = frozenset()) -> Block:
    """Lay labelled photos side by side.

    Args:
        farm: A farm folder.
        names: The photos to take; empty takes any.

    Raises:
        FieldDataError: There are too few labelled photos of one size.
    """
    index = index_farm(farm)
    chosen = [p for p in index.photos if p.mask is not None and (not names or p.name in names)]
    rows, columns = _BLOCK_PHOTOS
    if len(chosen) < rows * columns:
        raise FieldDataError(
            f"{len(chosen)} labelled photos in {farm}", f"{rows * columns}", "choose another folder"
        )
    chosen = chosen[:: len(chosen) // (rows * columns)][: rows * columns]
    size = read_image(chosen[0].path).shape
    images: list[Image] = []
    masks: list[Mask] = []
    for photo in chosen:
        image = read_image(photo.path)
        if image.shape != size:
            raise FieldDataError(f"{photo.path} of {image.shape}", f"{size}", "use another folder")
        images.append(image)
        masks.append(read_mask(index, photo))
    return Block(
        image=_side_by_side(images, columns),
        mask=_side_by_side(masks, columns),
        what=f"{rows * columns} photos of {farm.name}",
    )


def drawn_block(seed: int = 0) -> Block:
    """Draw a synthetic field."""
    style = draw_style(seed, 0, 1)
    image, mask = draw_photo(np.random.default_rng([seed, 4]), style, _SYNTHETIC_PX)
    return Block(image=image, mask=mask, what="synthetic field")


def write_large_mosaic(path: Path, block: Block, size: tuple[int, int]) -> Truth:
    """Write a mosaic with a slanted border that shows nothing, strip by strip.

    Args:
        path: The GeoTIFF: tiled, DEFLATE, red, green, blue, alpha.
        block: What to repeat; every other one is mirrored.
        size: (height, width), px.
    """
    step = MM_PER_PX / 1e3
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 4,
        "height": size[0],
        "width": size[1],
        "crs": "EPSG:32632",
        "transform": Affine(step, 0, 600_000, 0, -step, 5_600_000),
        "photometric": "RGB",
        "alpha": "YES",
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "DEFLATE",
        "zlevel": 1,
        "interleave": "pixel",
        "bigtiff": "YES",
        "num_threads": "ALL_CPUS",
    }
    counts = np.zeros(256, np.int64)
    valid = 0
    with rasterio.open(path, "w", **profile) as file:
        for top in range(0, size[0], _STRIP_PX):
            height = min(_STRIP_PX, size[0] - top)
            image, mask = (
                _strip(layer, top, height, size[1]) for layer in (block.image, block.mask)
            )
            seen = _seen(top, height, size)
            bands = [np.where(seen, band, 0).astype(np.uint8) for band in cv2.split(image)]
            bands.append(seen.astype(np.uint8) * 255)
            file.write(np.stack(bands), window=((top, top + height), (0, size[1])))
            counts += np.bincount(mask[seen], minlength=256)
            valid += int(seen.sum())
    return Truth(valid_px=valid, crop_px=int(counts[1]), weed_px=int(counts[2]))


def _side_by_side(layers: list[npt.NDArray[np.uint8]], columns: int) -> npt.NDArray[np.uint8]:
    rows = [np.hstack(layers[i : i + columns]) for i in range(0, len(layers), columns)]
    return np.vstack(rows)


def _strip(
    layer: npt.NDArray[np.uint8], top: int, height: int, width: int
) -> npt.NDArray[np.uint8]:
    """Return rows of the repeated block."""
    rows = np.arange(top, top + height) % layer.shape[0]
    pair = np.concatenate([layer[rows], layer[rows][:, ::-1]], axis=1)
    times = -(-width // pair.shape[1])
    return np.tile(pair, (1, times, *(1,) * (layer.ndim - 2)))[:, :width]


def _seen(top: int, height: int, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return which pixels of a strip have data: all but a slanted border left and right."""
    border = (_LEAN * np.arange(top, top + height))[:, None]
    columns = np.arange(size[1])[None, :]
    return (columns >= border) & (columns < size[1] - _LEAN * size[0] + border)
