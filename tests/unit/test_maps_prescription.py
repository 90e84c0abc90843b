"""Prescriptions computed by hand on small fields, and what holds for all of them."""

import numpy as np
import pytest
from cell_maps import TRUSTED, UNTESTED, options, picture, weed_map
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from weedseg.errors import ConfigError, FieldDataError, PrescriptionError
from weedseg.maps.prescription import PrescriptionOptions, RateStep, prescribe
from weedseg.maps.trust import Trust

FIVE = [
    [0, 0, 0, 0, 0],
    [0, 5, 0, 3, 0],
    [0, 0, 0, 0, 0],
    [1, 0, 0, 0, 0],
    [0, 0, 0, 0, 9],
]


def treated(cover, chosen, trust=TRUSTED, **others):
    """Prescribe and return the rates as a picture, in l/ha."""
    found = weed_map(cover, **others)
    return picture(found, prescribe(found, chosen, trust).rate).tolist()


def test_cells_over_the_threshold_are_treated():
    assert treated(FIVE, options()) == [
        [0, 0, 0, 0, 0],
        [0, 200, 0, 200, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 200],
    ]


def test_the_threshold_itself_counts_and_steps_give_their_rates():
    assert treated([[0.99, 1, 4.99, 5, 100]], options((1, 100), (5, 250))) == [
        [0, 100, 100, 250, 250]
    ]


