"""The interval of an area covers the truth as often as it says."""

import numpy as np
import pytest
import scipy.stats

from weedseg.maps.trust import MIN_PHOTOS, RoleBias, Trust, _t95

GROUND_M2 = 20_000.0


def measured(errors):
    """Return what the metadata of a model would hold after these errors in photos."""
    weed = RoleBias(bias=errors.mean(), rmse=np.sqrt((errors**2).mean()))
    return Trust(evaluated=True, note="", num_photos=len(errors), weed=weed)


@pytest.mark.parametrize("num_photos", [5, 8, 60])
@pytest.mark.parametrize("true_share", [0.004, 0.08])
def test_95_of_100_intervals_cover_the_truth(num_photos, true_share):
    """The model sees 1 % too much, with 2 % of scatter a photo; a field is 20,000 photos large."""
    rng = np.random.default_rng(7)
    covered = corrected = naive = 0.0
    trials = 3000
    true_m2 = true_share * GROUND_M2
    for errors in rng.normal(0.01, 0.02, (trials, num_photos)):
        predicted_share = true_share + 0.01 + rng.normal(0, 0.02 / np.sqrt(20_000))
        area = measured(errors).area(predicted_share * GROUND_M2, GROUND_M2, "weed")
        covered += area.low_m2 <= true_m2 <= area.high_m2
        corrected += abs(area.corrected_m2 - true_m2)
        naive += abs(area.predicted_m2 - true_m2)
    assert covered / trials == pytest.approx(0.95, abs=0.012)  # three standard errors
    if num_photos == 60:
        assert corrected < naive / 3


def test_the_quantile_is_students():
    degrees = np.arange(MIN_PHOTOS - 1, 500)
    np.testing.assert_allclose(
        [_t95(int(d)) for d in degrees], scipy.stats.t.ppf(0.975, degrees), rtol=3e-3
    )


def test_areas_stay_within_the_ground():
    trust = measured(np.array([0.3, 0.5, 0.4, 0.2, 0.6]))
    low = trust.area(0.1 * GROUND_M2, GROUND_M2, "weed")
    assert (low.low_m2, low.corrected_m2) == (0.0, 0.0)
    assert 0 <= low.high_m2 <= GROUND_M2
    full = measured(-np.array([0.3, 0.5, 0.4, 0.2, 0.6])).area(GROUND_M2, GROUND_M2, "weed")
    assert full.corrected_m2 == full.high_m2 == GROUND_M2


def test_nothing_is_said_without_measurements():
    errors = np.full(MIN_PHOTOS - 1, 0.01)
    for trust, role in (
        (measured(errors), "weed"),  # too few photos
        (measured(np.full(60, 0.01)), "crop"),  # the other role
        (Trust(evaluated=False, note="", num_photos=60, weed=RoleBias(bias=0, rmse=0)), "weed"),
    ):
        area = trust.area(100.0, GROUND_M2, role)
        assert area.predicted_m2 == 100.0
        assert area.corrected_m2 is area.low_m2 is area.high_m2 is None
