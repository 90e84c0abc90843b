"""Boundaries of fields: every format the same, and a sentence for whatever may be wrong."""

import http.server
import json
import logging
import threading
import zipfile
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely

from weedseg.data.mosaics import Window
from weedseg.errors import FieldDataError
from weedseg.maps.boundary import FieldCutter, footprint, read_boundary
from weedseg.maps.ground import Ground, MapPart

UTM = "EPSG:32632"
X, Y = 600_000.0, 5_600_000.0
GROUND = Ground(size=(1000, 2000), crs=UTM, transform=(0.05, 0.0, X, 0.0, -0.05, Y), metric_crs=UTM)
"""100 m wide, 50 m high."""
HOLED = shapely.Polygon(
    [(X + 10, Y - 10), (X + 90, Y - 12), (X + 80, Y - 45), (X + 12, Y - 40)],
    [[(X + 30, Y - 20), (X + 40, Y - 20), (X + 40, Y - 30), (X + 30, Y - 30)]],
)
WEST = shapely.box(X + 5, Y - 45, X + 40, Y - 5)
EAST = shapely.box(X + 50, Y - 45, X + 90, Y - 5)
FAR = shapely.box(X + 5000, Y, X + 5100, Y + 100)


def frame(*shapes, crs=UTM, **columns):
    return geopandas.GeoDataFrame(columns, geometry=list(shapes), crs=crs)


def write(path, *shapes, crs=UTM, layer=None, **columns):
    """Write polygons with geopandas, in the CRS that the format asks for."""
    table = frame(*shapes, crs=crs, **columns)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for part in Path(write(path.with_suffix(".shp"), *shapes, crs=crs)).parent.glob(
                f"{path.stem}.*"
            ):
                if part.suffix not in (".zip",):
                    archive.write(part, f"export/{part.name}")
        return path
    drivers = {".gpkg": "GPKG", ".shp": "ESRI Shapefile", ".kml": "KML", ".geojson": "GeoJSON"}
    if path.suffix == ".kml":
        table = table.to_crs(4326)
    table.to_file(path, driver=drivers[path.suffix], layer=layer or path.stem)
    return path


def same(found, expected, atol=2e-3):
    """Two outlines enclose the same ground."""
    assert shapely.symmetric_difference(found, expected).area < atol * expected.length


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".kml", ".geojson", ".zip"])
@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:25832"])
def test_every_format_gives_the_same_field(tmp_path, suffix, crs):
    moved = geopandas.GeoSeries([HOLED], crs=UTM).to_crs(crs)[0]
    path = write(tmp_path / f"field{suffix}", moved, crs=crs)
    found = read_boundary(path, GROUND)
    assert found.geom_type in ("Polygon", "MultiPolygon")
    same(found, HOLED)


def test_height_and_capital_letters_do_not_matter(tmp_path):
    high = shapely.force_3d(HOLED, 123.0)
    path = write(tmp_path / "field.gpkg", high)
    same(read_boundary(path.rename(tmp_path / "FIELD.GPKG"), GROUND), HOLED)


def test_a_field_may_have_several_parts(tmp_path):
    parts = shapely.MultiPolygon([WEST, EAST])
    for suffix in (".gpkg", ".geojson", ".kml", ".shp"):
        same(read_boundary(write(tmp_path / f"a{suffix}", parts), GROUND), parts)


def test_a_bare_geometry_and_a_bare_feature_are_read(tmp_path):
    geometry = json.loads(frame(HOLED).to_crs(4326).to_json())["features"][0]["geometry"]
    path = tmp_path / "field.json"
    path.write_text(json.dumps(geometry))
    same(read_boundary(path, GROUND), HOLED)
    path.write_text(json.dumps({"type": "Feature", "properties": None, "geometry": geometry}))
    same(read_boundary(path, GROUND), HOLED)


def test_a_mosaic_in_degrees(tmp_path):
    west, south, east, north = frame(HOLED.buffer(20)).to_crs(4326).total_bounds
    ground = Ground(
        size=(1000, 1000),
        crs="EPSG:4326",
        transform=((east - west) / 1000, 0.0, west, 0.0, (south - north) / 1000, north),
        metric_crs=UTM,
    )
    same(read_boundary(write(tmp_path / "a.kml", HOLED), ground), HOLED)
    outline = geopandas.GeoSeries([shapely.box(west, south, east, north)], crs=4326)
    same(footprint(ground), outline.segmentize((east - west) / 64).to_crs(UTM)[0], 1e-5)


