"""Write a layer of the map as a cloud-optimised GeoTIFF, from parts, in flat memory."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.shutil import copy as copy_raster

from weedseg.classes import ClassTable
from weedseg.data.mosaics import Window
from weedseg.errors import OutputError
from weedseg.maps.ground import NO_DATA, Ground

BLOCK_PX = 512
_CACHE_BYTES = 64 << 20
_FULL_BYTES = 1 << 20


class LayerWriter:
    """Collects a layer in a plain file and turns it into a cloud-optimised one at the end.

    Such a file begins with its overviews, so it cannot be written before the layer is whole.
    """

    def __init__(self, path: Path, work: Path, ground: Ground) -> None:
        """Begin.

        Args:
            path: The file to write.
            work: Folder for the plain file.
            ground: Size and place of the layer.

        Raises:
            OutputError: The folder cannot be written.
        """
        self._path, self._plain = path, work / f"{path.stem}.plain.tif"
        self._size = ground.size
        profile: dict[str, Any] = {
            "driver": "GTiff",
            "dtype": "uint8",
            "count": 1,
            "height": ground.size[0],
            "width": ground.size[1],
            "crs": ground.crs,
            "transform": Affine(*ground.transform),
            "nodata": NO_DATA,
            "tiled": True,
            "blockxsize": BLOCK_PX,
            "blockysize": BLOCK_PX,
            "bigtiff": "IF_SAFER",
        }
        with self._writing():
            self._file = rasterio.open(self._plain, "w", **profile)

    def describe(self, name: str, classes: ClassTable | None = None) -> None:
        """Say what the layer holds.

        Args:
            name: Of the layer.
            classes: Names and colours of the ids, if it holds ids.

        Raises:
            OutputError: The disk is full or not writable.
        """
        with self._writing():
            self._file.set_band_description(1, name)
            if classes is not None:
                colours = {i: (*colour, 255) for i, colour in enumerate(classes.colours)}
                self._file.write_colormap(1, {**colours, NO_DATA: (255, 255, 255, 0)})
                self._file.update_tags(classes=json.dumps(classes.to_list()))

    def add(self, window: Window, layer: npt.NDArray[np.uint8]) -> None:
        """Write a part, uint8 (H, W).

        Raises:
            OutputError: The disk is full or not writable.
        """
        rows = (window.top, window.top + window.height)
        columns = (window.left, window.left + window.width)
        with self._writing():
            self._file.write(layer, 1, window=(rows, columns))

    def finish(self, threads: int = 1) -> Path:
        """Write the file, whole or not at all.

        Args:
            threads: CPU threads for packing.

        Returns:
            Its path.

        Raises:
            OutputError: The disk is full or not writable.
        """
        part = self._path.with_name(f".{self._path.name}.part")
        factors = _factors(self._size)
        options = {
            "compress": "DEFLATE",
            "level": 1,
            "blocksize": BLOCK_PX,
            "bigtiff": "IF_SAFER",
            "num_threads": threads,
            "overviews": "FORCE_USE_EXISTING" if factors else "NONE",
        }
        try:
            with self._writing():
                self._file.close()
                if factors:
                    with rasterio.open(self._plain, "r+") as plain:
                        plain.build_overviews(factors, Resampling.nearest)
                copy_raster(str(self._plain), str(part), driver="COG", **options)
                with rasterio.open(part) as file:  # a disk that filled up unnoticed
                    file.read(1, window=((self._size[0] - 1, self._size[0]), (0, self._size[1])))
                os.replace(part, self._path)
        finally:
            part.unlink(missing_ok=True)
        return self._path

    def close(self) -> None:
        """Let go of the plain file; it is not kept."""
        with suppress(OutputError), self._writing():
            self._file.close()
        self._plain.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Make GDAL's faults a sentence.

        Raises:
            OutputError: GDAL fails.
        """
        try:
            with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
                yield
        except (CPLE_BaseError, RasterioError, OSError) as error:
            reason = " ".join(str(error.__cause__ or error).split())[:200]
            if shutil.disk_usage(self._path.parent).free < _FULL_BYTES:
                reason = "No space left on device"  # GDAL tells which of its calls failed
            raise OutputError(
                f"{self._path} cannot be written: {reason}",
                f"a folder that can be written, with {_room(self._size):.3g} GB free",
                "make room and run the same command again; the finished shards are kept",
            ) from error


def _factors(size: tuple[int, int]) -> list[int]:
    """Return the factors of the overviews, up to one that fits a block."""
    factors: list[int] = []
    while max(size) > BLOCK_PX << len(factors):
        factors.append(2 << len(factors))
    return factors


def _room(size: tuple[int, int]) -> float:
    """Estimate what the layers of a map need while they are written, GB."""
    return 3.2 * size[0] * size[1] / 1e9
