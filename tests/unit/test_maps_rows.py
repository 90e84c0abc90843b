"""Crop rows against fields whose rows are known."""

import math
import tracemalloc

import numpy as np
import pytest
import shapely
from drawn_rows import Drawn, field, find_rows, ground_of, parts_of
from hypothesis import given, settings
from hypothesis import strategies as st

from weedseg.classes import DEFAULT_CLASSES
from weedseg.data.mosaics import Window
from weedseg.data.synthetic import draw_photo, draw_style
from weedseg.errors import ConfigError, OutputError
from weedseg.maps import row_blocks
from weedseg.maps.ground import NO_DATA, Ground, MapPart
from weedseg.maps.row_spectrum import turned_deg
from weedseg.maps.rows import RowFinder, RowOptions


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1 << 30),
    direction_deg=st.floats(0, 180, exclude_max=True),
    spacing_m=st.sampled_from((0.125, 0.18, 0.45, 0.5, 0.75)),
    missing=st.floats(0, 0.4),
    weeds=st.integers(0, 600),
)
def test_direction_and_spacing_are_found(seed, direction_deg, spacing_m, missing, weeds):
    drawn = Drawn(
        direction_deg=direction_deg,
        spacing_m=spacing_m,
        missing=missing,
        weeds=weeds,
        radius_m=min(0.04, spacing_m / 4),
        plant_m=min(0.2, spacing_m),
        off_line_m=spacing_m / 25,
    )
    class_map = field(seed, drawn)
    rows = find_rows(class_map, ground_of(class_map))
    assert rows.reason == ""
    assert abs(turned_deg(rows.direction_deg, direction_deg)) <= 0.5
    assert 0 <= rows.direction_deg < 180
    assert abs(rows.spacing_m - spacing_m) <= 0.006
    assert rows.direction_error_deg <= 0.6
    assert rows.spacing_error_m <= 0.006


def test_cover_in_and_between_the_rows_is_that_of_the_drawn_lines():
    """Weeds stand between the rows only; the lines themselves are known here, not found."""
    drawn = Drawn(direction_deg=0.0, side_m=16, off_line_m=0.0, spacing_m=0.5)
    class_map = field(1, drawn)
    columns = np.flatnonzero((class_map == 1).any(axis=0))
    line = (columns[np.argmax((class_map == 1).sum(axis=0)[columns])] + 0.5) * 0.02
    place = ((np.arange(800) + 0.5) * 0.02 - line) / 0.5
    phase = np.abs((place + 0.5) % 1 - 0.5)
    between = phase > 0.2
    rng = np.random.default_rng(2)
    weedy = (rng.random(class_map.shape) < 0.2) & between & (class_map == 0)
    class_map[weedy] = 2
    rows = find_rows(class_map, ground_of(class_map))
    inside = phase <= 0.15
    for cover, where in ((rows.in_row, inside), (rows.between_rows, ~inside)):
        assert cover.ground_share == pytest.approx(where.mean(), abs=0.04)  # 25 columns a row
        assert cover.crop_share == pytest.approx((class_map[:, where] == 1).mean(), abs=0.02)
        assert cover.weed_share == pytest.approx((class_map[:, where] == 2).mean(), abs=0.02)
    assert rows.in_row.weed_share < 0.01
    assert rows.between_rows.weed_share > 0.12
    assert rows.crop_profile.index(max(rows.crop_profile)) in (18, 19, 20, 21)


def test_a_row_may_be_made_wider():
    class_map = field(3, Drawn(weeds=500))
    ground = ground_of(class_map)
    narrow, wide = (
        find_rows(class_map, ground, RowOptions(in_row_share=share)) for share in (0.1, 0.6)
    )
    assert narrow.in_row.ground_share == pytest.approx(0.1, abs=0.02)
    assert wide.in_row.ground_share == pytest.approx(0.6, abs=0.02)
    assert narrow.in_row.crop_share > wide.in_row.crop_share


