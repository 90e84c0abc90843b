"""What the checks of written map files share: bounded reading, coordinates, rings and rates.

Nothing here uses the libraries that wrote the files. A fault is a `FieldDataError`: found,
expected, remedy. Checks yield faults; what makes further checks pointless is raised.
"""

from __future__ import annotations

import csv
import json
import math
import sqlite3
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import numpy.typing as npt
import shapefile
import shapely
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from weedseg.errors import FieldDataError

MAX_BYTES = 1 << 29
"""Most that is read of one file or one member of an archive."""

MAX_MEMBERS = 1000
MAX_RATE = 5000.0
"""Litres per hectare that no sprayer exceeds."""

AGAIN = "write it again with weedseg prescribe"
_SLACK_DEG = 2e-5
_NEAR = 1e-3
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    Warning,
    csv.Error,
    shapefile.ShapefileException,
    shapely.errors.ShapelyError,
    sqlite3.Error,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
Ring = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What ``prescription.json`` beside a file says of the prescription."""

    bounds: tuple[float, float, float, float] | None = None
    """West, south, east, north, degrees; None: no record is there."""
    rates: tuple[float, ...] = ()
    """Litres per hectare that may occur."""


@dataclass(kw_only=True)
class Checked:
    """What the check of one file found."""

    path: Path
    kind: str = "a file"
    """What it is, in words."""
    faults: list[FieldDataError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be checked, and why."""


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn whatever a damaged file does to its reader into one fault.

    Raises:
        FieldDataError: It cannot be read.
    """
    try:
        yield
    except _DAMAGE as error:
        raise FieldDataError(
            f"{what} cannot be read ({type(error).__name__}: {str(error)[:120]})",
            "a whole file",
            "copy or write it again",
        ) from error


def read_bytes(path: Path) -> bytes:
    """Read a file of bounded size.

    Raises:
        FieldDataError: It cannot be read or is too large.
    """
    with reading(path.name), path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _too_large(path.name)
    return data


def _too_large(name: str) -> FieldDataError:
    limit = f"at most {MAX_BYTES >> 20} MiB"
    return FieldDataError(f"{name} is too large unpacked", limit, "choose larger cells")


def read_zip(path: Path) -> dict[str, bytes]:
    """Read all members of an archive, by name; folders are left out.

    Raises:
        FieldDataError: It is damaged, encrypted, too large, or points outside itself.
    """
    with reading(path.name), zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        if len(entries) > MAX_MEMBERS or sum(e.file_size for e in entries) > MAX_BYTES:
            raise _too_large(path.name)
        for entry in entries:
            parts = entry.filename.replace("\\", "/").split("/")
            if ".." in parts or parts[0] == "" or ":" in parts[0]:
                raise FieldDataError(
                    f"{path.name} holds {entry.filename!r}, which points outside the archive",
                    "plain names",
                    "do not unpack it; write it again",
                )
        return {entry.filename: archive.read(entry) for entry in entries}


def read_xml(data: bytes, name: str) -> Element:
    """Parse XML that declares no entities.

    Raises:
        FieldDataError: It is damaged or hostile.
    """
    try:
        with reading(name):
            root: Element = fromstring(data, forbid_dtd=True)
            return root
    except ParseError as error:
        raise FieldDataError(f"{name} is no XML ({error})", "valid XML", AGAIN) from error
    except FieldDataError as error:
        if isinstance(error.__cause__, DefusedXmlException):
            raise FieldDataError(
                f"{name} declares a document type or entities", "plain XML", "do not open it"
            ) from error
        raise


def read_json(data: bytes, name: str) -> Any:
    """Parse JSON without NaN and infinity.

    Raises:
        FieldDataError: It is damaged.
    """
    with reading(name):
        return json.loads(data.decode("utf-8"), parse_constant=_refuse)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def read_record(path: Path) -> Record:
    """Read the record of the prescription beside a file; an empty one if none can be read."""
    for folder in (path.parent, path.parent.parent):
        try:
            values = read_json(read_bytes(folder / "prescription.json"), "prescription.json")
            west, south, east, north = (float(value) for value in values["bounds"])
            rates = (0.0, *(float(step["rate"]) for step in values["options"]["steps"]))
        except (FieldDataError, *_DAMAGE):
            continue
        return Record(bounds=(west, south, east, north), rates=rates)
    return Record()


def check_lonlat(points: Ring, record: Record, remedy: str = AGAIN) -> Iterable[FieldDataError]:
    """Check that points, (n, 2), are longitude and latitude in degrees of the field.

    Raises:
        FieldDataError: They are not.
    """
    if not np.isfinite(points).all():
        raise FieldDataError("a coordinate is no finite number", "degrees", remedy)
    (west, south), (east, north) = points.min(axis=0), points.max(axis=0)
    expected = "longitude and latitude in degrees, in this order, WGS 84"
    example = f"coordinates such as ({points[0, 0]:.6f}, {points[0, 1]:.6f})"
    far = np.abs(points).max(axis=0)
    if far[0] > 180 or far[1] > 90:
        if far[0] <= 90 and far[1] <= 180:
            raise FieldDataError(f"{example}: latitude comes first", expected, remedy)
        raise FieldDataError(f"{example}: metres labelled as degrees", expected, remedy)
    if record.bounds is None:
        return
    box = np.array([west, south, east, north])
    if not np.allclose(box, record.bounds, rtol=0, atol=_SLACK_DEG):
        if np.allclose(box[[1, 0, 3, 2]], record.bounds, rtol=0, atol=_SLACK_DEG):
            raise FieldDataError(f"{example}: latitude comes first", expected, remedy)
        place = ", ".join(f"{value:.6f}" for value in record.bounds)
        yield FieldDataError(
            f"{example}, outside the field or not over all of it",
            f"the place that prescription.json states (west, south, east, north: {place})",
            remedy,
        )


def check_rings(
    polygons: Sequence[Sequence[Ring]], *, clockwise: bool | None
) -> Iterable[FieldDataError]:
    """Check closure, validity and turn of polygons; each kind of fault is told once.

    Args:
        polygons: Per polygon its rings, the outline first, (n, 2) each.
        clockwise: How outlines have to turn; None is either way.
    """
    rings = [ring for polygon in polygons for ring in polygon]
    if not rings:
        yield FieldDataError("no polygon", "at least one", AGAIN)
        return
    short = [ring for ring in rings if len(ring) < 4 or (ring[0] != ring[-1]).any()]
    if short:
        yield FieldDataError(
            f"{len(short)} of {len(rings)} rings do not end where they begin",
            "closed rings of four points or more",
            AGAIN,
        )
        return
    made = np.array([shapely.Polygon(polygon[0], polygon[1:]) for polygon in polygons])
    bad = np.flatnonzero(~shapely.is_valid(made))
    if len(bad):
        yield FieldDataError(
            f"{len(bad)} of {len(made)} polygons are invalid, the first is number {bad[0] + 1} "
            f"({shapely.is_valid_reason(made[bad[0]])[:80]})",
            "polygons that do not cross themselves",
            AGAIN,
        )
    elif clockwise is not None:
        outlines = shapely.get_exterior_ring(made)
        wrong = int((shapely.is_ccw(outlines) == clockwise).sum())
        if wrong:
            yield FieldDataError(
                f"{wrong} of {len(made)} outlines turn the wrong way",
                "clockwise outlines" if clockwise else "counter-clockwise outlines",
                AGAIN,
            )


def check_rates(values: Sequence[Any], record: Record) -> Iterable[FieldDataError]:
    """Check rates, l/ha: numbers, in range, and those of the record."""
    plain = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(plain) < len(values) or not all(math.isfinite(v) for v in plain):
        count = len(values) - sum(math.isfinite(v) for v in plain)
        yield FieldDataError(f"{count} rates are no numbers", "a rate for every polygon", AGAIN)
        return
    low, high = min(plain, default=0.0), max(plain, default=0.0)
    if low < 0 or high > MAX_RATE:
        wrong = low if low < 0 else high
        expected = f"0 to {MAX_RATE:g} l/ha"
        yield FieldDataError(f"a rate of {wrong:g} l/ha", expected, AGAIN)
    elif record.rates:
        known = np.array(record.rates)
        odd = [v for v in plain if np.abs(known - v).min() > _NEAR]
        if odd:
            listed = ", ".join(f"{rate:g}" for rate in record.rates)
            yield FieldDataError(
                f"a rate of {odd[0]:g} l/ha", f"one that prescription.json states ({listed})", AGAIN
            )
