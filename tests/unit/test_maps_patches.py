"""Patches found part by part against one labelling of the whole raster."""

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import example, given, settings
from hypothesis import strategies as st

from weedseg.data.mosaics import Window
from weedseg.errors import TileError
from weedseg.maps.patches import PatchFinder


def cut(rng, size, most):
    """Yield windows row by row, each row cut at other columns."""
    top = 0
    while top < size[0]:
        tall = min(int(rng.integers(1, most + 1)), size[0] - top)
        left = 0
        while left < size[1]:
            wide = min(int(rng.integers(1, most + 1)), size[1] - left)
            yield Window(top, left, tall, wide)
            left += wide
        top += tall


def by_parts(weed, windows, least_px=1):
    finder = PatchFinder(weed.shape[1])
    found = []
    for window in windows:
        top, left, height, width = window
        part = np.ascontiguousarray(weed[top : top + height, left : left + width])
        found.append(finder.add(window, part, least_px))
    found.append(finder.finish(least_px))
    return sorted(zip(*(np.concatenate(values).tolist() for values in zip(*found))))


def at_once(weed, least_px=1):
    labels, number = scipy.ndimage.label(weed, np.ones((3, 3)))
    rows, columns = np.nonzero(weed)
    label = labels[rows, columns]
    num_px, *sums = (np.bincount(label, w, number + 1)[1:] for w in (None, rows, columns))
    middles = [(total / num_px + 0.5).tolist() for total in sums]
    return sorted(found for found in zip(num_px.tolist(), *middles) if found[0] >= least_px)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    share=st.floats(0, 1),
    most=st.integers(2, 15),
    least_px=st.integers(1, 5),
)
@example(seed=0, size=(20, 20), share=0.4, most=1, least_px=1)
@example(seed=1, size=(40, 40), share=0.55, most=3, least_px=1)
def test_patches_are_those_of_the_whole_raster(seed, size, share, most, least_px):
    rng = np.random.default_rng(seed)
    weed = (rng.random(size) < share).astype(np.uint8)
    assert by_parts(weed, cut(rng, size, most), least_px) == at_once(weed, least_px)


@pytest.mark.parametrize("shape", ["frame", "comb", "checks", "full"])
@pytest.mark.parametrize("most", [1, 4, 13])
def test_long_patches_stay_whole(shape, most):
    weed = np.zeros((30, 23), np.uint8)
    if shape == "frame":
        weed[[0, -1]] = weed[:, [0, -1]] = 1
    elif shape == "comb":  # teeth that meet in the last row only
        weed[:, ::2] = weed[-1] = 1
    elif shape == "checks":  # corner to corner
        weed[::2, ::2] = weed[1::2, 1::2] = 1
    else:
        weed[:] = 1
    windows = cut(np.random.default_rng(most), weed.shape, most)
    found = by_parts(weed, windows)
    assert len(found) == 1
    assert found == at_once(weed)


def test_where_a_part_is_left_out_nothing_touches():
    weed = np.ones((30, 30), np.uint8)
    windows = [Window(t, x, 10, 10) for t in (0, 10, 20) for x in (0, 10, 20)]
    ring = [w for w in windows if w != Window(10, 10, 10, 10)]
    assert [num_px for num_px, *_ in by_parts(weed, ring)] == [800]
    stripes = [w for w in windows if w.top != 10]
    assert [num_px for num_px, *_ in by_parts(weed, stripes)] == [300, 300]
    weed[20:, 14:17] = 0  # two patches below the gap, one above it
    assert [num_px for num_px, *_ in by_parts(weed, stripes)] == [130, 140, 300]
    weed[:] = 1
    columns = [w for w in windows if w.left != 10]
    assert [num_px for num_px, *_ in by_parts(weed, columns)] == [300, 300]


def test_patches_come_as_soon_as_they_are_whole():
    weed = np.zeros((40, 10), np.uint8)
    weed[2:4, 2:4] = weed[12:25, 5] = 1
    finder = PatchFinder(10)
    windows = [Window(top, 0, 10, 10) for top in range(0, 40, 10)]
    found = [finder.add(w, weed[w.top : w.top + 10], 1).num_px.tolist() for w in windows]
    assert found == [[4], [], [], [13]]
    assert finder.finish(1).num_px.tolist() == []


@pytest.mark.parametrize(
    "second",
    [
        Window(0, 0, 10, 10),  # twice
        Window(0, 5, 10, 10),  # over the first
        Window(0, 10, 9, 10),  # another height
        Window(5, 0, 10, 10),  # over the first, below
    ],
)
def test_parts_out_of_order_are_refused(second):
    finder = PatchFinder(20)
    finder.add(Window(0, 0, 10, 10), np.ones((10, 10), np.uint8), 1)
    with pytest.raises(TileError, match="parts row by row"):
        finder.add(second, np.ones((second.height, second.width), np.uint8), 1)
