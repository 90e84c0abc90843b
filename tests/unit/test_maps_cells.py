"""Cells and patches against brute force: every pixel by itself, the whole mosaic at once."""

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
import shapely
from affine import Affine
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from weedseg.classes import DEFAULT_CLASSES, ClassTable, FieldClass, Role
from weedseg.data.mosaics import Window
from weedseg.errors import ConfigError, FieldDataError, TileError
from weedseg.maps.cells import CellCounter, CellOptions, make_grid, world_cell
from weedseg.maps.ground import Ground, MapPart

UTM = "EPSG:32632"
SPECIES = ClassTable(
    tuple(
        FieldClass(name=name, role=role, colour=(0, 0, 0))
        for name, role in [
            ("soil", Role.BACKGROUND),
            ("maize", Role.CROP),
            ("amaranth", Role.WEED),
            ("thistle", Role.WEED),
        ]
    )
)


def ground_of(size, pixel_m=0.1, turn_deg=0.0, corner=(600_000.123, 5_600_000.777), flip=False):
    place = Affine.translation(*corner) @ Affine.rotation(turn_deg)
    place = place @ Affine.scale(pixel_m, pixel_m if flip else -pixel_m)
    return Ground(size=size, crs=UTM, transform=tuple(place)[:6], metric_crs=UTM)


def random_parts(rng, class_map, confidence, most=40):
    """Cut a class map into rows of parts, each row at other columns."""
    height, width = class_map.shape
    top = 0
    while top < height:
        tall = min(int(rng.integers(1, most + 1)), height - top)
        left = 0
        while left < width:
            wide = min(int(rng.integers(1, most + 1)), width - left)
            where = np.s_[top : top + tall, left : left + wide]
            yield MapPart(Window(top, left, tall, wide), class_map[where], confidence[where])
            left += wide
        top += tall


def counted(ground, parts, options, boundary=None, classes=SPECIES):
    counter = CellCounter(ground, classes, options, boundary)
    for part in parts:
        counter.add(part)
    return counter.finish()


def draw(rng, size):
    """Draw clumps of plants, a hole without data, and a confidence for each pixel."""
    noise = scipy.ndimage.gaussian_filter(rng.random(size), rng.uniform(0.4, 3))
    steps = np.quantile(noise, np.sort(rng.random(4)))
    class_map = np.digitize(noise, steps).astype(np.uint8)
    class_map = np.array([0, 1, 2, 3, 255], np.uint8)[class_map]
    confidence = rng.integers(0, 101, size, dtype=np.uint8)
    confidence[class_map == 255] = 255
    return class_map, confidence


def centres(ground):
    """Return the middles of all pixels in metres, (H, W) each."""
    rows, columns = np.mgrid[: ground.size[0], : ground.size[1]] + 0.5
    a, b, c, d, e, f = ground.transform
    return a * columns + b * rows + c, d * columns + e * rows + f


def cell_of(grid, xs, ys):
    back = ~grid.affine()
    columns = back.a * xs + back.b * ys + back.c
    rows = back.d * xs + back.e * ys + back.f
    return rows, columns


def brute_force(ground, class_map, confidence, grid, inside, least_px):
    """Return {cell: [valid, weed, crop, confidence, patches, patch px]} by single pixels."""
    cells = defaultdict(lambda: np.zeros(6))
    rows, columns = cell_of(grid, *centres(ground))
    for value in (rows, columns):
        assume(np.abs(value - np.rint(value)).min() > 1e-7)
    rows, columns = np.floor(rows).astype(int), np.floor(columns).astype(int)
    valid = (class_map != 255) & inside
    weed = valid & ((class_map == 2) | (class_map == 3))
    for r, c in zip(*np.nonzero(valid)):
        cell = cells[rows[r, c], columns[r, c]]
        cell += (1, weed[r, c], class_map[r, c] == 1, confidence[r, c], 0, 0)
    labels, number = scipy.ndimage.label(weed, np.ones((3, 3)))
    for label in range(1, number + 1):
        found = np.argwhere(labels == label)
        if len(found) < least_px:
            continue
        row, column = found.mean(axis=0) + 0.5
        a, b, c, d, e, f = ground.transform
        place = cell_of(grid, a * column + b * row + c, d * column + e * row + f)
        assume(all(abs(v - round(v)) > 1e-7 for v in place))
        cell = tuple(math.floor(v) for v in place)
        if cell not in cells:  # the nearest cell with data takes it
            near = [((r - cell[0]) ** 2 + (c - cell[1]) ** 2, (r, c)) for r, c in cells]
            assume(sorted(d for d, _ in near)[:2].count(min(near)[0]) == 1)
            cell = min(near)[1]
        cells[cell] += (0, 0, 0, 0, 1, len(found))
    return {cell: sums for cell, sums in cells.items() if sums[0]}


