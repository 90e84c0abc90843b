"""Geotagged photos as sample points."""

import csv
import json
import math
import struct

import geopandas
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import GPS, IFD

from weedseg.edge.segmenter import Segmenter
from weedseg.errors import GeoreferenceError, ImageError, OutputError
from weedseg.maps.gps import read_position
from weedseg.maps.samples import COLUMNS, map_photos

BERLIN = {
    GPS.GPSLatitudeRef: "N",
    GPS.GPSLatitude: (52.0, 31.0, 12.0),
    GPS.GPSLongitudeRef: "E",
    GPS.GPSLongitude: (13.0, 24.0, 18.0),
}
LAT, LON = 52 + 31 / 60 + 12 / 3600, 13 + 24 / 60 + 18 / 3600


def without_denominator(path, value):
    """Store a whole rational as value / 0, which Pillow would not write."""
    data = path.read_bytes()
    found = next(p for p in (">2L", "<2L") if struct.pack(p, value, 1) in data)
    path.write_bytes(data.replace(struct.pack(found, value, 1), struct.pack(found, value, 0)))
    return path


def save(path, pixels, gps=None, taken=None):
    exif = Image.Exif()
    if taken:
        exif.get_ifd(IFD.Exif)[0x9003] = taken
    if gps:
        exif.get_ifd(IFD.GPSInfo).update(gps)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    return path


@pytest.fixture
def take(tmp_path, field_photo):
    """Take a photo with GPS tags."""

    def taken(**changes):
        gps = BERLIN | {GPS[name]: value for name, value in changes.items()}
        gps = {tag: value for tag, value in gps.items() if value is not None}
        return save(tmp_path / "photos" / "1.jpg", field_photo(40, 50), gps)

    return taken


@pytest.fixture
def segmenter(colour_model):
    return Segmenter(colour_model, threads=1)


def test_a_position_is_read_with_height_and_error(take):
    path = take(GPSAltitude=34.5, GPSAltitudeRef=b"\0", GPSHPositioningError=4.75)
    place = read_position(path)
    assert (place.lat, place.lon) == pytest.approx((LAT, LON), abs=1e-9)
    assert (place.altitude_m, place.error_m) == (34.5, 4.75)


def test_south_and_west_and_below_the_sea_are_negative(take):
    path = take(GPSLatitudeRef="S", GPSLongitudeRef="W", GPSAltitude=3.0, GPSAltitudeRef=b"\1")
    place = read_position(path)
    assert (place.lat, place.lon) == pytest.approx((-LAT, -LON), abs=1e-9)
    assert place.altitude_m == -3


def test_decimal_minutes_and_decimal_degrees_are_read(take):
    place = read_position(take(GPSLatitude=(52.0, 31.2), GPSLongitude=(LON,)))
    assert (place.lat, place.lon) == pytest.approx((LAT, LON), abs=1e-6)


def test_what_a_photo_does_not_say_is_none(take):
    place = read_position(take())
    assert place.altitude_m is place.error_m is None
    broken = without_denominator(take(GPSAltitude=5.0, GPSHPositioningError=5.0), 5)
    assert read_position(broken).altitude_m is None
    assert read_position(broken).error_m is None
    assert read_position(take(GPSHPositioningError=0.0)).error_m is None


@pytest.mark.parametrize(
    "changes",
    [
        {"GPSLatitudeRef": None},
        {"GPSLongitude": None},
        {"GPSLatitudeRef": "Q"},
        {"GPSLatitudeRef": "E"},
        {"GPSLatitude": (91.0, 0.0, 0.0)},
        {"GPSLongitude": (180.0, 59.0, 0.0)},
        {"GPSLongitude": (13.0, 61.0, 0.0)},
        {"GPSLatitude": (0.0, 0.0, 0.0), "GPSLongitude": (0.0, 0.0, 0.0)},
    ],
)
def test_a_doubtful_position_is_none(take, changes):
    with pytest.raises(GeoreferenceError, match=r"1\.jpg (has a damaged|says latitude 0).*cable"):
        read_position(take(**changes))


@pytest.mark.parametrize("value", [52, 31, 12, 0])
def test_a_rational_without_denominator_is_no_number(take, value):
    path = without_denominator(take(GPSLongitude=(13.0, 24.0, 0.0)), value)
    with pytest.raises(GeoreferenceError, match="damaged position"):
        read_position(path)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.binary(max_size=200), at=st.integers(0, 200))
def test_damaged_tags_are_an_error_or_a_place_on_earth(tmp_path_factory, data, at):
    """Bytes of a photo's EXIF block are overwritten; nothing but the promised error comes."""
    path = tmp_path_factory.getbasetemp() / "damaged.jpg"
    save(path, np.zeros((8, 8, 3), np.uint8), BERLIN | {GPS.GPSAltitude: 3.0})
    whole = path.read_bytes()
    start = whole.index(b"Exif\0\0") + 6 + at
    path.write_bytes(whole[:start] + data + whole[start + len(data) :])
    try:
        place = read_position(path)
    except GeoreferenceError:
        return
    assert abs(place.lat) <= 90
    assert abs(place.lon) <= 180
    assert place.altitude_m is None or math.isfinite(place.altitude_m)