def test_the_way_a_map_is_cut_into_parts_does_not_matter():
    class_map = field(4, Drawn(side_m=17, pixel_m=0.017, weeds=900))
    ground = ground_of(class_map, 0.017)
    whole, *others = (
        find_rows(class_map, ground, part_px=part)
        for part in ((2000, 2000), (97, 2000), (301, 203))
    )
    for other in others:
        assert other.num_plants == whole.num_plants
        assert other.direction_deg == pytest.approx(whole.direction_deg, abs=1e-9)
        assert other.crop_profile == pytest.approx(whole.crop_profile, abs=1e-9)
        assert other.to_dict().keys() == whole.to_dict().keys()


@pytest.mark.parametrize("seed", range(6))
def test_plants_without_rows_have_none(seed):
    class_map = field(seed, Drawn(spacing_m=1e3, stray_crops=50 * 6**seed // 2**seed, weeds=300))
    rows = find_rows(class_map, ground_of(class_map))
    assert rows.direction_deg is rows.spacing_m is rows.in_row is None
    assert rows.reason
    assert rows.num_plants > 0


@pytest.mark.parametrize("bend_per_m", [0.006, 0.02, 0.08])
def test_bent_rows_are_said_to_be_unclear(bend_per_m):
    class_map = field(5, Drawn(side_m=20, bend_per_m=bend_per_m))
    rows = find_rows(class_map, ground_of(class_map))
    assert rows.direction_deg is None
    assert rows.reason.startswith(("rows in several", "the direction", "rows are clear", "no dir"))


def test_two_directions_are_said_to_be_unclear_and_a_headland_is_not():
    north, east = (field(6, Drawn(side_m=16, direction_deg=d)) for d in (20, 110))
    half = np.where(np.arange(800) < 400, north, east).astype(np.uint8)
    rows = find_rows(half, ground_of(half))
    assert rows.direction_deg is None
    assert rows.reason.startswith("rows in several directions, such as ")
    headland = np.where(np.arange(800)[:, None] < 100, east, north).astype(np.uint8)
    rows = find_rows(headland, ground_of(headland))
    assert rows.direction_deg == pytest.approx(20, abs=0.5)


def test_a_closed_canopy_and_a_bare_field_are_said_to_be_so():
    closed = field(7, Drawn(radius_m=0.3))
    assert find_rows(closed, ground_of(closed)).reason
    bare = np.zeros((400, 400), np.uint8)
    assert find_rows(bare, ground_of(bare)).reason == "there is no crop in the class map"
    tiny = field(8, Drawn(side_m=0.2, pixel_m=0.01))
    assert "hold no 3 rows" in find_rows(tiny | 1, ground_of(tiny, 0.01)).reason


def test_in_degrees_the_direction_is_that_on_the_ground():
    """A mosaic in longitude and latitude has pixels that are narrower than high at 50 north."""
    flat = field(9, Drawn(direction_deg=35.0, side_m=16, radius_m=0.05))
    lat, lon, metres = 50.0, 9.0, 0.02
    down, across = metres / 111_229.0, metres / 71_695.0  # a metre in degrees there, WGS 84
    squeezed = np.repeat(flat, 2, axis=0)[:, ::1]
    ground = Ground(
        size=squeezed.shape,
        crs="EPSG:4326",
        metric_crs="EPSG:32632",
        transform=(across, 0.0, lon, 0.0, -down / 2, lat),
    )
    assert ground.mm_per_px() == pytest.approx(20 / math.sqrt(2), rel=0.01)
    rows = find_rows(squeezed, ground)
    assert rows.direction_deg == pytest.approx(35, abs=0.3)
    assert rows.spacing_m == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_rows_of_the_synthetic_farm_are_found_by_its_masks(seed):
    """Real leaf shapes; each photo is turned by up to 0.05 rad and its spacing drawn."""
    style = draw_style(seed, 0, 0)
    _, mask = draw_photo(np.random.default_rng(seed), style, (1600, 1600))
    rows = find_rows(mask, ground_of(mask, style.mm_per_px / 1e3))
    assert rows.reason == ""
    turned = turned_deg(rows.direction_deg, math.degrees(style.row_angle))
    turned = min(abs(turned), abs(turned_deg(-rows.direction_deg, math.degrees(style.row_angle))))
    assert turned <= math.degrees(0.05) + 1
    assert 0.95 * 0.15 * 1.1 <= rows.spacing_m <= 1.05 * 0.19 * 1.1


def test_plants_are_counted_across_parts_by_size_and_boundary():
    class_map = np.zeros((600, 600), np.uint8)
    for number in range(25):
        top, left = 20 + 120 * (number // 5), 20 + 120 * (number % 5)
        class_map[top : top + 40, left : left + 40] = 1  # 80 x 80 cm, cut by every border of 64
    class_map[590:592, 590:592] = 1
    ground = ground_of(class_map)
    assert find_rows(class_map, ground, part_px=(64, 64)).num_plants == 26
    found = find_rows(class_map, ground, RowOptions(min_plant_m2=0.01), part_px=(64, 64))
    assert (found.num_plants, found.min_plant_m2) == (25, 0.01)
    west = shapely.box(600_000, 5_599_988, 600_000 + 0.02 * 240, 5_600_000)
    assert find_rows(class_map, ground, boundary=west).num_plants == 10


def test_no_data_counts_for_nothing():
    class_map = field(10, Drawn(side_m=16, weeds=2000))
    cut = class_map.copy()
    cut[:, :300] = NO_DATA
    cut[np.add.outer(np.arange(800), np.arange(800)) > 1300] = NO_DATA
    rows = find_rows(cut, ground_of(cut))
    assert rows.direction_deg == pytest.approx(30, abs=0.3)
    weed = (cut == 2).sum() / (cut != NO_DATA).sum()
    found = sum(c.weed_share * c.ground_share for c in (rows.in_row, rows.between_rows))
    assert found == pytest.approx(weed, rel=0.02)


def _peak_bytes(num_bands):
    """Return the peak memory of finding the rows of a mosaic that is `num_bands` x 10 m long."""
    band = field(11, Drawn(side_m=10))
    ground = ground_of(np.broadcast_to(np.uint8(0), (500 * num_bands, 500)))
    finder = RowFinder(ground, DEFAULT_CLASSES)
    tracemalloc.start()
    try:
        for number in range(num_bands):
            for part in parts_of(band, 100, 500):
                window = part.window._replace(top=part.window.top + 500 * number)
                finder.add(MapPart(window, part.class_map, part.confidence))
        assert finder.finish().num_plants > 0
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_length_of_the_mosaic():
    assert _peak_bytes(12) <= 1.1 * _peak_bytes(3)


def test_a_full_disk_is_said_in_a_sentence(monkeypatch):
    full = open("/dev/full", "r+b", buffering=0)  # noqa: SIM115 - closed by the finder
    monkeypatch.setattr(row_blocks.tempfile, "TemporaryFile", lambda: full)
    class_map = field(12, Drawn())
    with pytest.raises(OutputError, match=r"temporary files in .* expected room for"):
        find_rows(class_map, ground_of(class_map))


@pytest.mark.parametrize(
    "wrong",
    [
        {"spacing_m": (0.5, 0.4)},
        {"spacing_m": (0.0, 0.4)},
        {"in_row_share": 0.0},
        {"in_row_share": 1.0},
        {"min_plant_m2": -1.0},
        {"min_plant_m2": math.nan},
    ],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        RowOptions(**wrong)


def test_windows_of_blocks_cover_the_mosaic_once():
    class_map = field(13, Drawn(side_m=19, pixel_m=0.013))
    blocks = row_blocks.RowBlocks(ground_of(class_map, 0.013), DEFAULT_CLASSES)
    finished = [b for part in parts_of(class_map, 333, 250) for b in blocks.add(part)]
    assert blocks.rest() == []
    seen = np.zeros((class_map.shape[0] + 4, class_map.shape[1] + 4), int)
    for block in finished:
        window = Window(*block.window)
        seen[window.top : window.top + window.height, window.left : window.left + window.width] += 1
    assert (seen[: class_map.shape[0], : class_map.shape[1]] == 1).all()
    assert sum(int(b.crop.sum()) for b in blocks.stored()) == (class_map == 1).sum()
    assert sum(int(b.valid.sum()) for b in blocks.stored()) == class_map.size
    blocks.close()
