"""Tiling: stitching is the inverse of cutting, and the nearest tile centre wins."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weedseg.errors import TileError
from weedseg.tiles import cut, plan_tiles, stitch


@st.composite
def plans(draw):
    size = (draw(st.integers(1, 90)), draw(st.integers(1, 90)))
    tile_px = draw(st.integers(1, 40))
    overlap_px = draw(st.integers(0, tile_px - 1))
    origin = (draw(st.integers(-tile_px + 1, 0)), draw(st.integers(-tile_px + 1, 0)))
    return plan_tiles(size, tile_px, overlap_px, origin, draw(st.sampled_from([1, 4, 32])))


@settings(deadline=None)
@given(plan=plans(), channels=st.sampled_from([(), (3,)]))
def test_stitch_is_the_inverse_of_cut(plan, channels):
    shape = (*plan.size, *channels)
    image = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    tiles = [cut(plan, image, i) for i in range(len(plan.placements))]
    assert all(tile.shape == (plan.tile_px, plan.tile_px, *channels) for tile in tiles)
    np.testing.assert_array_equal(stitch(plan, tiles), image)


@settings(deadline=None)
@given(plan=plans())
def test_every_pixel_comes_from_the_nearest_tile_centre(plan):
    shape = (plan.tile_px, plan.tile_px)
    chosen = stitch(plan, [np.full(shape, i) for i in range(len(plan.placements))])
    tops = np.array([p.top for p in plan.placements])
    lefts = np.array([p.left for p in plan.placements])
    rows, columns = (np.arange(length) + 0.5 for length in plan.size)
    down = np.abs(rows[:, None] - (tops + plan.tile_px / 2))
    right = np.abs(columns[:, None] - (lefts + plan.tile_px / 2))
    num_rows, num_columns = plan.size
    row_of, column_of = np.arange(num_rows)[:, None], np.arange(num_columns)[None, :]
    # A border may lie half a pixel off where the distance between centres is odd.
    assert np.all(down[row_of, chosen] <= down.min(axis=1)[:, None] + 1)
    assert np.all(right[column_of, chosen] <= right.min(axis=1)[None, :] + 1)


@settings(deadline=None)
@given(plan=plans())
def test_kept_parts_cover_every_pixel_once(plan):
    count = np.zeros(plan.size, int)
    for placement in plan.placements:
        _, _, top, bottom, left, right = placement
        count[top:bottom, left:right] += 1
    assert np.all(count == 1)


@given(
    length=st.integers(1, 3000),
    tile_px=st.sampled_from([32, 256, 512]),
    overlap_share=st.floats(0, 0.5),
    grid_px=st.sampled_from([1, 32]),
)
def test_neighbours_overlap_as_much_as_asked(length, tile_px, overlap_share, grid_px):
    overlap_px = int(tile_px * overlap_share)
    plan = plan_tiles((length, tile_px), tile_px, overlap_px, grid_px=grid_px)
    tops = [p.top for p in plan.placements]
    assert tops[0] == 0
    assert tops[-1] + tile_px >= length
    assert all(a + tile_px - b >= overlap_px for a, b in itertools.pairwise(tops))


@given(length=st.integers(1, 3000), shift=st.integers(-511, 0))
def test_tiles_lie_on_the_grid_at_no_cost(length, shift):
    plain = plan_tiles((length, 512), 512, 64)
    plan = plan_tiles((length, 512), 512, 64, grid_px=32)
    assert len(plan.placements) == len(plain.placements)
    shifted = plan_tiles((length, 512), 512, 64, (shift, shift), 32)
    assert all(
        p.top % 32 == 0 and p.left % 32 == 0 for p in (*plan.placements, *shifted.placements)
    )


def test_a_small_photo_gets_one_tile_that_repeats_its_edge():
    plan = plan_tiles((1, 1), 8, 2)
    assert len(plan.placements) == 1
    assert np.all(cut(plan, np.full((1, 1, 3), 7, np.uint8), 0) == 7)


def test_a_whole_tile_is_a_view():
    image = np.zeros((64, 64, 3), np.uint8)
    assert np.shares_memory(cut(plan_tiles((64, 64), 64), image, 0), image)


def test_impossible_plans_are_refused():
    with pytest.raises(TileError, match="overlap of 8 px; expected 0 to 7 px"):
        plan_tiles((20, 20), 8, 8)
    with pytest.raises(TileError, match="at least 1x1 px"):
        plan_tiles((0, 20), 8)
    plan = plan_tiles((20, 20), 8)
    with pytest.raises(TileError, match="make a new plan"):
        cut(plan, np.zeros((20, 21)), 0)
    with pytest.raises(TileError, match="no tiles"):
        stitch(plan, [])