def test_points_beside_the_field_do_not_matter(tmp_path):
    """Google Earth's files have them."""
    label = shapely.Point(X + 50, Y - 20)
    same(read_boundary(write(tmp_path / "a.kml", label, HOLED), GROUND), HOLED)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".kml"])
def test_two_fields_are_refused_by_name(tmp_path, suffix):
    path = write(tmp_path / f"farm{suffix}", WEST, EAST, FAR, Name=["West", "East", "Far"])
    with pytest.raises(FieldDataError, match=r"2 fields on the mosaic: West \(0\.14 ha\), East"):
        read_boundary(path, GROUND)


def test_fields_without_a_name_are_numbered(tmp_path):
    path = write(tmp_path / "farm.shp", WEST, EAST)
    with pytest.raises(FieldDataError, match=r"number 1 .*number 2 .*export the one you want"):
        read_boundary(path, GROUND)


def test_fields_elsewhere_are_left_out(tmp_path):
    path = write(tmp_path / "farm.gpkg", FAR, EAST, Name=["Far", "East"])
    same(read_boundary(path, GROUND), EAST)


def test_fields_in_two_layers_are_two_fields(tmp_path):
    path = write(tmp_path / "farm.gpkg", WEST, layer="one")
    frame(EAST.buffer(1), crs=UTM).to_file(path, layer="two", driver="GPKG", mode="a")
    with pytest.raises(FieldDataError, match="2 fields on the mosaic"):
        read_boundary(path, GROUND)


def test_a_small_crossing_is_repaired_with_a_warning(tmp_path, caplog):
    """The walker passed the start once more: the last corner crosses the first side."""
    ring = [
        (X + 10, Y - 10),
        (X + 90, Y - 10),
        (X + 90, Y - 40),
        (X + 10, Y - 40),
        (X + 10.1, Y - 9.9),
    ]
    crossed = shapely.Polygon(ring)
    assert not crossed.is_valid
    path = write(tmp_path / "walked.gpkg", crossed, name=["Walked"])
    with caplog.at_level(logging.WARNING, "weedseg"):
        found = read_boundary(path, GROUND)
    assert "Walked" in caplog.text
    assert found.is_valid
    same(found, shapely.box(X + 10, Y - 40, X + 90, Y - 10), 0.1)


@pytest.mark.parametrize(
    "bow",
    [
        [(X, Y - 40), (X + 50, Y), (X + 50, Y - 40), (X, Y)],  # signed area 0
        [(X, Y - 40), (X + 50, Y), (X + 50, Y - 40), (X, Y - 10)],
        [(X, Y), (X + 50, Y - 50), (X, Y)],  # flat
    ],
)
def test_a_bow_tie_is_refused(tmp_path, bow):
    bow = shapely.Polygon(bow)
    path = write(tmp_path / "bow.geojson", bow)
    with pytest.raises(FieldDataError, match=r"crosses itself \([A-Z].*\[.*Fix geom"):
        read_boundary(path, GROUND)


def test_a_boundary_elsewhere_says_how_far(tmp_path):
    with pytest.raises(FieldDataError, match=r"lies [45]\.\d km from the mosaic"):
        read_boundary(write(tmp_path / "far.kml", FAR), GROUND)


def test_swapped_coordinates_are_found(tmp_path):
    lonlat = frame(HOLED).to_crs(4326).geometry[0]
    swapped = shapely.transform(lonlat, lambda points: points[:, ::-1])
    path = write(tmp_path / "swapped.geojson", swapped, crs="EPSG:4326")
    with pytest.raises(FieldDataError, match="latitude and longitude are not swapped"):
        read_boundary(path, GROUND)


def test_metres_labelled_as_degrees_are_found(tmp_path):
    path = tmp_path / "metres.geojson"
    path.write_text(json.dumps(shapely.geometry.mapping(HOLED)))
    with pytest.raises(FieldDataError, match="GeoJSON without one is in degrees"):
        read_boundary(path, GROUND)


def test_a_shapefile_without_its_crs_is_refused(tmp_path):
    path = write(tmp_path / "a.shp", HOLED)
    path.with_suffix(".prj").unlink()
    with pytest.raises(FieldDataError, match=r"no CRS that is known; .*\.prj"):
        read_boundary(path, GROUND)


@pytest.mark.parametrize(
    "shapes",
    [
        [shapely.Point(X + 1, Y - 1)],
        [shapely.LineString(HOLED.exterior.coords)],
        [shapely.Polygon()],
        [shapely.Polygon([(X, Y)] * 4)],
        [None],
    ],
    ids=["point", "line", "empty", "flat", "null"],
)
@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_no_polygon(tmp_path, shapes, suffix):
    path = write(tmp_path / f"a{suffix}", *shapes)
    with pytest.raises(FieldDataError, match="has no polygon"):
        read_boundary(path, GROUND)