def check(weed_map, expected, pixel_m2):
    """Compare all cells of a map with their sums, to the last bit."""
    assert list(zip(weed_map.rows.tolist(), weed_map.columns.tolist())) == sorted(expected)
    sums = np.array([expected[cell] for cell in sorted(expected)])
    valid, weed, crop, confidence, patches, patch_px = sums.T
    cell_m2 = math.prod(weed_map.grid.cell_m)
    np.testing.assert_array_equal(weed_map.ground_m2, valid * pixel_m2)
    np.testing.assert_array_equal(weed_map.valid_share, np.minimum(valid * pixel_m2 / cell_m2, 1))
    np.testing.assert_array_equal(weed_map.weed_share, weed / valid)
    np.testing.assert_array_equal(weed_map.crop_share, crop / valid)
    np.testing.assert_array_equal(weed_map.weed_m2, weed * pixel_m2)
    np.testing.assert_array_equal(weed_map.crop_m2, crop * pixel_m2)
    np.testing.assert_array_equal(weed_map.confidence, confidence / valid / 100)
    np.testing.assert_array_equal(weed_map.num_patches, patches)
    mean_m2 = patch_px * pixel_m2 / np.maximum(patches, 1)
    np.testing.assert_array_equal(weed_map.patch_m2, mean_m2)


def star(rng, ground):
    """Draw a jagged field, often partly off the mosaic."""
    xs, ys = centres(ground)
    turns = np.sort(rng.random(7)) * 2 * math.pi
    reach = (0.3 + np.hypot(np.ptp(xs), np.ptp(ys))) * rng.uniform(0.2, 0.8, 7)
    field = shapely.Polygon(
        np.stack([xs.mean() + reach * np.cos(turns), ys.mean() + reach * np.sin(turns)], axis=1)
    )
    assume(field.is_valid)
    return field


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    heading=st.sampled_from([0.0, 90.0, 45.0, 179.999, 180.0, -30.0]) | st.floats(0, 180),
    turn=st.sampled_from([0.0, 0.0, 90.0]) | st.floats(-180, 180),
    section=st.none() | st.floats(0.41, 3),
    least=st.integers(0, 6),
    bounded=st.booleans(),
    flip=st.booleans(),
)
def test_cells_are_those_of_brute_force(
    *, seed, size, heading, turn, section, least, bounded, flip
):
    rng = np.random.default_rng(seed)
    ground = ground_of(size, 0.1, turn, rng.uniform(1e5, 6e6, 2), flip)
    class_map, confidence = draw(rng, size)
    boundary = star(rng, ground) if bounded else None
    xs, ys = centres(ground)
    inside = np.ones(size, bool) if boundary is None else shapely.contains_xy(boundary, xs, ys)
    assume((inside & (class_map != 255)).any())
    options = CellOptions(
        cell_m=rng.uniform(0.4, 4),
        section_m=section,
        heading_deg=heading,
        min_patch_m2=least * 0.01,
    )
    weed_map = counted(ground, random_parts(rng, class_map, confidence), options, boundary)
    expected = brute_force(ground, class_map, confidence, weed_map.grid, inside, max(least, 1))
    check(weed_map, expected, abs(Affine(*ground.transform).determinant))
    grid = weed_map.grid
    assert (weed_map.rows.min(), weed_map.columns.min()) == (0, 0)
    assert (weed_map.rows.max() + 1, weed_map.columns.max() + 1) == (
        grid.num_rows,
        grid.num_columns,
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 180), st.booleans())
def test_parts_do_not_change_the_map(seed, heading, bounded):
    rng = np.random.default_rng(seed)
    ground = ground_of((90, 70), corner=rng.uniform(1e5, 6e6, 2))
    class_map, confidence = draw(rng, ground.size)
    options = CellOptions(cell_m=1.7, heading_deg=heading, min_patch_m2=0.03)
    boundary = star(rng, ground) if bounded else None
    whole = [MapPart(Window(0, 0, 90, 70), class_map, confidence)]
    try:
        once = counted(ground, whole, options, boundary)
    except FieldDataError:
        assume(False)
    cut = counted(ground, random_parts(rng, class_map, confidence), options, boundary)
    assert once.grid == cut.grid
    for name, values in vars(once).items():
        if isinstance(values, np.ndarray):
            np.testing.assert_array_equal(values, getattr(cut, name), err_msg=name)
    assert once.totals() == cut.totals()


