"""Checks of the GeoTIFFs of a map: tags and tiles are read here, without GDAL."""

from __future__ import annotations

import html
import math
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from weedseg.errors import FieldDataError
from weedseg.maps.checks import read_json, read_xml, reading

NO_DATA = 255
_AGAIN = "write it again with weedseg map"
_MAX_VALUES = 1 << 26
_MAX_TILE = 1 << 24
_DEFLATE = (8, 32946)
_FORMATS = {1: "B", 2: "c", 3: "H", 4: "I", 5: "II", 6: "b", 11: "f", 12: "d", 16: "Q"}
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _BANDS, _PREDICTOR = 256, 257, 258, 259, 277, 317
_COLOURS, _TILE_WIDTH, _TILE_HEIGHT, _OFFSETS, _COUNTS = 320, 322, 323, 324, 325
_SCALE, _TIE, _GEO_KEYS, _METADATA, _NO_DATA_TEXT = 33550, 33922, 34735, 42112, 42113
_MODEL, _GEOGRAPHIC, _PROJECTED = 1024, 2048, 3072
Tags = dict[int, Any]


@dataclass(frozen=True, kw_only=True)
class _Tiff:
    """How numbers are laid out in a file."""

    file: BinaryIO
    order: str
    big: bool

    def unpack(self, layout: str, offset: int | None = None) -> tuple[Any, ...]:
        if offset is not None:
            self.file.seek(offset)
        size = struct.calcsize(self.order + layout)
        return struct.unpack(self.order + layout, self.file.read(size))

    def directory(self, offset: int) -> tuple[Tags, int]:
        """Read the tags at an offset, and the offset of the next directory."""
        (count,) = self.unpack("Q" if self.big else "H", offset)
        entries = [self.unpack("HHQ8s" if self.big else "HHI4s") for _ in range(min(count, 4096))]
        (following,) = self.unpack("Q" if self.big else "I")
        return {tag: self._values(*rest) for tag, *rest in entries}, following

    def _values(self, kind: int, count: int, inline: bytes) -> Any:
        layout = _FORMATS.get(kind)
        if layout is None or count > _MAX_VALUES:
            return ()
        layout = f"{count}s" if kind == 2 else f"{count * len(layout)}{layout[0]}"
        if struct.calcsize(self.order + layout) <= len(inline):
            return struct.unpack_from(self.order + layout, inline)
        (offset,) = struct.unpack(self.order + ("Q" if self.big else "I"), inline)
        return self.unpack(layout, offset)


def check_raster(path: Path) -> Iterable[FieldDataError]:
    """Check a GeoTIFF of classes (with a colour table) or of confidence (without one).

    Args:
        path: The file.

    Raises:
        FieldDataError: It is too damaged to go on.
    """
    with reading(path.name), path.open("rb") as file:
        tiff, directories = _read_directories(file)
        first = directories[0]
        yield from _check_layout(first, len(directories))
        yield from _check_place(first)
        with reading(f"the pixels of {path.name}"):
            counts = _count_values(tiff, first)
        yield from _check_values(first, counts, "class" in path.stem)


def _read_directories(file: BinaryIO) -> tuple[_Tiff, list[Tags]]:
    """Read all directories of tags.

    Raises:
        FieldDataError: It is no TIFF file.
    """
    head = file.read(4)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    version = struct.unpack(f"{order}H", head[2:])[0] if order and len(head) == 4 else 0
    if order is None or version not in (42, 43):
        raise FieldDataError("no TIFF file", "a GeoTIFF", _AGAIN)
    tiff = _Tiff(file=file, order=order, big=version == 43)
    (offset,) = tiff.unpack("Q", 8) if tiff.big else tiff.unpack("I", 4)
    directories: list[Tags] = []
    known: set[int] = set()
    while offset and offset not in known and len(known) < 64:
        known.add(offset)
        tags, offset = tiff.directory(offset)
        directories.append(tags)
    return tiff, directories


def _one(tags: Tags, tag: int, default: int = 0) -> Any:
    values = tags.get(tag) or (default,)
    return values[0]


def _check_layout(tags: Tags, num_directories: int) -> Iterable[FieldDataError]:
    """Check bands, type, tiles, overviews and nodata.

    Raises:
        FieldDataError: The pixels are no bytes in packed tiles.
    """
    bands, bits = _one(tags, _BANDS, 1), _one(tags, _BITS, 1)
    if (bands, bits) != (1, 8):
        raise FieldDataError(f"{bands} bands of {bits} bits", "one band of 8 bits", _AGAIN)
    if _one(tags, _COMPRESSION, 1) not in _DEFLATE or not tags.get(_OFFSETS):
        found = f"compression {_one(tags, _COMPRESSION, 1)}, {len(tags.get(_OFFSETS, ()))} tiles"
        raise FieldDataError(found, "tiles packed with DEFLATE", _AGAIN)
    side = max(_one(tags, _WIDTH), _one(tags, _HEIGHT))
    if num_directories < 2 and side > 2 * _one(tags, _TILE_WIDTH):
        yield FieldDataError(f"no overviews of {side} px", "a cloud-optimised GeoTIFF", _AGAIN)
    text = bytes(_one(tags, _NO_DATA_TEXT, 0) or b"").split(b"\0")[0].decode("ascii", "replace")
    if text.strip() != str(NO_DATA):
        yield FieldDataError(f"nodata {text or 'not set'}", str(NO_DATA), _AGAIN)


