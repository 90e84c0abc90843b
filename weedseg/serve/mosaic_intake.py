"""Take a mosaic in: a confined process reads the file that came, and a plain one is written anew.

What comes after this, GDAL in the worker included, only ever reads files that weedseg wrote.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError

from weedseg.data.mosaics import Window
from weedseg.errors import FieldDataError, GeoreferenceError, OutputError
from weedseg.serve.decoding import sandbox_environment
from weedseg.serve.files import sync, writing

MAX_PIXELS = 2_000_000_000
"""Largest mosaic, height x width."""
BYTES_PER_PIXEL = 8
"""Room on the disk that a map takes while it is made, for every pixel of the mosaic at most."""
_WINDOW_PX = 2048
_BLOCK_PX = 512
_WAIT_S = 120.0
_MAX_LINE = 1 << 16
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the file says of itself."""

    size: tuple[int, int]
    """(height, width), px."""
    crs: str
    transform: tuple[float, ...]
    warnings: tuple[str, ...]
    """What is odd about it, one sentence each."""


def is_tiff(path: Path) -> bool:
    """Tell from the first bytes whether a file is a TIFF."""
    with path.open("rb") as file:
        return file.read(4) in _TIFF


class SandboxedMosaic:
    """A mosaic that a confined process has open."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, name: str) -> None:
        """Talk to a process.

        Args:
            process: It waits for its first line.
            path: The mosaic; messages do not say where it lies.
            name: What messages call it.
        """
        self._process, self._path, self._name = process, path, name

    def open(self, max_pixels: int, max_photo_pixels: int) -> Facts | None:
        """Look at the file.

        Args:
            max_pixels: Largest mosaic.
            max_photo_pixels: Largest photo, which is what a file without a CRS is taken for.

        Returns:
            None when it has no CRS or is no image that GDAL's GeoTIFF driver reads.

        Raises:
            GeoreferenceError: It has a CRS, but cannot be mapped, or none and is no photo either.
            FieldDataError: It is too large, or the process died of it.
        """
        most = {"max_pixels": max_pixels, "max_photo_pixels": max_photo_pixels}
        answer = self._ask({"path": str(self._path), **most})
        if not answer:
            return None
        try:
            facts = Facts(
                size=(int(answer["size"][0]), int(answer["size"][1])),
                crs=str(answer["crs"]),
                transform=tuple(float(value) for value in answer["transform"]),
                warnings=tuple(str(text) for text in answer["warnings"]),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise self._died("an answer that is none") from error
        fits = len(facts.transform) == 6 and all(map(math.isfinite, facts.transform))
        if not fits or min(facts.size) < 1 or facts.size[0] * facts.size[1] > max_pixels:
            raise self._died("a size or place that cannot be")
        return facts

    def read(self, window: Window) -> npt.NDArray[np.uint8] | None:
        """Return red, green, blue and alpha of a window, (H, W, 4); None if nothing is there.

        Raises:
            FieldDataError: The file is damaged, or the process died of it.
        """
        answer = self._ask(list(window))
        if not answer.get("known"):
            return None
        pixels = np.empty((window.height, window.width, 4), np.uint8)
        view = memoryview(pixels.data).cast("B")
        with self._in_time():
            while view:
                num = self._pipes()[1].readinto(view)  # type: ignore[attr-defined]
                if not num:
                    raise self._died("no more pixels")
                view = view[num:]
        return pixels

    def _ask(self, request: Any) -> dict[str, Any]:
        """Send a line and read one.

        Raises:
            GeoreferenceError: The mosaic cannot be mapped.
            FieldDataError: The process died.
        """
        stdin, stdout = self._pipes()
        try:
            with self._in_time():
                stdin.write(json.dumps(request).encode("ascii") + b"\n")
                stdin.flush()
                answer = json.loads(stdout.readline(_MAX_LINE))
        except (OSError, ValueError) as error:
            raise self._died("too much memory or time") from error
        if not isinstance(answer, dict):
            raise self._died("an answer that is none")
        if "error" in answer:
            raise GeoreferenceError(*(self._plain(str(text)) for text in answer["error"][:3]))
        return answer

    def _plain(self, text: str) -> str:
        """Name the mosaic as its owner does."""
        text = text.replace(str(self._path), self._name)
        return re.sub(rf"\b{re.escape(self._path.name)}\b", lambda _: self._name, text)

    def _died(self, why: str) -> FieldDataError:
        return FieldDataError(
            f"{self._name}: reading it takes {why}",
            "an ordinary GeoTIFF",
            "export it again, with tiles and without further files",
        )

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        """Return where to write to and read from.

        Raises:
            FieldDataError: The process has none.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise self._died("a process without pipes")
        return stdin, stdout

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """End the process when one answer takes too long."""
        timer = threading.Timer(_WAIT_S, self._process.kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


@contextmanager
def sandboxed(path: Path, name: str, memory_bytes: int) -> Iterator[SandboxedMosaic]:
    """Give a confined process for one mosaic; it ends with the block.

    Args:
        path: The file.
        name: What messages call it.
        memory_bytes: Memory that reading may take.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "weedseg.serve.mosaic_sandbox", str(memory_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=sandbox_environment(),
        start_new_session=True,
    )
    try:
        yield SandboxedMosaic(process, path, name)
    finally:
        process.kill()
        with process:
            process.wait()


def copy_mosaic(
    source: SandboxedMosaic, facts: Facts, target: Path, go_on: Callable[[], None]
) -> None:
    """Write a mosaic anew, as a plain GeoTIFF of 8 bits with red, green, blue and alpha.

    Args:
        source: The mosaic, open.
        facts: What it said of itself.
        target: The new file.
        go_on: Called before every window; an error that it raises ends the copy.

    Raises:
        FieldDataError: The file is damaged.
        OutputError: The disk is full or not writable.
    """
    temporary = target.with_name(f".{target.name}.part")
    try:
        with _writing(target), rasterio.open(temporary, "w", **_profile(facts)) as file:
            file.colorinterp = [
                *(ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
            ]
            for window in _windows(facts.size):
                go_on()
                pixels = source.read(window)
                if pixels is not None:
                    rows = (window.top, window.top + window.height)
                    columns = (window.left, window.left + window.width)
                    file.write(np.moveaxis(pixels, 2, 0), window=(rows, columns))
        with writing(target):
            sync(temporary)
            os.replace(temporary, target)
            sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _profile(facts: Facts) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 4,
        "height": facts.size[0],
        "width": facts.size[1],
        "crs": facts.crs,
        "transform": rasterio.Affine(*facts.transform),
        "tiled": True,
        "blockxsize": _BLOCK_PX,
        "blockysize": _BLOCK_PX,
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "IF_SAFER",
        "sparse_ok": True,
        "photometric": "RGB",
    }


def _windows(size: tuple[int, int]) -> Iterator[Window]:
    for top in range(0, size[0], _WINDOW_PX):
        for left in range(0, size[1], _WINDOW_PX):
            yield Window(top, left, min(_WINDOW_PX, size[0] - top), min(_WINDOW_PX, size[1] - left))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Make GDAL's faults a sentence.

    Raises:
        OutputError: The disk is full or not writable.
    """
    try:
        yield
    except (RasterioError, OSError) as error:
        raise OutputError(
            f"{path.name} cannot be written: {' '.join(str(error).split())[:200]}",
            "room on the disk",
            "free some space",
        ) from error
