"""Orthomosaics: windows, polygons of any map, nodata, memory that does not grow with the file."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.shutil
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.warp import transform as transform_points

from weedseg.cli import main
from weedseg.data.importers import collect
from weedseg.data.importers.items import ImportOptions
from weedseg.data.index import index_farm
from weedseg.data.masks import read_mask
from weedseg.data.mosaics import Mosaic
from weedseg.data.outlines import Drawing, Outlines, read_outlines
from weedseg.data.shapes import fill_polygon
from weedseg.data.writing import write_collection
from weedseg.errors import ConfigError, FieldDataError, MaskError, WeedsegError
from weedseg.imaging import read_image

_SPEC = importlib.util.spec_from_file_location(
    "published_layouts", Path(__file__).with_name("published_layouts.py")
)
layouts = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = layouts
_SPEC.loader.exec_module(layouts)

PIXELS = np.random.default_rng(0).integers(1, 256, (70, 100, 3), dtype=np.uint8)
BOX = [(10, 12), (40, 12), (40, 30), (10, 30)]
HOLE = [(15, 16), (20, 16), (20, 20), (15, 20)]
SIXTEEN = ImportOptions(window_px=32)


def one_shape(root, shape, name="weed", crs="EPSG:32632", ending=".geojson"):
    layouts.write_mosaic(root / "a.tif", PIXELS)
    layouts.write_outlines(root / f"a{ending}", [shape], [name], crs)
    return root


def imported(src, out, **options):
    collection = collect("geotiff", src, replace(SIXTEEN, **options))
    return write_collection(collection, out, "geotiff")


def stitched(out, size=(70, 100)):
    """Put the windows of a farm together again: photo and mask, 77 where a photo has no mask."""
    farm = index_farm(out)
    image, mask = np.zeros((*size, 3), np.uint8), np.full(size, 77, np.uint8)
    for photo in farm.photos:
        top, left = (int(n) for n in photo.path.stem.split("_"))
        part = read_image(photo.path)
        where = np.s_[top : top + part.shape[0], left : left + part.shape[1]]
        image[where] = part
        if photo.mask is not None:
            mask[where] = read_mask(farm, photo)
    return image, mask


def test_windows_hold_the_pixels_and_the_ground_resolution(tmp_path):
    shape = shapely.Polygon(layouts.on_map(BOX), [layouts.on_map(HOLE)])
    manifest = imported(one_shape(tmp_path / "in", shape), tmp_path / "out")
    image, mask = stitched(tmp_path / "out")
    np.testing.assert_array_equal(image, PIXELS)
    expected = np.zeros((70, 100), np.uint8)
    expected[12:30, 10:40] = 1
    expected[16:20, 15:20] = 0
    np.testing.assert_array_equal(mask[:32, :64], expected[:32, :64])
    assert (mask[32:] == 77).all()
    assert (manifest["photos"], manifest["labelled"]) == (12, 2)
    photos = index_farm(tmp_path / "out").photos
    assert {p.mm_per_px for p in photos} == {2.5}
    assert {p.field for p in photos} == {"a"}
    assert "100x70 px, 12 windows, 2 labelled, 2.5 mm per px" in manifest["notes"][0]


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:25833"])
@pytest.mark.parametrize("ending", [".gpkg", ".geojson"])
def test_polygons_of_another_map_are_moved(crs, ending, tmp_path):
    xs, ys = zip(*layouts.on_map(BOX))
    moved = zip(*transform_points("EPSG:32632", crs, xs, ys))
    root = one_shape(tmp_path / "in", shapely.Polygon(moved), crs=crs, ending=ending)
    imported(root, tmp_path / "out")
    _, mask = stitched(tmp_path / "out")
    expected = np.zeros((70, 100), np.uint8)
    expected[12:30, 10:40] = 1
    np.testing.assert_array_equal(mask[:32, :64], expected[:32, :64])


@pytest.mark.filterwarnings("ignore::RuntimeWarning:shapely")
@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(-9, 110), st.floats(-9, 80)), min_size=3, max_size=6),
        min_size=1,
        max_size=4,
    ),
    st.integers(16, 80),
)
def test_windows_draw_what_the_whole_would(rings, step):
    """Against our own filling of the whole, at random corners; shapes that cross themselves too."""
    mosaic = Mosaic(_plain_mosaic(), step)
    names = [f"{i}" for i in range(len(rings))]
    outlines = Outlines(
        path=Path("x"),
        shapes=np.array([shapely.Polygon(layouts.on_map(r)) for r in rings], object),
        names=names,
        crs="EPSG:32632",
    )
    drawing = Drawing(outlines, mosaic)
    ids = {name: i + 1 for i, name in enumerate(names)}
    whole = np.zeros((70, 100), np.uint8)
    pixels = np.stack(np.meshgrid(np.arange(100), np.arange(70)), axis=-1).reshape(-1, 2) + 0.5
    sure = np.ones((70, 100), bool)
    for i, ring in enumerate(rings):
        fill_polygon(whole, ring, i + 1)
        edge = shapely.LinearRing(ring)
        with np.errstate(all="ignore"):  # a ring of one point has no distance and no area
            near = shapely.distance(shapely.points(pixels), edge) < 1e-4
        sure &= ~near.reshape(70, 100)
    for window in mosaic.windows():
        rows = slice(window.top, window.top + window.height)
        columns = slice(window.left, window.left + window.width)
        drawn = drawing.draw(window, ids)
        here = sure[rows, columns]
        np.testing.assert_array_equal(drawn[here], whole[rows, columns][here])
        assert drawing.inside(window) or not drawn.any()


_made = []


def _plain_mosaic():
    if not _made:
        import tempfile

        folder = tempfile.TemporaryDirectory()
        layouts.write_mosaic(Path(folder.name) / "a.tif", PIXELS)
        _made.extend([folder, Path(folder.name) / "a.tif"])
    return _made[1]


def test_nodata_and_alpha_are_ignored(tmp_path):
    shape = shapely.Polygon(layouts.on_map(BOX))
    for kind in ("nodata", "alpha"):
        root = one_shape(tmp_path / kind, shape)
        pixels = PIXELS.copy()
        hidden = np.zeros((70, 100), bool)
        hidden[:20, 20:50] = hidden[32:64, 32:64] = True
        if kind == "nodata":
            pixels[hidden] = 0
            layouts.write_mosaic(root / "a.tif", pixels, nodata=0)
        else:
            alpha = np.where(hidden, 0, 255).astype(np.uint8)[..., None]
            layouts.write_mosaic(root / "a.tif", np.concatenate([pixels, alpha], axis=2))
        manifest = imported(root, tmp_path / f"{kind}-out")
        assert "1 windows without a valid pixel left out" in manifest["notes"]
        image, mask = stitched(tmp_path / f"{kind}-out")
        np.testing.assert_array_equal(image, np.where(hidden[..., None], 0, PIXELS))
        np.testing.assert_array_equal(mask[:32, :64] == 255, hidden[:32, :64])
        assert manifest["pixels"]["ignore"] == hidden[:32, :64].sum()
        empty = imported(root, tmp_path / f"{kind}-bare", empty=True)
        assert empty["labelled"] == empty["photos"] == 11


def test_values_become_classes(tmp_path):
    shapes = [shapely.Polygon(layouts.on_map(BOX)), shapely.Polygon(layouts.on_map(HOLE))]
    root = tmp_path / "in"
    layouts.write_mosaic(root / "a.tif", PIXELS)
    layouts.write_outlines(root / "a.gpkg", shapes, [1, 7], column="code")
    with pytest.raises(ConfigError, match="label '1' of unknown role"):
        collect("geotiff", root, SIXTEEN)
    arguments = ["data", "import", "geotiff", str(root), "--out", str(tmp_path / "out")]
    arguments += ["--window", "32", "--column", "code", "--classes", "1=Cirsium arvense"]
    assert main([*arguments, "--classes", "7=ignore", "--role", "Cirsium arvense=weed"]) == 0
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert [c["name"] for c in manifest["classes"]] == ["background", "Cirsium arvense"]
    assert manifest["pixels"]["ignore"] == 20
    assert manifest["pixels"]["Cirsium arvense"] == 30 * 18 - 20
    with pytest.raises(ConfigError, match="no column 'x' in"):
        collect("geotiff", root, replace(SIXTEEN, column="x"))


def test_polygons_elsewhere_and_several_mosaics(tmp_path):
    for name in "ab":
        layouts.write_mosaic(tmp_path / "mosaics" / f"{name}.tif", PIXELS)
    shape = shapely.Polygon(layouts.on_map(BOX))
    layouts.write_outlines(tmp_path / "weeds.gpkg", [shape], ["weed"])
    manifest = imported(tmp_path / "weeds.gpkg", tmp_path / "out", photos=tmp_path / "mosaics")
    assert (manifest["photos"], manifest["labelled"]) == (24, 4)
    assert manifest["fields"] == {"a": 12, "b": 12}
    place = Affine(0.0025, 0, 365_100, 0, -0.0025, 5_610_000)
    layouts.write_mosaic(tmp_path / "mosaics" / "b.tif", PIXELS, transform=place)
    half = imported(tmp_path / "weeds.gpkg", tmp_path / "half", photos=tmp_path / "mosaics")
    assert (half["photos"], half["labelled"]) == (24, 2)
    one = imported(tmp_path / "mosaics" / "a.tif", tmp_path / "one")
    assert (one["photos"], one["labelled"]) == (12, 0)


def test_deep_and_grey_mosaics(tmp_path):
    deep = PIXELS.astype(np.uint16) * 256 + 9
    layouts.write_mosaic(tmp_path / "deep" / "a.tif", deep)
    imported(tmp_path / "deep", tmp_path / "deep-out")
    np.testing.assert_array_equal(stitched(tmp_path / "deep-out")[0], PIXELS)
    layouts.write_mosaic(tmp_path / "grey" / "a.tif", PIXELS[..., :1])
    imported(tmp_path / "grey", tmp_path / "grey-out")
    grey = np.repeat(PIXELS[..., :1], 3, axis=2)
    np.testing.assert_array_equal(stitched(tmp_path / "grey-out")[0], grey)


@pytest.mark.parametrize(
    ("crs", "transform", "expected"),
    [
        ("EPSG:32632", Affine(0.0016, 0.0012, 3e5, 0.0012, -0.0016, 5e6), 2),
        ("EPSG:2263", Affine(0.01, 0, 9e5, 0, -0.01, 2e5), 3.048),
        ("EPSG:3857", Affine(0.004, 0, 779236, 0, -0.004, 6446276), 2.574),
        ("EPSG:32632", Affine(0.002, 0, 0, 0, -0.003, 0), None),
        (None, Affine(0.002, 0, 5, 0, -0.002, 9), None),
    ],
)
def test_ground_resolution(crs, transform, expected, tmp_path):
    """From the transform; Mercator's metres are stretched by 1 / cos(latitude), here 50 degrees."""
    layouts.write_mosaic(tmp_path / "a.tif", PIXELS, crs=crs, transform=transform)
    found = Mosaic(tmp_path / "a.tif", 32).mm_per_px()
    assert (found is None) == (expected is None)
    assert found is None or found == pytest.approx(expected, rel=2e-3)


