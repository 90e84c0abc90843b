"""Scores from errors made by hand: no network."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weedseg.data.augment import Cut, take_cut
from weedseg.pretraining import patches, scoring
from weedseg.pretraining.step_errors import StepErrors

grids = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(deadline=None)
@given(grid=grids, share=st.floats(0.1, 0.9), seed=st.integers(0, 99))
def test_complementary_masks_hide_each_patch_exactly_once(grid, share, seed):
    hidden = scoring.complementary_masks(np.random.default_rng(seed), grid, share)
    assert hidden.shape == (max(round(1 / share), 2), *grid)
    assert (hidden.sum(0) == 1).all()
    counts = hidden.sum((1, 2))
    assert counts.max() - counts.min() <= 1


@settings(deadline=None)
@given(grid=grids, share=st.floats(0.05, 0.95), num=st.integers(1, 6), seed=st.integers(0, 99))
def test_random_masks_hide_the_exact_number(grid, share, num, seed):
    hidden = scoring.random_masks(np.random.default_rng(seed), grid, share, num)
    assert hidden.shape == (num, *grid)
    assert (hidden.sum((1, 2)) == round(share * grid[0] * grid[1])).all()


def test_only_the_error_of_a_hidden_patch_counts():
    errors = np.array([[[1, 2], [3, 4]], [[10, 20], [30, 40]]], np.float32)
    hidden = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]]], bool)
    merged = scoring.combine(errors, hidden, hidden_only=True)
    assert merged.tolist() == [[1, 20], [30, 4]]
    assert merged.dtype == np.float32


def test_the_published_way_averages_over_all_masks():
    errors = np.array([[[1, 2]], [[10, 20]]], np.float32)
    hidden = np.array([[[1, 0]], [[0, 1]]], bool)
    assert scoring.combine(errors, hidden, hidden_only=False).tolist() == [[5.5, 11]]


def test_a_patch_never_hidden_gets_the_mean_of_the_others():
    errors = np.array([[[1, 3, 99]], [[99, 5, 99]]], np.float32)
    hidden = np.array([[[1, 1, 0]], [[0, 1, 0]]], bool)
    assert scoring.combine(errors, hidden, hidden_only=True).tolist() == [[1, 4, 3]]


def test_glare_ranks_below_every_usable_patch():
    scores = np.arange(12, dtype=np.float32).reshape(3, 4)
    usable = np.ones((3, 4), np.float32)
    usable[2, 3] = 0.4
    ranks = scoring.reducible(scores, np.full((3, 4), 0.2, np.float32), usable)
    assert ranks[2, 3] == 0
    usable[2] = 0.0
    ranks = scoring.reducible(scores, np.full((3, 4), 0.2, np.float32), usable)
    assert ranks[2].max() < ranks[:2].min()


def test_a_photo_of_glare_alone_has_no_hard_patch():
    ranks = scoring.reducible(np.ones((2, 2)), np.ones((2, 2)), np.zeros((2, 2)))
    assert len(np.unique(ranks)) == 1
    assert np.isfinite(ranks).all()


def test_high_contrast_is_no_merit():
    """Twice the error on four times the contrast is the lesser one, whatever the floor."""
    contrast = np.array([[0.1, 0.4, 0.1]], np.float32)
    scores = np.array([[1.0, 1.7, 0.5]], np.float32)
    ranks = scoring.reducible(scores, contrast, np.ones((1, 3), np.float32))
    assert scores[0, 1] / math.sqrt(0.45) < scores[0, 0] / math.sqrt(0.15)
    assert ranks[0, 0] > ranks[0, 1] > ranks[0, 2]


def test_the_highest_five_per_cent_are_cut_to_one_level():
    scores = np.arange(100, dtype=np.float32).reshape(10, 10)
    ranks = scoring.reducible(scores, np.ones((10, 10)), np.ones((10, 10)))
    flat = ranks.ravel()
    assert len(set(flat[95:].tolist())) == 1
    assert len(set(flat[:95].tolist())) == 95
    assert flat[95] > flat[94]


def test_outliers_do_not_shift_the_rest():
    scores = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    wild = scores.copy()
    wild[9, 9] = 1e6
    ones = np.ones((10, 10))
    before, after = (scoring.reducible(s, ones, ones).ravel() for s in (scores, wild))
    assert before[:94].tolist() == after[:94].tolist()


def test_equal_values_share_the_mean_of_their_ranks():
    assert scoring.ranks(np.array([[3, 1, 3, 0]])).tolist() == [
        [pytest.approx(5 / 6)] * 1 + [pytest.approx(1 / 3), pytest.approx(5 / 6), 0.0]
    ]
    assert scoring.ranks(np.array([[7]])).tolist() == [[0.0]]


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=30))
def test_ranks_keep_the_order(values):
    array = np.array([values], np.float32)
    ranks = scoring.ranks(array)[0]
    assert ranks.min() >= 0
    assert ranks.max() <= 1
    assert np.mean(ranks) == pytest.approx(0.5, abs=1e-6)
    for a, b, rank_a, rank_b in zip(values, values[1:], ranks, ranks[1:]):
        assert (a < b) == (rank_a < rank_b)


def test_contrast_and_usable_describe_patches():
    photo = torch.full((1, 3, 8, 8), 0.5)
    photo[:, :, :4, :4] = 1.0  # glare
    photo[:, :, 4:, :4] = 0.0  # dead
    photo[:, :, 4:, 4::2] = 0.3
    contrast, usable = scoring.contrast_and_usable(photo, 4)
    assert usable.tolist() == [[0, 1], [0, 1]]
    np.testing.assert_allclose(contrast, [[0, 0], [0, 0.1]], atol=1e-3)


def test_gradient_energy_finds_the_edge():
    photo = torch.zeros(1, 3, 8, 8)
    photo[:, :, :, 6:] = 1.0
    energy = scoring.gradient_energy(photo, 4)
    assert energy[:, 0].tolist() == [0, 0]
    assert (energy[:, 1] > 0).all()


def test_the_error_map_is_where_the_error_is():
    target = torch.rand(1, 3, 48, 50, generator=torch.Generator().manual_seed(0))
    found = target.clone()
    found[:, :, :16, :16] = 0.5
    for low_pass in (False, True):
        error = scoring.error_map(found, target, low_pass)
        assert error.shape == (1, 48, 50)
        pooled = patches.pool(error, 16)[0]
        assert pooled.argmax() == 0
        assert pooled[2:, 2:].abs().max() < 1e-5
        assert error.min() > -1e-5


def test_low_pass_forgives_fine_texture():
    checks = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    target = (0.4 + 0.2 * checks).expand(1, 3, 32, 32)
    found = torch.full_like(target, 0.5)
    assert scoring.error_map(found, target, "reducible").abs().max() < 1e-3
    assert scoring.error_map(found, target, "structure").min() > 0.1


def test_the_error_of_colour_does_not_see_brightness():
    target = torch.full((1, 3, 32, 32), 0.4)
    brighter, greener = target + 0.2, target.clone()
    greener[:, 1] += 0.3
    assert scoring.error_map(brighter, target, "colour").abs().max() < 1e-6
    found = scoring.error_map(greener, target, "colour")
    assert found.shape == (1, 32, 32)
    assert torch.allclose(found, torch.tensor(0.4 / 3), atol=1e-6)


def test_steps_give_every_patch_the_mean_of_what_they_measured():
    measured = StepErrors()
    at = (np.array([0, 0, 1]), np.array([0, 1, 0]))
    measured.add(3, (2, 3), at, np.array([2.0, 4.0, 6.0], np.float32))
    measured.add(3, (2, 3), (np.array([0]), np.array([0])), np.array([9.0], np.float32))
    measured.add(5, (2, 3), at, np.array([1.0, np.nan, 1.0], np.float32))
    found = measured.gathered()
    assert found.keys() == {3}
    # Each tile is divided by its mean: 2, 4, 6 by 4 and 9 by 9.
    assert found[3][0, 0] == pytest.approx((0.5 + 1) / 2)
    assert found[3][0, 1] == 1
    assert found[3][1, 0] == 1.5
    assert found[3][1, 1] == pytest.approx((0.5 + 1 + 1 + 1.5) / 4)  # what lies around it
    assert found[3][0, 2] == pytest.approx(1)
    measured.add(3, (2, 3), at, np.array([1.0, 1.0, 1.0], np.float32))
    assert measured.gathered()[3][1, 0] == pytest.approx((1.5 / 2 + 1) / 1.5)  # older ones fade


@pytest.mark.parametrize("side", [64, 48])
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
def test_the_cache_is_read_in_photo_coordinates(side, turns, flips):
    """A photo painted with its own scores: a tile must be told what it shows."""
    grid = np.arange(64, dtype=np.float32).reshape(8, 8)
    painted = np.repeat(np.repeat(grid, 16, 0), 16, 1).astype(np.uint8)
    cache = scoring.ScoreCache(16)
    cache.put(3, grid, stage=1)
    cut = Cut(top=39, left=51, side=side, flip_h=flips[0], flip_v=flips[1], rot90=turns)
    tile = take_cut(painted, cut, 64, nearest=True)
    centres = patches.centres(cut, 64, 16)
    found = cache.lookup(3, centres[..., 0], centres[..., 1])
    assert found.tolist() == tile[8::16, 8::16].tolist()
    assert cache.lookup(4, centres[..., 0], centres[..., 1]) is None


def test_positions_beyond_the_photo_read_its_border():
    cache = scoring.ScoreCache(16)
    cache.put(0, np.array([[1, 2], [3, 4]], np.float32), stage=1)
    rows, columns = np.array([-40.0, 90.0]), np.array([5.0, 200.0])
    assert cache.lookup(0, rows, columns).tolist() == [1, 4]


def test_the_cache_survives_a_checkpoint():
    cache = scoring.ScoreCache(16)
    cache.put(7, np.random.default_rng(0).random((3, 5)), stage=2)
    restored = scoring.ScoreCache(16)
    restored.load_state_dict(cache.state_dict())
    assert restored.stages == {7: 2}
    assert restored.grids[7].tobytes() == cache.grids[7].tobytes()


def test_only_scores_from_before_a_stage_are_found_while_it_is_scored():
    cache = scoring.ScoreCache(16)
    at = np.array([3.0])
    assert cache.lookup(0, at, at, before=1) is None
    cache.put(0, np.array([[1.0]]), stage=1)
    assert cache.lookup(0, at, at, before=1) is None
    assert cache.lookup(0, at, at, before=2).tolist() == [1]
    cache.put(0, np.array([[2.0]]), stage=2)
    assert cache.lookup(0, at, at, before=2).tolist() == [1]
    assert cache.lookup(0, at, at).tolist() == cache.lookup(0, at, at, before=3).tolist() == [2]
    restored = scoring.ScoreCache(16)
    restored.load_state_dict(cache.state_dict())
    assert restored.lookup(0, at, at, before=2).tolist() == [1]


def test_all_glare_ranks_lowest_however_much_there_is_of_it():
    scores = np.arange(12, dtype=np.float32).reshape(3, 4)
    usable = np.ones((3, 4), np.float32)
    usable[1:] = 0.4
    found = scoring.reducible(scores, np.full((3, 4), 0.2, np.float32), usable)
    assert (found[1:] == 0).all()
    assert (found[0] > 0.6).all()


# --- controls ------------------------------------------------------------------------------------


def test_vegetation_is_where_green_is():
    target = torch.full((1, 3, 32, 48), 0.4)
    target[:, 1, :16, 16:32] = 0.9
    found = scoring.vegetation(target, 16)
    assert found.shape == (2, 3)
    assert np.unravel_index(found.argmax(), found.shape) == (0, 1)
    assert found[1, 2] == pytest.approx(0, abs=1e-6)


def test_structured_noise_comes_in_blobs_and_differs_each_time():
    rng = np.random.default_rng(0)
    fields = [scoring.structured_noise(rng, (16, 16)) for _ in range(200)]
    white = [scoring.ranks(rng.random((16, 16)).astype(np.float32)) for _ in range(200)]

    def neighbours(grids):
        return np.mean([np.corrcoef(g[:, 1:].ravel(), g[:, :-1].ravel())[0, 1] for g in grids])

    assert neighbours(fields) > 0.4
    assert abs(neighbours(white)) < 0.05
    hidden = np.mean([field > 0.5 for field in fields], 0)
    assert 0.3 < hidden.min() <= hidden.max() < 0.7  # no place is favoured


@given(order=st.sampled_from(["hardest", "easiest", "shuffled"]), seed=st.integers(0, 99))
def test_orders_move_scores_and_change_none(order, seed):
    rng = np.random.default_rng(seed)
    scores = scoring.ranks(rng.random((5, 7)).astype(np.float32))
    found = scoring.ordered(scores, order, rng)
    assert sorted(found.ravel()) == pytest.approx(sorted(scores.ravel()))
    if order == "easiest":
        assert (found.ravel().argsort() == scores.ravel().argsort()[::-1]).all()
    assert (found == scores).all() == (order == "hardest")
