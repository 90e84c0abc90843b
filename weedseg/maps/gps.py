"""Where a photo was taken, read from its EXIF GPS tags; what is doubtful is no position.

Longitude and latitude are WGS 84, degrees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.ExifTags import GPS

from weedseg.errors import GeoreferenceError
from weedseg.imaging import gps_tags

_SIDES = {"N": 1, "S": -1, "E": 1, "W": -1}
_WANTED = "a GPS position in its EXIF data"
_STRIPPED = (
    "copy the photos from the camera by cable or card, since many phones, messengers and cloud "
    "uploads strip it, and switch location on in the camera app"
)
_BELOW_SEA = (1, b"\x01")


@dataclass(frozen=True, kw_only=True)
class Position:
    """A place on the ground, as the camera believes it."""

    lat: float
    lon: float
    altitude_m: float | None
    """Above the sea; None if the photo does not say."""
    error_m: float | None
    """How far the camera thinks it may be off, horizontally; None if it does not say."""


def read_position(path: Path) -> Position:
    """Read where a photo was taken.

    Args:
        path: The photo.

    Raises:
        GeoreferenceError: It does not say, or what it says is no place.
    """
    tags = gps_tags(path)
    values = [tags.get(tag) for tag in (GPS.GPSLatitude, GPS.GPSLongitude)]
    if values == [None, None]:
        raise GeoreferenceError(f"{path} has no position", _WANTED, _STRIPPED)
    lat = _degrees(values[0], tags.get(GPS.GPSLatitudeRef), "NS", 90)
    lon = _degrees(values[1], tags.get(GPS.GPSLongitudeRef), "EW", 180)
    if lat is None or lon is None:
        raise GeoreferenceError(f"{path} has a damaged position", _WANTED, _STRIPPED)
    if lat == 0 and lon == 0:
        raise GeoreferenceError(
            f"{path} says latitude 0, longitude 0: the camera had no fix", _WANTED, _STRIPPED
        )
    altitude = _number(tags.get(GPS.GPSAltitude))
    if altitude is not None and tags.get(GPS.GPSAltitudeRef) in _BELOW_SEA:
        altitude = -altitude
    error = _number(tags.get(GPS.GPSHPositioningError))
    return Position(
        lat=lat, lon=lon, altitude_m=altitude, error_m=error if error and error > 0 else None
    )


def _degrees(value: Any, side: Any, sides: str, most: int) -> float | None:
    """Turn degrees, minutes and seconds and a side of the Earth into degrees; None if damaged."""
    named = side.decode("ascii", "replace") if isinstance(side, bytes) else side
    letter = named.strip("\0 ").upper()[:1] if isinstance(named, str) else ""
    listed = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    numbers = [_number(v) for v in (value if listed else [value])]
    if not letter or letter not in sides or not 1 <= len(numbers) <= 3:
        return None
    whole, *rest = numbers
    if whole is None or any(part is None or not 0 <= part < 60 for part in rest):
        return None
    degrees = whole + sum((part or 0.0) / 60 ** (i + 1) for i, part in enumerate(rest))
    return _SIDES[letter] * degrees if 0 <= degrees <= most else None


def _number(value: Any) -> float | None:
    """Turn a number or rational into a float; None if it is none, as n/0 is."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None