def _check_place(tags: Tags) -> Iterable[FieldDataError]:
    """Check that the file says where its pixels lie."""
    keys = tags.get(_GEO_KEYS) or ()
    known = {keys[i]: keys[i + 3] for i in range(4, len(keys) - 3, 4)}
    model = known.get(_MODEL)
    if model not in (1, 2) or not ({_GEOGRAPHIC, _PROJECTED} & set(known)):
        yield FieldDataError("no CRS", "the CRS of the mosaic", _AGAIN)
        return
    scale, tie = tags.get(_SCALE), tags.get(_TIE)
    if not scale or not tie or len(tie) < 6:
        yield FieldDataError(
            "no transform from pixels to the ground", "pixel size and corner", _AGAIN
        )
        return
    width, height = _one(tags, _WIDTH), _one(tags, _HEIGHT)
    xs = [tie[3], tie[3] + width * scale[0]]
    ys = [tie[4], tie[4] - height * scale[1]]
    far_x, far_y = max(map(abs, xs)), max(map(abs, ys))
    numbers = all(map(math.isfinite, (*xs, *ys))) and scale[0] > 0 and scale[1] > 0
    corner = f"a corner at ({tie[3]:.6g}, {tie[4]:.6g}) and pixels of {scale[0]:.3g}"
    if not numbers or (model == 2 and (far_x > 360 or far_y > 90)):
        yield FieldDataError(f"{corner} in degrees", "longitude and latitude", _AGAIN)
    elif model == 1 and far_x <= 180 and far_y <= 90 and scale[0] < 1e-4:
        yield FieldDataError(f"{corner} in metres", "coordinates of the projected CRS", _AGAIN)


def _count_values(tiff: _Tiff, tags: Tags) -> npt.NDArray[np.int64]:
    """Count how often each value occurs; tiles that are left out hold nothing.

    Raises:
        FieldDataError: A tile is missing or damaged.
    """
    width, height = _one(tags, _WIDTH), _one(tags, _HEIGHT)
    across, down = _one(tags, _TILE_WIDTH), _one(tags, _TILE_HEIGHT)
    if not 0 < across * down <= _MAX_TILE:
        raise FieldDataError(f"tiles of {across} x {down} px", "tiles of 512 x 512 px", _AGAIN)
    columns, rows = -(-width // across), -(-height // down)
    offsets, lengths = tags[_OFFSETS], tags.get(_COUNTS) or ()
    if not len(offsets) == len(lengths) == rows * columns:
        raise FieldDataError(f"{len(offsets)} tiles", f"{rows * columns}", "copy it again")
    counts = np.zeros(256, np.int64)
    for number, (offset, length) in enumerate(zip(offsets, lengths)):
        if not length:
            continue
        tiff.file.seek(offset)
        data = zlib.decompressobj().decompress(
            tiff.file.read(min(length, _MAX_TILE)), across * down
        )
        if len(data) != across * down:
            raise FieldDataError(
                f"tile {number + 1} ends too early", "a whole file", "copy it again"
            )
        row, column = divmod(number, columns)
        tile = np.frombuffer(data, np.uint8).reshape(down, across)
        if _one(tags, _PREDICTOR, 1) == 2:
            tile = np.cumsum(tile, axis=1, dtype=np.uint8)
        inside = tile[: height - row * down, : width - column * across]
        counts += np.bincount(inside.ravel(), minlength=256)
    return counts


def _check_values(
    tags: Tags, counts: npt.NDArray[np.int64], named_classes: bool
) -> Iterable[FieldDataError]:
    """Check that values are class ids or per cent."""
    used = [int(value) for value in np.flatnonzero(counts) if value != NO_DATA]
    coloured = bool(tags.get(_COLOURS))
    if named_classes and not coloured:
        yield FieldDataError("no colour table", "one colour for each class", _AGAIN)
    elif coloured:
        ids = _class_ids(tags)
        odd = [value for value in used if ids and value not in ids]
        if odd:
            listed = ", ".join(map(str, sorted(ids)))
            yield FieldDataError(f"the class id {odd[0]}", f"{listed} or {NO_DATA}", _AGAIN)
    elif used and used[-1] > 100:
        yield FieldDataError(f"a confidence of {used[-1]} %", f"0 to 100, or {NO_DATA}", _AGAIN)
    if not used:
        yield FieldDataError("no pixel with data", "a map of the field", _AGAIN)


def _class_ids(tags: Tags) -> set[int]:
    """Return the ids that the file names; none if it names none."""
    text = bytes(_one(tags, _METADATA, 0) or b"").rstrip(b"\0")
    if not text:
        return set()
    for item in read_xml(text, "the metadata of the GeoTIFF").iter("Item"):
        if item.get("name") == "classes" and item.text:
            plain = html.unescape(item.text)  # GDAL escapes it twice
            classes = read_json(plain.encode(), "the classes in the GeoTIFF")
            with reading("the classes in the GeoTIFF"):
                return set(range(len(classes)))
    return set()
