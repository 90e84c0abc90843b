"""Which photos to label first."""

import numpy as np

from weedseg.pretraining.label_first import THUMBNAIL_PX, choose, thumbnail


class Photos:
    """Stands for a pool: each photo is of one colour."""

    def __init__(self, greys):
        self.greys = greys

    def image(self, i):
        return np.full((20, 30, 3), self.greys[i], np.uint8)


def chosen(greys, errors, num):
    found = choose(Photos(greys), dict(enumerate(errors)), num)
    return [candidate.photo for candidate in found]


def test_the_hardest_comes_first_then_the_most_different():
    greys = [0, 10, 20, 250, 128, 5] + [0] * 12
    errors = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4] + [0.1] * 12
    assert chosen(greys, errors, 3) == [0, 3, 4]


def test_easy_photos_are_not_chosen_however_different():
    greys = [10, 20, 30, 40, 50, 60, 255, 0, 255]
    errors = [0.9, 0.8, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    assert set(chosen(greys, errors, 3)) == {0, 1, 2}


def test_copies_are_not_chosen_twice():
    assert chosen([7, 7, 7, 90], [0.9, 0.8, 0.7, 0.6], 4) == [0, 3]


def test_fewer_photos_than_asked_for():
    assert chosen([1, 2], [0.1, 0.2], 10) == [1, 0]


def test_nothing_to_choose_from():
    assert choose(Photos([]), {}, 10) == []
    assert chosen([1], [0.5], 0) == []


def test_errors_are_kept_and_ties_broken_by_number():
    first = choose(Photos([0, 50, 99]), {2: 0.5, 0: 0.5, 1: 0.5}, 1)[0]
    assert (first.photo, first.mean_hidden_error) == (0, 0.5)


def test_thumbnails_keep_their_shape():
    assert thumbnail(np.zeros((600, 1200, 3), np.uint8)).shape == (120, THUMBNAIL_PX, 3)
    assert thumbnail(np.zeros((50, 20, 3), np.uint8)).shape == (50, 20, 3)
    assert thumbnail(np.zeros((5000, 3, 3), np.uint8)).shape == (THUMBNAIL_PX, 1, 3)
