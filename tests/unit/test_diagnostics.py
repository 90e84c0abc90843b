"""Counts of what selection hid."""

import numpy as np
import pytest

from weedseg.pretraining.diagnostics import MAX_LABELLED, SelectionLog, class_grids


class Masks:
    """Stands for a pool of masks; photo 1 cannot be read, photo 2 stands in."""

    def __init__(self, masks, bad=()):
        self.masks, self.bad, self.asked = masks, bad, []

    def readable(self, i):
        return i + 1 if i in self.bad else i

    def mask(self, i):
        self.asked.append(i)
        return self.masks[self.readable(i)]


def test_class_grids_hold_shares():
    mask = np.zeros((8, 10), np.uint8)
    mask[:4, :4] = 1
    mask[4:, :2] = 2
    mask[4:, 8:] = 255
    grid = class_grids(Masks([mask]), [0], 3, 4)[0]
    assert grid.shape == (2, 3, 3)
    assert grid[0, 0].tolist() == [0, 1, 0]
    assert grid[1, 0].tolist() == [0.5, 0, 0.5]
    assert grid[1, 2].tolist() == [0, 0, 0]
    assert grid[0, 2].tolist() == [1, 0, 0]


def test_an_unreadable_photo_does_not_lend_its_stand_in():
    masks = [np.zeros((8, 8), np.uint8), None, np.zeros((4, 4), np.uint8)]
    assert set(class_grids(Masks(masks, bad={1}), [0, 1, 2], 3, 4)) == {0, 2}


def test_at_most_fifty_masks_are_read():
    pool = Masks([np.zeros((4, 4), np.uint8)] * 80)
    assert len(class_grids(pool, list(range(80)), 3, 4)) == MAX_LABELLED == len(pool.asked)


def cells(*pairs):
    rows, columns = zip(*pairs)
    return np.array(rows), np.array(columns)


def test_class_shares_per_stage_against_their_base_rate():
    grid = np.zeros((2, 2, 2), np.float32)
    grid[..., 0] = 1
    grid[0, 1] = (0, 1)
    log = SelectionLog({0: grid}, 2, num_stages=3)
    tile = cells((0, 0), (0, 1), (1, 0), (1, 1))
    log.add(0, 0, tile, np.array([1, 0, 1, 0], bool), (2, 2))
    log.add(2, 0, tile, np.array([0, 1, 0, 0], bool), (2, 2))
    log.add(2, 9, tile, np.array([1, 1, 1, 1], bool), (2, 2))  # no mask: counted, not classed
    assert log.class_shares(("soil", "weed")) == [
        {"soil": {"hidden": 1.0, "base": 0.75}, "weed": {"hidden": 0.0, "base": 0.25}},
        {"soil": {"hidden": 0.0, "base": 0.75}, "weed": {"hidden": 1.0, "base": 0.25}},
    ]


def test_the_same_cell_twice_counts_twice():
    log = SelectionLog({}, 2, 1)
    log.add(0, 0, cells((0, 0), (0, 0), (1, 1)), np.array([1, 1, 1], bool), (2, 2))
    assert log.state_dict()["counts"][0].tolist() == [[2, 0], [0, 1]]


def test_entropy_tells_even_from_uneven():
    even, uneven = SelectionLog({}, 2, 1), SelectionLog({}, 2, 1)
    assert even.hidden_entropy() == 1
    tile = cells((0, 0), (0, 1), (1, 0), (1, 1))
    for _ in range(5):
        even.add(0, 0, tile, np.ones(4, bool), (2, 2))
        uneven.add(0, 0, tile, np.array([1, 0, 0, 0], bool), (2, 2))
    assert even.hidden_entropy() == pytest.approx(1)
    assert uneven.hidden_entropy() == 0


def test_counts_survive_a_checkpoint():
    grid = np.full((2, 2, 2), 0.5, np.float32)
    log, other = (SelectionLog({0: grid}, 2, 2) for _ in range(2))
    log.add(1, 0, cells((0, 0), (1, 1)), np.array([1, 0], bool), (2, 2))
    other.load_state_dict(log.state_dict())
    log.add(0, 0, cells((0, 0)), np.array([True]), (2, 2))  # must not reach the copy
    assert len(other.class_shares(("a", "b"))) == 1
    assert len(log.class_shares(("a", "b"))) == 2
