"""Photo in, class map out: resize, tiles, network, stitch, back to the photo's size.

Shapes: H W photo px, T tile px, N tiles of a batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from weedseg.classes import ClassTable
from weedseg.edge.golden import GOLDEN_NAME, GoldenSample, SelfTest, read_golden, run_self_test
from weedseg.edge.metadata import ModelMetadata
from weedseg.edge.model_file import ModelFile, read_model_file
from weedseg.edge.result import Result
from weedseg.edge.session import RuntimeInfo, Session
from weedseg.edge.tensorrt_engine import EngineFile, is_engine, read_engine
from weedseg.edge.tensorrt_session import EngineSession
from weedseg.errors import ImageError, ModelFileError, TileError, WeedsegError
from weedseg.imaging import ClassMap, Image, resize_class_map, resize_to, scaled_size
from weedseg.tiles import Stitcher, cut, plan_tiles

RunTiles: TypeAlias = Callable[[npt.NDArray[Any]], tuple[npt.NDArray[Any], npt.NDArray[Any]]]
"""Float32 (N, 3, T, T) RGB 0-1 to class ids and confidence in per cent, each uint8 (N, T, T).

One with an attribute ``takes_bytes`` that is true gets uint8 (N, T, T, 3) instead."""

__all__ = ["Result", "RunTiles", "Segmenter", "check_image", "fill_tile", "segment_photo"]

_MAX_BATCH = 256
_PIXELS_AT_ONCE = 1 << 20
GRID_PX = 32
"""Tiles begin at multiples of the network's stride, so that every tile sees a pixel in the same
phase: measured on peanut photos, this halves what a shifted tiling changes."""


class Segmenter:
    """A model that segments photos of any size."""

    def __init__(
        self,
        model: Path | str | bytes,
        *,
        threads: int = 0,
        batch: int = 1,
        require_provider: str | None = None,
    ) -> None:
        """Read, check and load a model.

        Args:
            model: Path or bytes of a ``model.onnx`` that weedseg exported, or path of an
                ``.engine`` that TensorRT built of it on this machine.
            threads: CPU threads; 0 takes one per physical core.
            batch: Tiles per run, 1-256; memory grows with it.
            require_provider: tensorrt, cuda or cpu: fail instead of falling back.

        Raises:
            ModelFileError: The file is not a model that weedseg may run.
            RuntimeUnavailableError: ONNX Runtime, TensorRT or the required provider is not there.
            TileError: The batch is out of range.
        """
        if not 1 <= batch <= _MAX_BATCH:
            raise TileError(f"batch of {batch} tiles", f"1 to {_MAX_BATCH}", "choose another batch")
        file, self._session = _open(model, threads, require_provider)
        self._batch = batch
        self._golden: GoldenSample | None = None
        self._folder = None if isinstance(model, bytes) else Path(model).parent / GOLDEN_NAME
        self.metadata: ModelMetadata = file.metadata
        self.sha256: str = file.sha256
        """Checksum of the model file."""

    @property
    def classes(self) -> ClassTable:
        """The classes that the model tells apart."""
        return self.metadata.classes

    @property
    def runtime(self) -> RuntimeInfo:
        """What the model really runs on."""
        return self._session.info

    @property
    def run_tiles(self) -> RunTiles:
        """The network alone, without resizing and tiling."""
        return self._session

    def segment(self, image: Image) -> Result:
        """Segment one photo.

        Args:
            image: uint8 (H, W, 3), RGB, of any size.

        Returns:
            Class map, confidence and coverage at the photo's size.

        Raises:
            ImageError: The array is no RGB photo of 8 bits a channel.
            TileError: The photo is empty.
            ModelFileError: The model gives ids that its class table does not have.
            RuntimeUnavailableError: ONNX Runtime fails.
        """
        result = segment_photo(image, self.metadata, self._session, self._batch)
        return replace(result, model_sha256=self.sha256)

    def self_test(self, golden: Path | None = None) -> SelfTest:
        """Segment the golden sample; it is read once, so that later tests need no disk.

        Args:
            golden: Folder of the sample; by default ``golden`` beside the model file.

        Returns:
            Not passed when the class map differs or when there is no sample.
        """
        folder = golden or self._folder
        sample = self._golden if golden is None else None
        if sample is None:
            if folder is None:
                return SelfTest(passed=False, reason="no self-test: the model came without folder")
            try:
                sample = self._golden = read_golden(folder, self.metadata)
            except WeedsegError as error:
                return SelfTest(passed=False, reason=f"no self-test: {error}")
        return run_self_test(self.segment, sample)


def _open(
    model: Path | str | bytes, threads: int, require_provider: str | None
) -> tuple[ModelFile | EngineFile, Session | EngineSession]:
    """Read, check and load a model file or an engine."""
    if is_engine(model) and not isinstance(model, bytes):
        engine = read_engine(model)
        return engine, EngineSession(engine, require_provider)
    file = read_model_file(model)
    return file, Session(file, threads, require_provider)


def segment_photo(
    image: Image, metadata: ModelMetadata, run_tiles: RunTiles, batch: int = 1
) -> Result:
    """Segment a photo with any network; the parity check gives the trained one.

    Beyond photo and result, memory is that of one batch of tiles.

    Args:
        image: uint8 (H, W, 3), RGB.
        metadata: Tile size, overlap, scale and classes.
        run_tiles: The network.
        batch: Tiles per run.

    Returns:
        The result at the photo's size.

    Raises:
        ImageError: The array is no RGB photo of 8 bits a channel.
        TileError: The photo is empty.
        ModelFileError: The network gives ids that the class table does not have.
    """
    start = time.perf_counter()
    check_image(image)
    size = (image.shape[0], image.shape[1])
    scaled = resize_to(image, scaled_size(size, metadata.scale))
    class_map, confidence = segment_scaled(scaled, metadata, run_tiles, batch)
    class_map, confidence = resize_class_map(class_map, size), resize_class_map(confidence, size)
    counts = _count_ids(class_map)
    classes = metadata.classes
    if counts[len(classes) :].any():
        raise ModelFileError(
            f"class id {int(counts.nonzero()[0][-1])} in the class map",
            f"0 to {len(classes) - 1}",
            "export the model again",
        )
    shares = counts[: len(classes)] / class_map.size
    return Result(
        class_map=class_map,
        confidence=confidence,
        coverage={name: float(share) for name, share in zip(classes.names, shares)},
        ood_score=None if metadata.ood is None else metadata.ood.score(scaled),
        elapsed_ms=(time.perf_counter() - start) * 1e3,
    )


def check_image(image: Any) -> None:
    """Check that an array is a photo.

    Raises:
        ImageError: It is no uint8 (H, W, 3).
        TileError: It has no pixels.
    """
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"a photo of type {type(image).__name__}",
            "a numpy array, uint8 (H, W, 3), RGB",
            "read it with weedseg.imaging.read_image",
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(
            f"a photo of {image.dtype} {image.shape}", "uint8 (H, W, 3), RGB", "convert it"
        )
    if not image.size:
        raise TileError(
            f"a photo of {image.shape[1]}x{image.shape[0]} px", "at least 1x1 px", "leave it out"
        )


def segment_scaled(
    image: Image,
    metadata: ModelMetadata,
    run_tiles: RunTiles,
    batch: int = 1,
    origin: tuple[int, int] = (0, 0),
) -> tuple[ClassMap, npt.NDArray[np.uint8]]:
    """Run all tiles of a photo at working size.

    Args:
        image: uint8 (H, W, 3), RGB, at working size.
        metadata: Tile size and overlap.
        run_tiles: The network.
        batch: Tiles per run.
        origin: Shift of the tiling, see `plan_tiles`; only measurements need it.

    Returns:
        Class map and confidence, each uint8 (H, W).

    Raises:
        TileError: The photo is empty.
    """
    size, side = (image.shape[0], image.shape[1]), metadata.tile_px
    plan = plan_tiles(size, side, metadata.overlap_px, origin, GRID_PX)
    num = len(plan.placements)
    ids, sure = Stitcher(plan, np.uint8), Stitcher(plan, np.uint8)
    as_bytes = getattr(run_tiles, "takes_bytes", False)
    shape, dtype = ((side, side, 3), np.uint8) if as_bytes else ((3, side, side), np.float32)
    fill = np.copyto if as_bytes else fill_tile
    buffer = np.empty((min(batch, num), *shape), dtype)
    for first in range(0, num, batch):
        images = buffer[: min(batch, num - first)]
        for place in range(len(images)):
            fill(images[place], cut(plan, image, first + place))
        masks, confidences = run_tiles(images)
        for place in range(len(images)):
            ids.add(first + place, masks[place])
            sure.add(first + place, confidences[place])
    return ids.result(), sure.result()


def fill_tile(target: npt.NDArray[np.float32], tile: Image) -> None:
    """Write a tile (T, T, 3) into `target` (3, T, T) as the network wants it: 0-1."""
    for channel, plane in enumerate(cv2.split(tile)):
        np.divide(plane, np.float32(255), out=target[channel])


def _count_ids(class_map: ClassMap) -> npt.NDArray[np.int64]:
    """Count the pixels of each id, (256,); in parts, since bincount needs 8 bytes a pixel."""
    flat = class_map.reshape(-1)
    counts = np.zeros(256, np.int64)
    for start in range(0, flat.size, _PIXELS_AT_ONCE):
        counts += np.bincount(flat[start : start + _PIXELS_AT_ONCE], minlength=256)
    return counts