def table_rows(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def _farm(folder, field_photo):
    """Draw two photos with a position, one without, and one that is no photo."""
    second = BERLIN | {GPS.GPSLongitudeRef: "W", GPS.GPSAltitude: 12.0}
    save(folder / "a" / "1.jpg", field_photo(60, 80), BERLIN, "2026:05:06 07:08:09")
    save(folder / "2.jpg", field_photo(50, 40, 1), second | {GPS.GPSHPositioningError: 8.0})
    save(folder / "3.jpg", field_photo(50, 40, 2))
    (folder / "4.jpg").write_bytes(b"no photo")
    return folder


def test_samples_hold_place_and_cover_and_nothing_else(segmenter, field_photo, tmp_path):
    folder, out = _farm(tmp_path / "in", field_photo), tmp_path / "out"
    seen = []
    report = map_photos(folder, segmenter, out, crop="beet", progress=seen.append)
    assert report.num_samples == 2
    assert len(seen) == 4
    assert list(report.no_position) == ["3.jpg"]
    assert list(report.errors) == ["4.jpg"]
    assert "copy the photos from the camera by cable" in report.no_position["3.jpg"]
    assert "3.jpg" in (out / "no_position.csv").read_text()
    coverage = {row["photo"]: row for row in table_rows(out / "coverage.csv")}
    for name in ("samples.gpkg", "samples.geojson"):
        points = geopandas.read_file(out / name)
        assert points.crs.to_epsg() == 4326
        assert list(points.columns) == [*COLUMNS, "geometry"]
        points = points.set_index("photo")
        near, far = points.loc["a/1.jpg"], points.loc["2.jpg"]
        assert (near.geometry.x, near.geometry.y) == pytest.approx((LON, LAT), abs=1e-6)
        assert far.geometry.x == pytest.approx(-LON, abs=1e-6)
        assert math.isnan(near.alt_m)
        assert math.isnan(near.gps_err_m)
        assert (far.alt_m, far.gps_err_m) == (12, 8)
        assert str(near.taken).startswith(("2026-05-06T07:08:09", "2026-05-06 07:08:09"))
        for photo, row in points.iterrows():
            assert row.weed_pct == pytest.approx(float(coverage[photo]["weed_percent"]), abs=1e-3)
            assert row.crop_pct == pytest.approx(float(coverage[photo]["crop_percent"]), abs=1e-3)
            assert row.conf == pytest.approx(float(coverage[photo]["mean_confidence"]), abs=0.01)
    rows = table_rows(out / "samples.csv")
    assert [row["photo"] for row in rows] == ["2.jpg", "a/1.jpg"]
    assert rows[1]["alt_m"] == ""
    assert all("_m2" not in column for column in rows[0])


def test_every_file_says_what_is_known_of_the_model(segmenter, field_photo, tmp_path):
    folder, out = _farm(tmp_path / "in", field_photo), tmp_path / "out"
    report = map_photos(folder, segmenter, out, crop="beet")
    assert report.trust.note.startswith("untested on this crop")
    assert report.trust.note in json.loads((out / "samples.geojson").read_text())["description"]
    text = (out / "samples_README.txt").read_text()
    assert report.trust.note in text
    assert "no areas and no prescriptions" in " ".join(text.split())
    assert report.trust.note.encode() in (out / "samples.gpkg").read_bytes()


def test_a_second_run_segments_nothing_and_forgets_what_is_mended(segmenter, field_photo, tmp_path):
    folder, out = _farm(tmp_path / "in", field_photo), tmp_path / "out"
    map_photos(folder, segmenter, out)
    first = (out / "samples.geojson").read_bytes()
    map_photos(folder, segmenter, out)
    assert (out / "samples.geojson").read_bytes() == first
    (folder / "3.jpg").unlink()
    map_photos(folder, segmenter, out)
    assert not (out / "no_position.csv").exists()
    assert not list(out.glob(".samples-*"))


def test_photos_without_any_position_are_refused(segmenter, field_photo, tmp_path):
    for number in range(3):
        save(tmp_path / "in" / f"{number}.jpg", field_photo(40, 40, number))
    wanted = r"none of 3 photos in .* has a usable position: .*0\.jpg has no position; expected"
    with pytest.raises(GeoreferenceError, match=wanted):
        map_photos(tmp_path / "in", segmenter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_whole_photos_is_refused(segmenter, tmp_path, take):
    with pytest.raises(ImageError, match="no photo in"):
        map_photos(tmp_path, segmenter, tmp_path / "out")
    path = take()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="none of the 1 photos with a position can be read"):
        map_photos(path.parent, segmenter, tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_said_in_a_sentence(segmenter, take, tmp_path):
    path, out = take(), tmp_path / "out"
    (out / "samples.gpkg").mkdir(parents=True)
    with pytest.raises(OutputError, match="samples cannot be written"):
        map_photos(path.parent, segmenter, out)
    assert not list(out.glob(".samples-*"))
    assert not (out / "samples.csv").exists()
