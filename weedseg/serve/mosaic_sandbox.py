"""The process that reads mosaics of strangers: GDAL's GeoTIFF driver, confined, and nothing else.

Started by `weedseg.serve.mosaic_intake` as ``python -m weedseg.serve.mosaic_sandbox MEMORY_BYTES``.
It reads lines of JSON from standard input: first the file, then windows of it. It writes lines of
JSON and pixels. Nothing that it says is executed: the other side reads numbers, text and pixels.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import rasterio
from rasterio.errors import RasterioError

from weedseg.data.mosaics import Mosaic, Window
from weedseg.errors import WeedsegError
from weedseg.maps.georaster import open_field
from weedseg.serve.sandbox import confine, limit_cpu

GDAL_SETTINGS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no files beside the mosaic
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_NUM_THREADS": "1",
    "PROJ_NETWORK": "OFF",
}
_WINDOW_CPU_S = 60
_WINDOW_PX = 2048


def main() -> None:
    """Answer until standard input ends."""
    requests = os.fdopen(os.dup(0), "rb", buffering=1 << 16)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # what libraries print must not mix with the answers
        os.dup2(nowhere, stream)
    cv2.setNumThreads(1)
    rasterio.crs.CRS.from_epsg(4326).to_wkt()  # loads PROJ's tables while there is memory
    confine(int(sys.argv[1]))
    request = json.loads(requests.readline())
    path = Path(request["path"])
    limit_cpu(_WINDOW_CPU_S)
    with rasterio.Env(**GDAL_SETTINGS):
        facts = _facts(path, request["max_pixels"], request["max_photo_pixels"])
        _write(answers, facts)
        if "size" not in facts:
            return
        mosaic = Mosaic(path, _WINDOW_PX)
        while line := requests.readline():
            limit_cpu(_WINDOW_CPU_S)
            _answer(mosaic, Window(*json.loads(line)), answers)


def _facts(path: Path, max_pixels: int, max_photo_pixels: int) -> dict[str, Any]:
    """Say what a file is: nothing (a photo), an error, or size, CRS, transform and warnings."""
    try:
        with rasterio.open(path, driver="GTiff") as file:
            crs, pixels = file.crs, file.height * file.width
        fault = _too_large(pixels, max_pixels if crs else max_photo_pixels, bool(crs))
        if fault or crs is None:
            return fault
        field = open_field(path)
    except WeedsegError as error:
        return {"error": [error.found, error.expected, error.remedy]}
    except (RasterioError, OSError, ValueError):
        return {}
    ground = field.ground
    return {
        "size": list(ground.size),
        "crs": ground.crs,
        "transform": list(ground.transform),
        "warnings": list(field.warnings),
    }


def _too_large(pixels: int, most: int, is_mosaic: bool) -> dict[str, Any]:
    """Say that a file is too large for what it is; nothing if it is not."""
    if pixels <= most:
        return {}
    found, expected = f"{pixels / 1e6:.0f} million pixels", f"at most {most / 1e6:.0f} million"
    if is_mosaic:
        return {"error": [f"the mosaic has {found}", expected, "cut it into parts"]}
    remedy = "if it is a mosaic, assign its CRS: gdal_edit.py -a_srs EPSG:n FILE"
    return {"error": [f"a TIFF of {found} without a CRS", f"{expected} in a photo", remedy]}


def _answer(mosaic: Mosaic, window: Window, answers: IO[bytes]) -> None:
    """Send RGB and alpha of a window, or that there is nothing in it."""
    try:
        image, known = mosaic.read(window)
    except WeedsegError as error:
        _write(answers, {"error": [error.found, error.expected, error.remedy]})
        return
    _write(answers, {"known": image is not None})
    if image is not None:
        alpha = np.where(known, np.uint8(255), np.uint8(0))
        pixels = np.ascontiguousarray(np.dstack([image, alpha]))
        view = memoryview(pixels.data).cast("B")
        while view:
            view = view[answers.write(view) :]


def _write(answers: IO[bytes], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode("ascii") + b"\n")


if __name__ == "__main__":
    main()