def test_two_flights_give_the_same_cells():
    """Another extent and another ground resolution, the same outlines and names."""
    options = CellOptions(cell_m=2.0, section_m=1.5, heading_deg=33.0)
    found = []
    for size, pixel_m, corner in (((300, 400), 0.1, (0, 0)), ((700, 500), 0.05, (7.3, -4.1))):
        ground = ground_of(size, pixel_m, corner=(500_000 + corner[0], 5_000_000 + corner[1]))
        class_map = np.zeros(size, np.uint8)
        part = MapPart(Window(0, 0, *size), class_map, class_map)
        weed_map = counted(ground, [part], options)
        row, column = world_cell(weed_map.grid)
        names = zip((weed_map.rows + row).tolist(), (weed_map.columns + column).tolist())
        found.append(dict(zip(names, weed_map.polygons())))
    shared = found[0].keys() & found[1].keys()
    assert len(shared) > 100
    for name in shared:
        one, other = (shapely.get_coordinates(cells[name]) for cells in found)
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_cells_cover_the_ground_once():
    ground = ground_of((200, 300))
    full = np.full(ground.size, 2, np.uint8)
    part = MapPart(Window(0, 0, *ground.size), full, np.full_like(full, 80))
    weed_map = counted(ground, [part], CellOptions(cell_m=2.3, heading_deg=20.0))
    totals = weed_map.totals()
    assert totals["ground_m2"] == pytest.approx(20 * 30)
    assert totals["weed_m2"] == totals["ground_m2"]
    assert totals["confidence"] == pytest.approx(0.8)
    assert totals["num_patches"] == 1
    inner = weed_map.valid_share > 0.99
    assert inner.sum() > 50
    outlines = weed_map.polygons()
    assert shapely.union_all(outlines).area == pytest.approx(len(outlines) * 2.3**2)


def test_a_headings_rows_run_along_it():
    """A strip of weed along the heading fills one column of cells."""
    ground = ground_of((600, 600), 0.1, corner=(1000.0, 2000.0))
    xs, ys = centres(ground)
    turn = math.radians(60)
    options = CellOptions(cell_m=4.0, section_m=1.0, heading_deg=60.0)
    across = xs * math.cos(turn) - ys * math.sin(turn)
    strip = math.floor(across.mean())
    class_map = np.where(np.floor(across) == strip, 2, 0).astype(np.uint8)
    parts = random_parts(np.random.default_rng(0), class_map, np.zeros_like(class_map), 300)
    weed_map = counted(ground, parts, options)
    weedy = weed_map.weed_share > 0
    assert set(weed_map.columns[weedy] + world_cell(weed_map.grid)[1]) == {strip}
    assert weedy.sum() >= 60 / 4
    assert (weed_map.weed_share[weedy] == 1).all()


@pytest.mark.parametrize("bounded", [False, True])
def test_degrees_give_true_areas(bounded):
    """A mosaic in degrees: cells and areas are metres of UTM."""
    from rasterio.warp import transform_geom

    size, step = (400, 500), 1e-6
    ground = Ground(
        size=size,
        crs="EPSG:4326",
        transform=(step, 0.0, 8.7, 0.0, -step, 50.2),
        metric_crs=UTM,
    )
    ring = [(8.7, 50.2), (8.7005, 50.2), (8.7005, 50.1996), (8.7, 50.1996)]
    outline = shapely.geometry.shape(
        transform_geom("EPSG:4326", UTM, {"type": "Polygon", "coordinates": [[*ring, ring[0]]]})
    )
    boundary = outline.buffer(-8.0) if bounded else None
    rng = np.random.default_rng(3)
    class_map, confidence = draw(rng, size)
    class_map[class_map == 255] = 0
    confidence[:] = 50
    weed_map = counted(
        ground,
        random_parts(rng, class_map, confidence, 200),
        CellOptions(cell_m=3.0, min_patch_m2=0.05),
        boundary,
    )
    area = (boundary or outline).area
    totals = weed_map.totals()
    assert totals["ground_m2"] == pytest.approx(area, rel=1e-5 if not bounded else 2e-3)
    assert weed_map.valid_share.max() == pytest.approx(1.0, abs=1e-2)
    assert totals["confidence"] == pytest.approx(0.5)
    if not bounded:
        weed = (class_map == 2) | (class_map == 3)
        assert totals["weed_share"] == pytest.approx(weed.mean(), rel=1e-5)
        labels, _ = scipy.ndimage.label(weed, np.ones((3, 3)))
        num_px = np.bincount(labels.ravel())[1:]
        assert totals["num_patches"] == (num_px * area / class_map.size >= 0.05).sum()