def test_a_buffer_takes_in_cells_closer_than_it():
    near = [
        [200, 200, 200, 0, 0],
        [200, 200, 200, 0, 0],
        [200, 200, 200, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    cover = np.zeros((4, 5))
    cover[1, 1] = 10
    assert treated(cover, options(buffer_m=0.5)) == near
    assert treated(cover, options(buffer_m=3.0)) == near  # the next outlines are 3 m away
    assert treated(cover, options(buffer_m=3.1)) == [
        [200, 200, 200, 200, 0],
        [200, 200, 200, 200, 0],
        [200, 200, 200, 200, 0],
        [200, 200, 200, 0, 0],  # the corner is 4.2 m away
    ]


def test_a_buffer_counts_metres_not_cells():
    cover = np.zeros((5, 5))
    cover[2, 2] = 10
    got = np.array(treated(cover, options(buffer_m=2.5), cell_m=(1.0, 6.0))) > 0
    assert got.all(axis=1).tolist() == [False] * 5
    assert got[:, 2].all()
    assert got[:, 1].all()
    assert not got[:, 0].any()


def test_a_buffer_gives_the_highest_rate_around():
    assert treated([[0, 1, 0, 0, 5]], options((1, 100), (5, 250), buffer_m=1)) == [
        [100, 100, 100, 250, 250]
    ]


def test_short_gaps_are_closed_along_and_across():
    assert treated(FIVE, options(merge_m=2.9)) == treated(FIVE, options())
    assert treated(FIVE, options(merge_m=3)) == [
        [0, 0, 0, 0, 0],
        [0, 200, 200, 200, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 200],
    ]
    column = np.array([[9, 0, 0, 9, 0]]).T
    assert np.ravel(treated(column, options(merge_m=6))).tolist() == [200, 200, 200, 200, 0]
    assert np.ravel(treated(column, options(merge_m=3))).tolist() == [200, 0, 0, 200, 0]
    # cells are 1 m long and 6 m wide: one gap of 2 m along the heading
    assert np.ravel(treated(column, options(merge_m=2), cell_m=(1, 6))).sum() == 800


def test_a_gap_gets_the_lower_rate_of_its_ends():
    assert treated([[5, 0, 1, 0, 5]], options((1, 100), (5, 250), merge_m=3)) == [
        [250, 100, 100, 100, 250]
    ]
    assert treated([[5, 0, 1, 0, 5]], options((1, 100), (5, 250), merge_m=9)) == [[250] * 5]


def test_lonely_small_patches_are_dropped():
    cover = [
        [9, 0, 0, 0, 0],
        [0, 9, 0, 0, 9],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    only_large = [[200, 0, 0, 0, 0], [0, 200, 0, 0, 0], [0] * 5, [0] * 5]
    assert treated(cover, options(min_patch_m2=9)) == treated(cover, options())
    assert treated(cover, options(min_patch_m2=18)) == only_large  # they touch at a corner
    assert np.sum(treated(cover, options(min_patch_m2=18.1))) == 0


def test_a_buffer_makes_no_patch_larger_but_joins_neighbours():
    cover = [[9, 0, 0, 9, 0, 0, 0, 0, 0, 9]]
    chosen = options(buffer_m=1, min_patch_m2=18)
    assert treated(cover, chosen) == [[200, 200, 200, 200, 200, 0, 0, 0, 0, 0]]


def test_ground_without_data_is_neither_treated_nor_counted():
    nothing = np.nan
    found = weed_map([[9, nothing, 9]])
    prescription = prescribe(found, options(merge_m=3, buffer_m=1), TRUSTED)
    assert prescription.rate.tolist() == [200, 200]
    assert prescription.savings().field_m2 == 18


def test_savings_are_those_of_the_ground_that_was_seen():
    found = weed_map([[5, 1, 0, 0]], cell_m=(10, 10), seen=[[1, 0.5, 1, 1]])
    saved = prescribe(found, options((1, 100), (5, 200)), TRUSTED).savings()
    assert saved.field_m2 == pytest.approx(350)
    assert saved.treated_m2 == pytest.approx(150)
    assert saved.broadcast_l == pytest.approx(7.0)  # 0.035 ha x 200 l/ha
    assert saved.prescribed_l == pytest.approx(2.5)  # 0.01 x 200 + 0.005 x 100
    values = saved.to_dict()
    assert values["saved_l"] == pytest.approx(4.5)
    assert values["saved_area_percent"] == pytest.approx(100 * 200 / 350)
    assert values["saved_volume_percent"] == pytest.approx(100 * 4.5 / 7)
    assert values["field_ha"] == pytest.approx(0.035)
    against = prescribe(found, options((1, 100), (5, 200), broadcast_rate=300), TRUSTED).savings()
    assert against.broadcast_l == pytest.approx(10.5)


# --- refusals ----------------------------------------------------------------------------------


def test_an_untested_model_is_refused_and_said_when_forced():
    with pytest.raises(PrescriptionError, match="untested on this crop: here grows maize; exp"):
        prescribe(weed_map(FIVE), options(), UNTESTED)
    forced = prescribe(weed_map(FIVE), options(force=True), UNTESTED)
    assert forced.forced
    assert forced.note == "untested on this crop: here grows maize; this prescription was forced"
    assert forced.treat.sum() == 3


def test_a_threshold_below_the_false_weed_cover_is_refused():
    low = options((0.04, 100), (5, 200))
    with pytest.raises(PrescriptionError, match=r"0\.040% .* below the 0\.050% .*60 photos.*raise"):
        prescribe(weed_map(FIVE), low, TRUSTED)
    forced = prescribe(weed_map(FIVE), options((0.04, 100), force=True), TRUSTED)
    assert forced.forced
    assert "forced although the threshold of 0.040%" in forced.note
    at_it = prescribe(weed_map(FIVE), options((0.05, 100)), TRUSTED)
    assert not at_it.forced
    assert at_it.sentences == (TRUSTED.note,)


def test_an_unknown_false_weed_cover_is_refused():
    unknown = Trust(evaluated=True, note="evaluated")
    with pytest.raises(PrescriptionError, match="weed-free ground is unknown"):
        prescribe(weed_map(FIVE), options(), unknown)
    assert prescribe(weed_map(FIVE), options(force=True), unknown).forced


def test_force_without_need_forces_nothing():
    assert not prescribe(weed_map(FIVE), options(force=True), TRUSTED).forced


def test_a_map_without_ground_is_refused():
    with pytest.raises(FieldDataError, match="no cell with data"):
        prescribe(weed_map([[np.nan]]), options(), TRUSTED)


@pytest.mark.parametrize(
    ("steps", "others", "says"),
    [
        ((), {}, "0 rate steps"),
        (((-0.01, 100),), {}, "threshold of -1 %"),
        (((1.01, 100),), {}, "threshold of 101 %"),
        (((float("nan"), 100),), {}, "threshold of nan"),
        (((0.02, 0),), {}, "rate of 0 l/ha"),
        (((0.02, 5001),), {}, "rate of 5001 l/ha"),
        (((0.02, float("inf")),), {}, "rate of inf"),
        (((0.02, 200), (0.02, 300)), {}, "rising thresholds"),
        (((0.02, 200), (0.05, 100)), {}, "rates that do not fall"),
        (((0.02, 200),), {"buffer_m": -1}, "buffer_m is -1"),
        (((0.02, 200),), {"merge_m": float("inf")}, "merge_m is inf"),
        (((0.02, 200),), {"min_patch_m2": float("nan")}, "min_patch_m2 is nan"),
        (((0.02, 200),), {"isoxml_cell_m": 0.01}, "isoxml_cell_m is 0.01"),
        (((0.02, 200),), {"broadcast_rate": -5}, "rate of -5"),
    ],
)
def test_options_out_of_range_are_refused(steps, others, says):
    with pytest.raises(ConfigError, match=says):
        PrescriptionOptions(steps=tuple(RateStep(*step) for step in steps), **others)


# --- what always holds -------------------------------------------------------------------------

COVER = arrays(
    float,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 20.0, 100.0]),
)
DISTANCES = st.fixed_dictionaries(
    {
        "buffer_m": st.sampled_from([0.0, 0.5, 2.0, 3.0, 7.5, 40.0]),
        "merge_m": st.sampled_from([0.0, 1.0, 3.0, 6.0, 40.0]),
        "min_patch_m2": st.sampled_from([0.0, 9.0, 12.0, 30.0]),
    }
)
SIZES = st.sampled_from([(3.0, 3.0), (1.0, 6.0), (5.0, 0.5)])
CLEAN = Trust(evaluated=True, note="evaluated", false_weed_share=0.0)


@given(COVER, DISTANCES, SIZES, st.lists(st.sampled_from(range(101)), min_size=2, max_size=2))
@settings(max_examples=150, deadline=None)
def test_a_lower_threshold_never_treats_less(cover, distances, cell_m, thresholds):
    found = weed_map(cover, cell_m=cell_m)
    low, high = (
        prescribe(found, options((t, 100), **distances), CLEAN).treat for t in sorted(thresholds)
    )
    assert (low | ~high).all()


@given(COVER, DISTANCES)
@settings(max_examples=60, deadline=None)
def test_a_threshold_of_zero_treats_every_cell_with_weeds(cover, distances):
    found = weed_map(cover)
    plain = prescribe(found, options((0, 100)), CLEAN)
    assert (plain.treat == (found.weed_share > 0)).all()
    grown = {**distances, "min_patch_m2": 0.0}
    assert prescribe(found, options((0, 100), **grown), CLEAN).treat[found.weed_share > 0].all()


@given(COVER, DISTANCES, SIZES)
@settings(max_examples=60, deadline=None)
def test_litres_are_area_times_rate(cover, distances, cell_m):
    found = weed_map(cover, cell_m=cell_m)
    prescription = prescribe(found, options((1, 80), (3, 120), (20, 333), **distances), CLEAN)
    by_rate = {
        rate: found.ground_m2[prescription.rate == rate].sum() / 10_000
        for rate in (0, 80, 120, 333)
    }
    saved = prescription.savings()
    assert saved.prescribed_l == pytest.approx(sum(r * area for r, area in by_rate.items()))
    assert sum(by_rate.values()) * 10_000 == pytest.approx(saved.field_m2)
    assert saved.prescribed_l <= saved.broadcast_l * (1 + 1e-9)


@given(COVER, st.sampled_from([0.5, 2.0, 3.0, 7.5, 40.0]), SIZES)
@settings(max_examples=60, deadline=None)
def test_the_buffer_is_that_of_brute_force(cover, buffer_m, cell_m):
    found = weed_map(cover, cell_m=cell_m)
    got = prescribe(found, options((2, 100), (5, 200), buffer_m=buffer_m), CLEAN).rate
    own = np.select([found.weed_share >= 0.05, found.weed_share >= 0.02], [200, 100], 0)
    outlines = found.polygons()
    for number, outline in enumerate(outlines):
        near = [other.distance(outline) < buffer_m - 1e-6 for other in outlines]
        assert got[number] == own[near].max()
