import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weedseg.classes import DEFAULT_CLASSES
from weedseg.edge import Boom, Result, Status, decide
from weedseg.edge.boom import cell_shares, opening_times
from weedseg.errors import ConfigError, ImageError

SIZES = st.tuples(st.integers(1, 60), st.integers(1, 60))
BOOMS = st.builds(
    Boom,
    mm_per_px=st.floats(0.5, 2.0),
    nozzle_mm=st.floats(2.0, 90.0),
    cell_mm=st.floats(2.0, 90.0),
    min_weed_share=st.floats(0.001, 1.0),
)


def ok(class_map, **others):
    values = {"status": Status.OK, "captured_s": 10.0, "valid_until_s": 10.2} | others
    full = np.full(class_map.shape, 90, np.uint8)
    return Result(**{"class_map": class_map, "confidence": full, "coverage": {}} | values)


@settings(max_examples=150, deadline=None)
@given(SIZES, BOOMS, st.integers(0, 2**31))
def test_every_pixel_lies_in_one_cell(size, boom, seed):
    chosen = np.random.default_rng(seed).random(size) < 0.3
    rows, columns = boom.borders(size)
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (0, size[0], 0, size[1])
    assert (np.diff(rows) > 0).all()
    assert (np.diff(columns) > 0).all()
    shares = cell_shares(chosen, boom)
    counts = shares * np.outer(np.diff(rows), np.diff(columns))
    np.testing.assert_allclose(counts.sum(), chosen.sum())
    for r, c in np.ndindex(shares.shape):
        cell = chosen[rows[r] : rows[r + 1], columns[c] : columns[c + 1]]
        assert shares[r, c] == pytest.approx(cell.mean())


@settings(max_examples=100, deadline=None)
@given(SIZES, BOOMS, st.integers(0, 2**31))
def test_more_weed_never_shuts_a_nozzle(size, boom, seed):
    rng = np.random.default_rng(seed)
    class_map = rng.integers(0, 3, size, dtype=np.uint8)
    more = class_map.copy()
    more[rng.random(size) < 0.2] = 2
    less_treated = decide(ok(class_map), boom, DEFAULT_CLASSES, 10.1).treat
    assert not (less_treated & ~decide(ok(more), boom, DEFAULT_CLASSES, 10.1).treat).any()


def test_one_weed_opens_one_nozzle():
    boom = Boom(mm_per_px=1.0, nozzle_mm=50.0, cell_mm=60.0, min_weed_share=0.01)
    class_map = np.zeros((180, 200), np.uint8)
    class_map[70:80, 110:120] = 2
    decision = decide(ok(class_map), boom, DEFAULT_CLASSES, 10.1)
    assert decision.treat.shape == (3, 4)
    assert np.argwhere(decision.treat).tolist() == [[1, 2]]
    assert decision.weed_share[1, 2] == pytest.approx(100 / 3000)


def test_crop_and_confidence_can_spare_a_cell():
    class_map = np.zeros((60, 60), np.uint8)
    class_map[:30], class_map[50:] = 1, 2
    geometry = {"mm_per_px": 1.0, "nozzle_mm": 60.0, "cell_mm": 60.0}
    for others, treated in (({}, True), ({"max_crop_share": 0.4}, False)):
        boom = Boom(**geometry, **others)
        assert decide(ok(class_map), boom, DEFAULT_CLASSES, 10.1).treat.all() == treated
    unsure = Boom(**geometry, min_confidence=95)
    assert not decide(ok(class_map), unsure, DEFAULT_CLASSES, 10.1).treat.any()


@pytest.mark.parametrize("status", [Status.DEGRADED, Status.INVALID])
def test_only_ok_treats(status):
    weed = np.full((10, 10), 2, np.uint8)
    boom = Boom(mm_per_px=1.0, nozzle_mm=5.0, cell_mm=5.0)
    assert decide(ok(weed), boom, DEFAULT_CLASSES, 10.1).treat.all()
    assert not decide(ok(weed, status=status), boom, DEFAULT_CLASSES, 10.1).treat.any()
    for now_s in (9.9, 10.3, math.nan):
        assert not decide(ok(weed), boom, DEFAULT_CLASSES, now_s).treat.any()


def test_rows_open_when_they_pass():
    boom = Boom(mm_per_px=1.0, nozzle_mm=50.0, cell_mm=60.0, bottom_to_nozzles_mm=200.0)
    times = opening_times(boom, (120, 100), 5.0, 2000.0)  # 7.2 km/h: 60 mm pass in 30 ms
    np.testing.assert_allclose(times, [[5.13, 5.16], [5.10, 5.13]])
    for speed in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="speed"):
            opening_times(boom, (120, 100), 5.0, speed)


@pytest.mark.parametrize(
    "values",
    [{"mm_per_px": 0.0}, {"nozzle_mm": 0.5}, {"min_weed_share": 0.0}, {"cell_mm": math.nan}],
)
def test_odd_booms_are_refused(values):
    with pytest.raises(ConfigError):
        Boom(**{"mm_per_px": 1.0, "nozzle_mm": 50.0, "cell_mm": 60.0} | values)


def test_a_frame_without_pixels_is_refused():
    boom = Boom(mm_per_px=1.0, nozzle_mm=50.0, cell_mm=60.0)
    with pytest.raises(ImageError):
        cell_shares(np.zeros((0, 0), bool), boom)