def test_an_empty_collection_has_no_polygon(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(FieldDataError, match="has no polygon"):
        read_boundary(path, GROUND)


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".kml", ".geojson", ".json", ".zip"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 300, b"field", b"{}", b"[1]", b'{"type": "FeatureCollection", "features": 7}'],
)
def test_other_files_of_that_name_are_refused(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(FieldDataError):
        read_boundary(path, GROUND)


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".kml", ".geojson", ".zip"])
def test_damaged_files_are_refused_or_read(tmp_path, suffix, soak_share):
    """Cut short and with bytes changed: a sentence or a polygon, never another error."""
    good = write(tmp_path / f"good{suffix}", HOLED).read_bytes()
    for part in tmp_path.glob("good.*"):
        part.rename(tmp_path / f"bad{part.suffix}")
    path = tmp_path / f"bad{suffix}"
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(max(12, round(600 * soak_share))):
        data = bytearray(good)
        if number % 3 == 0:
            data = data[: int(rng.integers(0, len(data)))]
        else:
            for place in rng.integers(0, len(data), 1 + number % 7):
                data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            assert read_boundary(path, GROUND).area > 0
        except FieldDataError:
            refused += 1
    assert refused > 0


def test_files_that_are_not_there_or_of_another_kind(tmp_path):
    for name in ("none.kml", "/vsicurl/http://localhost/a.kml", "/vsizip/a.zip"):
        with pytest.raises(FieldDataError, match="is no file"):
            read_boundary(Path(name), GROUND)
    other = tmp_path / "field.kmz"
    other.write_bytes(b"PK")
    with pytest.raises(FieldDataError, match=r"ends in '\.kmz'"):
        read_boundary(other, GROUND)


def test_an_archive_holds_one_field(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / f"{name}.shp", WEST)
    path = tmp_path / "both.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for part in tmp_path.glob("*.[sdp]*"):
            archive.write(part, part.name)
    with pytest.raises(FieldDataError, match="holds 2 Shapefiles"):
        read_boundary(path, GROUND)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../evil.shp", b"")
    with pytest.raises(FieldDataError, match="inside the folder"):
        read_boundary(path, GROUND)


@pytest.fixture
def listener():
    """A server that counts who calls."""
    calls = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            calls.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *args):
            """Be quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", calls
        server.shutdown()
        thread.join()


def test_no_file_makes_us_call_the_network(tmp_path, listener):
    """A link for the CRS, and GDAL's virtual formats under other names."""
    place, calls = listener
    ring = [[9.0, 50.0], [9.1, 50.0], [9.1, 50.1], [9.0, 50.0]]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    virtual = f'<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>/vsicurl/{place}/a.geojson'
    virtual += "</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
    link = f"<NetworkLink><Link><href>{place}/a.kml</href></Link></NetworkLink>"
    contents = {
        "link.geojson": json.dumps(
            polygon | {"crs": {"type": "link", "properties": {"href": f"{place}/crs"}}}
        ),
        "name.geojson": json.dumps(
            polygon | {"crs": {"type": "name", "properties": {"name": f"{place}/crs"}}}
        ),
        "virtual.geojson": virtual,
        "virtual.kml": virtual,
        "both.kml": f"<kml></kml>{virtual}",
        "virtual.shp": virtual,
        "virtual.gpkg": virtual,
        "link.kml": f'<kml xmlns="http://www.opengis.net/kml/2.2"><Document>{link}</Document></kml>',
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.write_text(content)
        with pytest.raises(FieldDataError):
            read_boundary(path, GROUND)
    assert calls == []


def test_parts_inside_and_outside_are_quick(tmp_path):
    cutter = FieldCutter(GROUND, WEST)
    full = np.zeros((100, 100), np.uint8)
    inside = MapPart(Window(300, 300, 100, 100), full, full)
    assert cutter.cut(inside) is inside
    assert FieldCutter(GROUND, None).cut(inside) is inside
    outside = cutter.cut(MapPart(Window(300, 1500, 100, 100), full, full))
    assert (outside.class_map == 255).all()
    assert (outside.confidence == 255).all()
    border = cutter.cut(MapPart(Window(300, 750, 100, 100), full, full))  # WEST ends at 800 px
    np.testing.assert_array_equal(border.class_map, np.repeat([[0, 255]], 50, 1).repeat(100, 0))