def test_a_map_in_degrees_is_measured(tmp_path):
    east, north = 1 / 71_695.7, 1 / 111_229.0  # degrees per metre at 50 degrees north, WGS 84
    transform = Affine(0.002 * east, 0, 7.0, 0, -0.002 * north, 50.0)
    layouts.write_mosaic(tmp_path / "a.tif", PIXELS, crs="EPSG:4326", transform=transform)
    assert Mosaic(tmp_path / "a.tif", 32).mm_per_px() == pytest.approx(2, rel=2e-3)


def test_what_is_refused(tmp_path):
    def refused(root, words, error=FieldDataError):
        with pytest.raises(error, match=words) as caught:
            imported(root, tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()

    shape = shapely.Polygon(layouts.on_map(BOX))
    far = one_shape(
        tmp_path / "far", shapely.Polygon([(x + 99, y) for x, y in shape.exterior.coords])
    )
    refused(far, "lies on its mosaic")
    line = one_shape(tmp_path / "line", shapely.LineString(layouts.on_map(BOX)))
    refused(line, "has a LineString", MaskError)
    nowhere = one_shape(tmp_path / "nowhere", shape)
    layouts.write_mosaic(nowhere / "a.tif", PIXELS, crs=None)
    refused(nowhere, "a.tif has no CRS")
    wide = one_shape(tmp_path / "wide", shape)
    layouts.write_mosaic(wide / "a.tif", PIXELS.astype(np.float32))
    refused(wide, "has pixels of float32")
    broken = one_shape(tmp_path / "broken", shape)
    (broken / "a.geojson").write_text('{"type": "FeatureCollection", "features": [')
    refused(broken, "a.geojson cannot be read")
    disguised = one_shape(tmp_path / "disguised", shape)
    (disguised / "a.geojson").unlink()
    (disguised / "a.gpkg").write_text("<OGRVRTDataSource/>")
    refused(disguised, "is no GPKG file")
    two = one_shape(tmp_path / "two", shape, ending=".gpkg")
    blob = np.array([shapely.to_wkb(shape)], object)
    pyogrio.raw.write(
        two / "a.gpkg",
        blob,
        [np.array(["weed"], object)],
        ["class"],
        layer="more",
        geometry_type="Polygon",
        crs="EPSG:32632",
        driver="GPKG",
        append=True,
    )
    refused(two, "has 2 layers")


def test_only_plain_geotiff_files_are_opened(tmp_path):
    layouts.write_mosaic(tmp_path / "a.tif", PIXELS)
    with rasterio.open(tmp_path / "a.tif") as file:
        rasterio.shutil.copy(file, tmp_path / "b.vrt", driver="VRT")
        rasterio.shutil.copy(file, tmp_path / "c.png", driver="PNG")
    (tmp_path / "b.vrt").rename(tmp_path / "b.tif")
    (tmp_path / "c.png").rename(tmp_path / "c.tif")
    for name in ("b.tif", "c.tif"):
        with pytest.raises(FieldDataError, match="cannot be read"):
            Mosaic(tmp_path / name, 32)
    for name in ("/vsizip/x.zip/a.tif", "/vsicurl/http://127.0.0.1/a.tif", "missing.tif"):
        with pytest.raises(FieldDataError, match="is no file"):
            Mosaic(Path(name), 32)
    with pytest.raises(FieldDataError, match="windows of 3 px"):
        Mosaic(tmp_path / "a.tif", 3)


def test_other_formats_know_no_windows(tmp_path):
    with pytest.raises(ConfigError, match="for coco"):
        collect("coco", tmp_path, ImportOptions(window_px=64))


def test_a_damaged_block_is_one_sentence(tmp_path):
    layouts.write_mosaic(
        tmp_path / "in" / "a.tif",
        PIXELS,
        compress="deflate",
        tiled=True,
        blockxsize=16,
        blockysize=16,
    )
    path = tmp_path / "in" / "a.tif"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 500] = bytes(500)
    path.write_bytes(bytes(data))
    with pytest.raises(WeedsegError, match="cannot be read") as caught:
        imported(tmp_path / "in", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


# --- Nassar 2020 ------------------------------------------------------------------------------

SIZE, FULL_SIZE = (8_000, 20_000), (29_395, 90_599)
SMALL_SIZE = (512, 512)
CACHE_MIB, KIB_PER_TILE = 64, 6
"""What a larger mosaic may cost: GDAL's cache once filled, and names and paths of each tile."""


def write_nassar(root, size):
    """Write the published layout with a sparse orthomosaic: nearly all of it is black."""
    layouts.nassar2020(root)
    for path in sorted((root / "ortho_tiles").iterdir()):
        path.unlink()
    (root / "ortho_tiles").rmdir()
    profile = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    place = {"crs": "EPSG:32613", "transform": Affine(0.006, 0, 5e5, 0, -0.006, 5.8e6)}
    with rasterio.open(
        root / "ortho.tif",
        "w",
        driver="GTiff",
        height=size[0],
        width=size[1],
        count=3,
        dtype="uint8",
        sparse_ok=True,
        **profile,
        **place,
    ) as file:
        rows, columns = min(size[0], 300), min(size[1], 300)
        noise = np.random.default_rng(1).integers(0, 256, (3, rows, columns), dtype=np.uint8)
        file.write(noise, window=((size[0] - rows, size[0]), (size[1] - columns, size[1])))
    return noise


def peak_mib(src, out):
    """Import in a process of its own; return its peak resident memory, MiB."""
    code = (
        "import re\nfrom pathlib import Path\nfrom weedseg.cli import main\n"
        f"code = main(['data', 'import', 'nassar2020', {str(src)!r}, '--out', {str(out)!r}])\n"
        "kib = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]\n"
        "print('PEAK', code, int(kib) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    code, peak = done.stdout.rpartition("PEAK ")[2].split()
    assert code == "0", done.stderr
    return float(peak)


@pytest.mark.soak
def test_memory_does_not_grow_with_the_orthomosaic(tmp_path, soak_share):
    size = FULL_SIZE if soak_share == 1 else SIZE
    write_nassar(tmp_path / "small", SMALL_SIZE)
    noise = write_nassar(tmp_path / "large", size)
    small = peak_mib(tmp_path / "small", tmp_path / "small-out")
    large = peak_mib(tmp_path / "large", tmp_path / "large-out")
    num = -(-size[0] // 256) * -(-size[1] // 256)
    print(f"peak memory: {SMALL_SIZE} px {small:.0f} MiB; {size} px, {num} tiles {large:.0f} MiB")
    assert large - small < CACHE_MIB + num * KIB_PER_TILE / 1024
    manifest = json.loads((tmp_path / "large-out/manifest.json").read_text())
    assert manifest["fields"]["nassar-ortho"] == num
    last = tmp_path / "large-out" / "images" / "ortho" / f"nassar_{num - 1:05d}.png"
    height, width = (n % 256 or 256 for n in size)
    part = np.moveaxis(noise, 0, 2)[-height:, -width:]
    np.testing.assert_array_equal(read_image(last)[-300:, -300:], part)


@pytest.mark.parametrize(
    "text",
    [
        '{"features": [], "crs": {"type": "link", "properties": {"href": "http://127.0.0.1:9"}}}',
        '{"type": "FeatureCollection", "features": [], "crs": "http://127.0.0.1:9/crs"}',
        "<OGRVRTDataSource/>",
        "[1, 2]",
    ],
)
def test_outlines_that_point_elsewhere_are_refused_unopened(tmp_path, monkeypatch, text):
    path = tmp_path / "outlines.geojson"
    path.write_text(text)
    monkeypatch.setattr(pyogrio, "list_layers", None)  # GDAL must not even look
    with pytest.raises(FieldDataError, match=r"no JSON|does not name"):
        read_outlines(path, "")