def test_a_patch_whose_centre_has_no_data_is_not_lost():
    """A ring of weed around a hole that fills a cell."""
    ground = ground_of((50, 50), 0.1, corner=(1000.0, 2000.0))
    class_map = np.full((50, 50), 255, np.uint8)
    class_map[5:45, 5:45] = 2
    class_map[10:40, 10:40] = 255
    part = MapPart(Window(0, 0, 50, 50), class_map, class_map)
    weed_map = counted(ground, [part], CellOptions(cell_m=1.0))
    assert weed_map.totals()["num_patches"] == 1
    assert weed_map.patch_m2.max() == pytest.approx(4**2 - 3**2)


def test_nothing_of_the_part_is_changed():
    ground = ground_of((40, 40))
    class_map, confidence = draw(np.random.default_rng(0), (40, 40))
    before = class_map.copy(), confidence.copy()
    part = MapPart(Window(0, 0, 40, 40), class_map, confidence)
    boundary = shapely.Point(600_002.0, 5_599_998.0).buffer(1.5)
    counted(ground, [part], CellOptions(cell_m=1.0), boundary)
    np.testing.assert_array_equal(class_map, before[0])
    np.testing.assert_array_equal(confidence, before[1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"cell_m": 0.0},
        {"cell_m": math.nan},
        {"cell_m": 1001.0},
        {"section_m": -3.0},
        {"heading_deg": math.inf},
        {"min_patch_m2": -1.0},
        {"min_patch_m2": math.nan},
    ],
)
def test_senseless_options_are_refused(wrong):
    with pytest.raises(ConfigError):
        CellOptions(**wrong)


def test_impossible_grids_are_refused():
    ground = ground_of((100, 100), 0.1)
    with pytest.raises(ConfigError, match=r"cells of 0\.3 m on pixels of 0\.1 m"):
        make_grid(ground, CellOptions(section_m=0.3), None)
    huge = replace(ground, size=(100_000, 100_000))
    with pytest.raises(ConfigError, match="larger cells or give the field's boundary"):
        make_grid(huge, CellOptions(cell_m=1.0), None)
    elsewhere = shapely.box(0, 0, 10, 10)
    with pytest.raises(FieldDataError, match="outside the mosaic"):
        make_grid(ground, CellOptions(), elsewhere)


def test_a_boundary_makes_the_grid_smaller():
    huge = ground_of((100_000, 100_000), 0.1)
    xs, ys = huge.transform[2], huge.transform[5]
    grid = make_grid(huge, CellOptions(cell_m=1.0), shapely.box(xs, ys - 50, xs + 90, ys))
    assert 50 <= grid.num_rows <= 54
    assert 90 <= grid.num_columns <= 94


def test_a_mosaic_without_data_is_refused():
    ground = ground_of((10, 10))
    nothing = np.full((10, 10), 255, np.uint8)
    with pytest.raises(FieldDataError, match="no pixel of the mosaic has data"):
        counted(ground, [MapPart(Window(0, 0, 10, 10), nothing, nothing)], CellOptions())


def test_a_missing_part_is_found():
    ground = ground_of((10, 20))
    empty = np.zeros((10, 10), np.uint8)
    with pytest.raises(TileError, match="parts of 100 px"):
        counted(ground, [MapPart(Window(0, 10, 10, 10), empty, empty)], CellOptions())


def test_the_classes_of_a_farm_count_by_their_roles():
    ground = ground_of((10, 10))
    class_map = np.repeat(np.array([[0, 1, 2, 3]], np.uint8), 10, axis=0).repeat(3, axis=1)
    part = MapPart(Window(0, 0, 10, 10), class_map[:, :10].copy(), class_map[:, :10].copy())
    assert counted(ground, [part], CellOptions()).totals()["weed_share"] == pytest.approx(0.4)
    plain = counted(ground, [part], CellOptions(), classes=DEFAULT_CLASSES)
    assert plain.totals()["weed_share"] == pytest.approx(0.3)


def test_memory_does_not_grow_with_the_mosaic():
    """Ten times as many rows of weeds, the same memory between parts."""
    import tracemalloc

    rng = np.random.default_rng(0)
    band, confidence = draw(rng, (50, 400))
    peaks = []
    for bands in (20, 200):
        ground = ground_of((50 * bands, 400))
        counter = CellCounter(ground, SPECIES, CellOptions(cell_m=50.0))
        tracemalloc.start()
        for number in range(bands):
            counter.add(MapPart(Window(number * 50, 0, 50, 400), band, confidence))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert counter.finish().totals()["num_patches"] > bands
    assert peaks[1] < 1.2 * peaks[0]
